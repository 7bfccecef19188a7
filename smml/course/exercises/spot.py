"""Exercises of 04_cost_optimization/02_spot."""

import math
from collections.abc import Callable, Mapping, Sequence

from smml.course.checking import attempt, exercise, expect_close

_OFFERED = {
    "z1": ["a.large", "a.xlarge", "b.large", "b.xlarge", "c.large"],
    "z2": ["a.large", "b.large", "b.xlarge"],
    "z3": ["c.large"],
}  # made up


@exercise(
    lambda offered, families, sizes: len(families) * len(sizes) * len(offered),
    lambda offered, families, sizes: sum(len(names) for names in offered.values()),
    lambda offered, families, sizes: len(families) * len(sizes),
    lambda offered, families, sizes: len(
        {n for names in offered.values() for n in names if n.split(".")[0] in families}
    ),
)
def pools(
    answer: Callable[[Mapping[str, Sequence[str]], Sequence[str], Sequence[str]], int],
) -> str:
    """How many pools a choice of families and sizes has, where {zone: types} are offered."""
    for families, sizes in (
        (["a"], ["large", "xlarge"]),
        (["a", "b"], ["large", "xlarge"]),
        (["c"], ["large"]),
        (["a", "c"], ["xlarge"]),
    ):
        right = sum(
            f"{family}.{size}" in names
            for names in _OFFERED.values()
            for family in families
            for size in sizes
        )
        expect_close(
            f"pools(offered, {families}, {sizes})",
            attempt(answer, _OFFERED, families, sizes),
            right,
            "A pool is one type in one zone, and it is there only where the zone offers that type.",
            tolerance=1e-9,
        )
    return "one for each type and zone in which it is offered"


@exercise(
    lambda work, spot, rent, lost: work * (rent / spot) / lost,
    lambda work, spot, rent, lost: work * (rent / spot - 1),
    lambda work, spot, rent, lost: work * (1 - spot / rent) / lost,
    lambda work, spot, rent, lost: math.floor(work * (rent / spot - 1) / lost),
)
def most_interruptions(answer: Callable[[float, float, float, float], float]) -> str:
    """Interruptions in a job at which spot costs as much as on demand, each costing `lost_hours` of instance time."""
    for work, spot, rent, lost in (
        (100.0, 0.3, 1.0, 0.5),
        (24.0, 0.5, 0.6, 2.0),
        (7.0, 1.0, 3.2, 0.25),
    ):
        expect_close(
            f"most_interruptions({work:g}, {spot:g}, {rent:g}, {lost:g})",
            attempt(answer, work, spot, rent, lost),
            work * (rent - spot) / (spot * lost),
            "Set both bills equal: (work + interruptions × lost) × the spot price = work × the other price.",
        )
    return "what is saved on the work pays for that many interruptions"
