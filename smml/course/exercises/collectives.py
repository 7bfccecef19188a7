"""Exercises of 02_multi_accelerator/01_collectives."""

import math
from collections.abc import Callable

from smml.course.checking import WrongAnswer, attempt, exercise, expect_close


@exercise(
    lambda payload, ranks, seconds: payload / seconds,
    lambda payload, ranks, seconds: 2 * payload / seconds * (ranks - 1) / ranks,
    lambda payload, ranks, seconds: payload / seconds / ranks,
)
def all_gather_busbw(answer: Callable[[float, int, float], float]) -> str:
    """Bus bandwidth of an all-gather in bytes a second, as nccl-tests defines it."""
    for payload, ranks, seconds in ((1e9, 8, 0.01), (4e6, 2, 1e-3), (1e6, 1, 1e-4)):
        expect_close(
            f"all_gather_busbw({payload:g}, {ranks}, {seconds:g})",
            attempt(answer, payload, ranks, seconds),
            payload / seconds * (ranks - 1) / ranks,
            "Payload over time is algbw. Which share of the result does a rank not have yet?",
        )
    return "algbw times (p − 1)/p: a rank has its own part already"


@exercise(
    lambda ranks, alpha, beta: alpha / beta,
    lambda ranks, alpha, beta: 2 * (ranks - 1) * alpha / beta,
    lambda ranks, alpha, beta: (
        (2 * (ranks - 1) - math.log2(ranks))
        * alpha
        / ((math.log2(ranks) - 2 * (ranks - 1) / ranks) * beta or 1)
    ),
)
def switch_payload(answer: Callable[[int, float, float], float]) -> str:
    """The payload from which on a ring beats doubling; infinite where it never does."""
    for ranks, alpha, beta in ((8, 2e-5, 1e-10), (64, 1e-6, 2e-11), (2, 1e-5, 1e-9)):
        steps = math.log2(ranks)
        saved = steps - 2 * (ranks - 1) / ranks
        right = (2 * (ranks - 1) - steps) * alpha / (saved * beta) if saved > 0 else math.inf
        given = attempt(answer, ranks, alpha, beta)
        hint = "Both times are messages · α + bytes · β: set them equal."
        called = f"switch_payload({ranks}, {alpha:g}, {beta:g})"
        if right < math.inf:
            expect_close(called, given, right, hint)
        elif given != math.inf:
            raise WrongAnswer(
                f"{called} is not {given!r}. A ring that sends no fewer bytes never wins: math.inf."
            )
    return "the messages that the ring costs more, over the bytes that it saves"
