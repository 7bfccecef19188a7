"""Exercises of 04_cost_optimization/03_buying_capacity."""

import math
from collections.abc import Callable

from smml.course.checking import WrongAnswer, attempt, exercise, expect_close


@exercise(
    lambda rent, committed: 730 * rent / committed,
    lambda rent, committed: committed / rent,
    lambda rent, committed: 730 * (1 - committed / rent),
    lambda rent, committed: 730 * committed / rent,
)
def break_even_hours(answer: Callable[[float, float], float | None]) -> str:
    """Hours a month from which a commitment is no dearer than on demand; math.inf where it never is."""
    for rent, committed in ((1.0, 0.6), (4.0, 1.0), (0.5, 0.49), (2.0, 3.0)):
        given = attempt(answer, rent, committed)
        right = 730 * committed / rent
        if committed > rent:
            if given != math.inf:
                raise WrongAnswer(
                    f"break_even_hours({rent:g}, {committed:g}) is not {given!r}: a month has 730 hours, and more would "
                    "be needed. Return math.inf for never."
                )
            continue
        expect_close(
            f"break_even_hours({rent:g}, {committed:g})",
            given,
            right,
            "Both cost the same where used hours × the rent equal 730 × the committed price.",
        )
    return "730 × the committed price ÷ the rent, or never"


@exercise(
    lambda load, ratio: max(load),
    lambda load, ratio: round(sum(load) / len(load)),
    lambda load, ratio: sum(hour > 0 for hour in load),
    lambda load, ratio: round(ratio * max(load)),
)
def instances_to_commit(answer: Callable[[list[int], float], int]) -> str:
    """How many instances to commit to, for a load by hour and committed ÷ on-demand price."""
    cases = [
        ([3] * 18 + [8] * 6, 0.6),
        ([3] * 18 + [8] * 6, 0.2),
        ([0, 0, 0, 1], 0.6),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.45),
    ]
    for load, ratio in cases:
        usd = {
            n: n * ratio * len(load) + sum(max(0, hour - n) for hour in load)
            for n in range(max(load) + 1)
        }
        given = attempt(answer, list(load), ratio)
        least = min(usd.values())
        if given not in usd or usd[given] > least * (1 + 1e-9):
            raise WrongAnswer(
                f"instances_to_commit({load}, {ratio:g}): {given!r} is not the cheapest. Ask of each further instance: in "
                "which share of the hours would it be at work? It pays while that is more than the price ratio."
            )
    return "one more instance as long as it is at work more than the price ratio of the time"
