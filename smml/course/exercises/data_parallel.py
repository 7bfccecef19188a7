"""Exercises of 02_multi_accelerator/03_data_parallel."""

from collections.abc import Callable

from smml.course.checking import attempt, exercise, expect_close


@exercise(
    lambda parameters, ranks, itemsize: parameters * itemsize,
    lambda parameters, ranks, itemsize: 2 * parameters * itemsize,
    lambda parameters, ranks, itemsize: (ranks - 1) / ranks * parameters * itemsize,
)
def bytes_a_step(answer: Callable[[float, int, int], float]) -> str:
    """Bytes that a rank sends in a step of data parallel, around a ring."""
    for parameters, ranks, itemsize in ((1e9, 8, 2), (4e6, 2, 4), (7e9, 64, 4), (1e6, 1, 4)):
        expect_close(
            f"bytes_a_step({parameters:g}, {ranks}, {itemsize})",
            attempt(answer, parameters, ranks, itemsize),
            2 * (ranks - 1) / ranks * parameters * itemsize,
            "Each gradient is reduced once. A ring passes every part around twice: to add it up, and to give it back.",
            tolerance=1e-6,
        )
    return "2(p − 1)/p of the gradients' bytes"


@exercise(
    lambda compute_s, reduce_s, micro: compute_s / (compute_s + reduce_s),
    lambda compute_s, reduce_s, micro: micro * compute_s / (micro * (compute_s + reduce_s)),
    lambda compute_s, reduce_s, micro: 1 - reduce_s / (micro * compute_s),
)
def efficiency(answer: Callable[[float, float, int], float]) -> str:
    """Share of a step that computes, where nothing is hidden and `micro` micro-batches share one all-reduce."""
    for compute_s, reduce_s, micro in ((0.2, 0.05, 1), (0.2, 0.05, 8), (1.0, 3.0, 4)):
        expect_close(
            f"efficiency({compute_s:g}, {reduce_s:g}, {micro})",
            attempt(answer, compute_s, reduce_s, micro),
            micro * compute_s / (micro * compute_s + reduce_s),
            "Each micro-batch computes; only the last one sends. What share of the whole step is computing?",
            tolerance=1e-6,
        )
    return "computing over computing and sending once"
