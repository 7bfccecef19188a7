"""Exercises of 02_multi_accelerator/06_pipeline_parallel."""

import math
from collections.abc import Callable

from smml.course.checking import WrongAnswer, attempt, exercise, expect_close


def _bubble(ranks: int, micro: int, interleave: int) -> float:
    return (ranks - 1) / (interleave * micro + ranks - 1)


@exercise(
    lambda ranks, interleave, share: math.ceil((ranks - 1) / (interleave * share)),
    lambda ranks, interleave, share: math.ceil((ranks - 1) * (1 - share) / share),
    lambda ranks, interleave, share: max(
        1, math.floor((ranks - 1) * (1 - share) / (interleave * share))
    ),
)
def fewest_micro_batches(answer: Callable[[int, int, float], int]) -> str:
    """The fewest micro-batches with which a pipeline of even stages idles for at most `share` of its time."""
    for ranks, interleave, share in ((8, 1, 0.1), (4, 1, 0.3), (16, 4, 0.04), (2, 2, 0.07)):
        right = 1
        while _bubble(ranks, right, interleave) > share:
            right += 1
        expect_close(
            f"fewest_micro_batches({ranks}, {interleave}, {share:g})",
            attempt(answer, ranks, interleave, share),
            right,
            "Solve share = (p − 1) / (v·m + p − 1) for m, and round up.",
            tolerance=0,
        )
    return "(p − 1)(1 − share) / (v · share), rounded up"


@exercise(
    lambda schedule, rank, ranks, micro: micro,
    lambda schedule, rank, ranks, micro: ranks - rank,
    lambda schedule, rank, ranks, micro: micro if schedule == "gpipe" else ranks - rank,
    lambda schedule, rank, ranks, micro: (
        micro if schedule == "gpipe" else min(micro, ranks - 1 - rank)
    ),
)
def in_flight(answer: Callable[[str, int, int, int], int]) -> str:
    """The most micro-batches whose activations a rank holds, under gpipe or 1f1b."""
    cases = [("gpipe", 0, 4, 8), ("1f1b", 0, 4, 8), ("1f1b", 3, 4, 8), ("1f1b", 1, 8, 4)]
    for case in (*cases, ("gpipe", 3, 4, 2)):
        schedule, rank, ranks, micro = case
        right = micro if schedule == "gpipe" else min(micro, ranks - rank)
        if attempt(answer, *case) != right:
            raise WrongAnswer(
                f"in_flight{case} is {right}: count the forwards of that rank before its first backward, and look at "
                "the drawing. No rank holds more micro-batches than there are."
            )
    return "all of them, or as many as stages lie ahead, the rank's own included"
