"""Exercises of 04_cost_optimization/05_auditing_a_business_case."""

import math
from collections.abc import Callable

from smml.course.checking import attempt, exercise, expect_close

_CASES = ((1000.0, 500.0, 250.0), (700.0, 3000.0, 800.0), (50_000.0, 2000.0, 1900.0))
_SHAPES = (
    (24e9, 8e9, 131_072, 8192),
    (80e9, 13e9, 819_200, 4096),
    (24e9, 8e9, 131_072, 128_000),
    (16e9, 8e9, 131_072, 1000),
)


@exercise(
    lambda once, before, after: once / (before - after),
    lambda once, before, after: once / before * 730 / 24,
    lambda once, before, after: once / (before - after) * 30,
    lambda once, before, after: once / (before - after) * 730 / 24,
)
def break_even_days(answer: Callable[[float, float, float], float]) -> str:
    """Days until what was paid once is saved, of 730 hours a month; infinite where nothing is saved."""
    for once, before, after in _CASES:
        expect_close(
            f"break_even_days({once:g}, {before:g}, {after:g})",
            attempt(answer, once, before, after),
            once / (before - after) * 730 / 24,
            "What is saved in a month? How many months of that pay the first sum? A month has 730 hours.",
            tolerance=1e-3,
        )
    for before, after in ((500.0, 500.0), (500.0, 734.0)):
        try:
            given = attempt(answer, 1000.0, before, after)
        except ZeroDivisionError:
            given = math.nan
        expect_close(
            f"break_even_days(1000, {before:g}, {after:g})",
            1.0 if given == math.inf else 0.0,
            1.0,
            "Who saves nothing, or pays more than before, never breaks even: return math.inf, not a negative number of days.",
        )
    return "a case that saves nothing has no break-even, however short it looks"


@exercise(
    lambda memory, parameters, per_token, context: int(memory // (per_token * context)),
    lambda memory, parameters, per_token, context: int(
        (memory - parameters) // (per_token * context)
    ),
    lambda memory, parameters, per_token, context: (
        (memory - 2 * parameters) / (per_token * context)
    ),
    lambda memory, parameters, per_token, context: int(
        (memory - 2 * parameters) // (per_token * context)
    ),
)
def sequences_that_fit(answer: Callable[[float, float, float, int], int]) -> str:
    """Whole sequences whose KV cache fits beside bf16 weights; none where the weights alone do not."""
    for memory, parameters, per_token, context in (*_SHAPES, (12e9, 8e9, 131_072, 1000)):
        right = max(0, math.floor((memory - 2 * parameters) / (per_token * context)))
        given = attempt(answer, memory, parameters, per_token, context)
        expect_close(
            f"sequences_that_fit({memory:g}, {parameters:g}, {per_token:g}, {context})",
            given + 1 if isinstance(given, int | float) else given,
            right + 1,
            "Take the weights, two bytes a parameter, from the memory first. What is left holds whole sequences only, and "
            "never fewer than none.",
            tolerance=1e-9,
        )
    return "weights come first; what is left is divided among whole sequences"
