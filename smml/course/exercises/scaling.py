"""Exercises of 04_cost_optimization/04_right_sizing_and_autoscaling."""

import math
from collections.abc import Callable

from smml.course.checking import attempt, exercise, expect_close


@exercise(
    lambda capacity, utilization, target: capacity * utilization / target,
    lambda capacity, utilization, target: math.floor(capacity * utilization / target),
    lambda capacity, utilization, target: math.ceil(capacity * target / utilization),
    lambda capacity, utilization, target: capacity + 1,
    lambda capacity, utilization, target: round(capacity * utilization / target),
)
def wanted(answer: Callable[[int, float, float], int]) -> str:
    """Servers that bring the utilization of `capacity` servers back to its target, or below."""
    for capacity, utilization, target in (
        (4, 0.9, 0.5),
        (10, 0.3, 0.7),
        (3, 0.5, 0.5),
        (7, 0.66, 0.6),
    ):
        expect_close(
            f"wanted({capacity}, {utilization:g}, {target:g})",
            attempt(answer, capacity, utilization, target),
            math.ceil(capacity * utilization / target - 1e-9),
            "How many servers are busy on average? Share them out so that each is busy for `target`; half a server "
            "cannot be had, and too few would miss the target.",
            1e-6,
        )
    return "the busy servers, shared out at the target, rounded up"


@exercise(
    lambda hourly, per_request: hourly / per_request,
    lambda hourly, per_request: 730 * per_request / hourly,
    lambda hourly, per_request: 24 * hourly / per_request,
    lambda hourly, per_request: 730 * hourly * per_request,
)
def crossover(answer: Callable[[float, float], float]) -> str:
    """Requests a month at which one server that is always on costs what a price a request costs."""
    for hourly, per_request in ((0.1, 1e-4), (0.085, 3e-5), (1.2, 2e-3)):
        expect_close(
            f"crossover({hourly:g}, {per_request:g})",
            attempt(answer, hourly, per_request),
            730 * hourly / per_request,
            "The server costs the same whatever comes; the other one costs nothing while nothing comes. Equal bills, "
            "over a month of 730 hours.",
        )
    return "the month of a server over the price of a request"
