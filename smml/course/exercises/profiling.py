"""Exercises of 01_leveraging_hardware/08_profiling."""

import math
from collections.abc import Callable

from smml.course.checking import WrongAnswer, attempt, exercise, expect_close

SEEDS = (1, 2, 3)


@exercise(
    lambda seed: {1: "mask", 2: "row guard", 3: "float64"}[seed],
    lambda seed: {1: "float64", 2: "row loop", 3: "mask"}[seed],
    lambda seed: "float64",
    lambda seed: 64,
)
def culprit(answer: Callable[[int], str]) -> str:
    """The fault of each mystery, named from its trace."""
    from smml.bench.bottlenecks import FAULTS, fault_of

    for seed in SEEDS:
        name = attempt(answer, seed)
        if name not in FAULTS:
            raise WrongAnswer(
                f"mystery {seed}: {name!r} is no fault; there are {', '.join(FAULTS)}."
            )
        if name != fault_of(seed):
            raise WrongAnswer(
                f"mystery {seed} is not {name!r}. Look which phase grew; then whether it makes more calls, computes in "
                "another number format, reads values back, or spends its time where torch does nothing."
            )
    return "phase, calls, number formats and values read back told them apart"


@exercise(
    lambda load_s, step_s: load_s / step_s,
    lambda load_s, step_s: math.ceil(step_s / load_s),
    lambda load_s, step_s: 1,
)
def workers_needed(answer: Callable[[float, float], float]) -> str:
    """Loader processes that hide the making of batches behind the steps."""
    for load_s, step_s in ((0.25, 0.1), (0.02, 0.05), (0.3, 0.1001)):
        expect_close(
            f"workers_needed({load_s:g}, {step_s:g})",
            attempt(answer, load_s, step_s),
            math.ceil(load_s / step_s),
            "While one step runs, all workers together must finish one batch; there are only whole workers.",
        )
    return "n workers deliver n batches in the time of one"
