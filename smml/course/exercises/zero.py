"""Exercises of 02_multi_accelerator/04_zero_fsdp."""

from collections.abc import Callable

from smml.course.checking import attempt, exercise, expect_close


@exercise(
    lambda parameters, ranks, stage: 16 * parameters / ranks,
    lambda parameters, ranks, stage: (4 + 12 / ranks) * parameters,
    lambda parameters, ranks, stage: (
        (4 + 4 + 8 / ranks, 4 + 12 / ranks, 16 / ranks)[stage - 1] * parameters
    ),
)
def bytes_held(answer: Callable[[float, int, int], float]) -> str:
    """Bytes that a rank holds at a stage, in mixed precision: the paper's 2 + 2 + 12."""
    # The last is table 1 of arXiv:1910.02054: 7.5B parameters over 64 devices.
    for parameters, ranks in ((1e9, 8), (1e6, 1), (7.5e9, 64)):
        for stage, shared, whole in ((1, 12, 4), (2, 14, 2), (3, 16, 0)):
            expect_close(
                f"bytes_held({parameters:g}, {ranks}, {stage})",
                attempt(answer, parameters, ranks, stage),
                (whole + shared / ranks) * parameters,
                "16 bytes a parameter: 2 of weights, 2 of gradients, 12 of the optimizer. Stage 1 divides the 12 by the "
                "ranks, stage 2 the gradients too, stage 3 all.",
                tolerance=1e-6,
            )
    return "whole + shared ÷ ranks"


@exercise(
    lambda parameters, ranks, stage: 2 * (ranks - 1) / ranks * 4 * parameters,
    lambda parameters, ranks, stage: (3 if stage == 3 else 2) * 4 * parameters,
    lambda parameters, ranks, stage: stage * (ranks - 1) / ranks * 4 * parameters,
)
def bytes_sent(answer: Callable[[float, int, int], float]) -> str:
    """Bytes that a rank sends in a step at a stage, around rings, in float32."""
    for parameters, ranks in ((1e9, 8), (4e6, 2), (7e9, 64), (1e6, 1)):
        for stage in (1, 2, 3):
            expect_close(
                f"bytes_sent({parameters:g}, {ranks}, {stage})",
                attempt(answer, parameters, ranks, stage),
                (3 if stage == 3 else 2) * (ranks - 1) / ranks * 4 * parameters,
                "Count the reduce-scatters of gradients and the all-gathers of parameters in a step: each sends "
                "(p − 1)/p of the payload. When must stage 3 gather again?",
                tolerance=1e-6,
            )
    return "two passes around the ring, at stage 3 three"
