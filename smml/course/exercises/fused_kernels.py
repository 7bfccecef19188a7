"""Exercises of 01_leveraging_hardware/05_fused_llama_kernels."""

import math
from collections.abc import Callable

from smml.course.checking import WrongAnswer, attempt, exercise, expect_close

Pair = tuple[float, float]


def _state(numbers: list[float]) -> Pair:
    """Maximum, and sum of exponentials relative to it."""
    top = max(numbers)
    return top, sum(math.exp(x - top) for x in numbers)


@exercise(
    lambda m1, s1, m2, s2: (max(m1, m2), s1 + s2),
    lambda m1, s1, m2, s2: (m1, s1 + s2 * math.exp(m2 - m1)),
    lambda m1, s1, m2, s2: (0.0, s1 * math.exp(m1) + s2 * math.exp(m2)),
)
def merge(answer: Callable[[float, float, float, float], Pair]) -> str:
    """Maximum and sum of a row from those of its two parts, without an overflow."""
    for left, right in (
        ([1.0, 2.0], [3.0]),
        ([5.0, -1.0, 0.5], [2.0, 2.0]),
        ([1000.0, 999.0], [-1000.0]),
        ([-1000.0], [1000.0, 998.0]),
    ):
        states = (*_state(left), *_state(right))
        top, total = _state(left + right)
        given = attempt(answer, *states)
        if not (isinstance(given, tuple) and len(given) == 2):
            raise WrongAnswer(f"merge{states} should be a pair (m, s), not {given!r}.")
        called = f"merge({', '.join(f'{n:g}' for n in states)})"
        hint = "The new maximum is the larger one; each sum is relative to its own maximum: multiply it by exp(old − new)."
        if given[0] != top:
            raise WrongAnswer(f"{called}: {given[0]!r} is not the maximum. {hint}")
        expect_close(f"the sum of {called}", given[1], total, hint)
    return "the larger maximum, and both sums relative to it"


@exercise(
    lambda free, hidden, weight, vocabulary, itemsize: free // (vocabulary * itemsize),
    lambda free, hidden, weight, vocabulary, itemsize: (free - weight) // (vocabulary * itemsize),
    lambda free, hidden, weight, vocabulary, itemsize: (free - hidden - weight) // (vocabulary * 4),
)
def largest_chunk(answer: Callable[[int, int, int, int, int], int]) -> str:
    """Most rows of logits that fit beside both gradients; 0 where not even these do."""
    gib = 2**30
    for free, hidden, weight, vocabulary, itemsize in (
        (4 * gib, gib // 32, gib // 2, 128_256, 2),
        (2 * gib, gib // 16, gib, 32_000, 4),
        (gib, gib // 2, gib, 50_257, 2),
    ):
        given = attempt(answer, free, hidden, weight, vocabulary, itemsize)
        right = max(free - hidden - weight, 0) // (vocabulary * itemsize)
        if given != right:
            raise WrongAnswer(
                f"largest_chunk({free}, {hidden}, {weight}, {vocabulary}, {itemsize}) is not {given!r}. The gradients of "
                "hidden states and weight stay; whole rows only in what they leave, and 0 where they do not fit."
            )
    return "what both gradients leave, over one row of logits"
