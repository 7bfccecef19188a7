"""Where one way to buy overtakes another: closed form for straight lines, bisection for the rest, the lower envelope.

"Never" is an answer: None, where no such hour or month exists.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smml.cost.buying.options import CapacityBlock, Commitment, OnDemand, Spot
from smml.cost.buying.owned import Owned
from smml.cost.decisions.decision import HOURS_PER_MONTH
from smml.errors import UserError


@dataclass(frozen=True)
class Line:
    """USD a month as a straight line: `fixed_usd` whether used or not, and `usd_per_hour` for each used hour."""

    name: str
    fixed_usd: float
    usd_per_hour: float

    def usd(self, hours: float) -> float:
        """USD of a month in which that many hours are used."""
        return self.fixed_usd + self.usd_per_hour * hours


@dataclass(frozen=True)
class Segment:
    """From `start` to `end` hours a month the line of that name is the cheapest."""

    start: float
    end: float
    name: str


def line(option: OnDemand | Spot | Commitment | Owned, months: float | None = None) -> Line:
    """A mean month of ONE instance under the option, over used hours; within whole terms for commitments.

    Hardware of one's own needs `months`, the horizon within its first life over which its loss of worth is spread.
    Raises UserError for a Capacity Block, whose cost goes in steps.
    """
    if isinstance(option, OnDemand):
        return Line(option.name, 0.0, option.usd_per_hour)
    if isinstance(option, Spot):
        return Line(option.name, 0.0, option.usd_per_hour / option.goodput)
    if isinstance(option, Commitment):
        return Line(option.name, option.usd_per_hour * HOURS_PER_MONTH, 0.0)
    if isinstance(option, CapacityBlock):
        raise UserError("a Capacity Block is paid in whole days, not along a line; use bisected().")
    if months is None or not 0 < months <= option.life_months:
        raise UserError(
            f"months is {months!r}; give the horizon of {option.name}, within its life of {option.life_months:g} months."
        )
    lost = option.price_usd - (option.worth_usd(months) if option.sold_at_end else 0.0)
    work = option.usd_per_busy_hour * (1 - option.idle_power_share)
    return Line(option.name, option.standing_usd_per_month(1) + lost / months, work)


def crossing(first: Line, second: Line) -> float | None:
    """Hours a month at which two lines cost the same: Δfixed ÷ Δprice an hour; None where they never do.

    Hours below 0 or above those of a month are never.
    """
    if first.usd_per_hour == second.usd_per_hour:
        return None
    hours = (second.fixed_usd - first.fixed_usd) / (first.usd_per_hour - second.usd_per_hour)
    return hours if 0 <= hours <= HOURS_PER_MONTH else None


def bisected(
    first: Callable[[float], float],
    second: Callable[[float], float],
    low: float,
    high: float,
    *,
    tolerance: float = 1e-6,
) -> float | None:
    """Smallest x found in [low, high] at which `second` is no dearer than `first`; None where it stays dearer.

    Both are costs over x (hours, months). Where their difference changes its sign more than once (bills in steps),
    the ends decide: it must be negative at `low` for there to be anything to find, and not so at `high`.
    Raises UserError for an empty range.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"the range is {low!r} to {high!r}; give low < high.")
    if second(low) <= first(low):
        return low
    if second(high) > first(high):
        return None
    while high - low > tolerance * max(1.0, abs(high)):
        middle = (low + high) / 2
        if second(middle) <= first(middle):
            high = middle
        else:
            low = middle
    return high


def months_until_owned_pays(owned: Owned, rent: OnDemand | Spot, hours: float) -> float | None:
    """Months after which one server, never sold, has cost less than renting for `hours` a month; None: not in its life.

    Price ÷ (rent − running costs of a month), for a life without a replacement.
    """
    rented, running = line(rent).usd(hours), owned.standing_usd_per_month(1)
    running += owned.usd_per_busy_hour * (1 - owned.idle_power_share) * hours
    if rented <= running:
        return None
    months = owned.price_usd / (rented - running)
    return months if months <= owned.life_months else None


def lower_envelope(lines: Sequence[Line], high: float = HOURS_PER_MONTH) -> list[Segment]:
    """Which line is the cheapest from 0 to `high` hours a month, in order; of equals the one named first.

    From each point on, the next is the line that crosses the present one first, with a lower price an hour.
    Raises UserError for no lines.
    """
    if not lines:
        raise UserError("lines is empty; give at least one option.")
    present = min(lines, key=lambda one: (one.fixed_usd, one.usd_per_hour))
    start, found = 0.0, []
    while True:
        ahead = [
            (
                (other.fixed_usd - present.fixed_usd) / (present.usd_per_hour - other.usd_per_hour),
                other,
            )
            for other in lines
            if other.usd_per_hour < present.usd_per_hour
        ]
        nearest = min(ahead, key=lambda pair: (pair[0], pair[1].usd_per_hour), default=None)
        if nearest is None or nearest[0] >= high:
            return [*found, Segment(start, high, present.name)]
        hours, following = nearest
        if hours > start:
            found.append(Segment(start, hours, present.name))
        start, present = max(start, hours), following
