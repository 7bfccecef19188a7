"""What pools of spot capacity cost over time and when they are taken back: recorded prices, drawn interruptions.

Prices are those of smml.data.spot_history, each held until the next one was recorded. No public record says when
capacity was taken back: interruptions are DRAWN, as a Poisson process whose rate comes from the Spot Instance Advisor's
band for the type in its region (share of instances interrupted in the trailing month). Bands are wide: see `Within`.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from smml.cost.decisions.decision import HOURS_PER_MONTH
from smml.cost.spot.pools import Pool
from smml.data.spot_history import interruption_rate, spot_history
from smml.errors import UserError

# Where in the advisor's band the share is taken: its lower end, its middle, its upper end.
Within = Literal["low", "middle", "high"]
_SHARES = {"low": 0.0, "middle": 0.5, "high": 1.0}


@dataclass(frozen=True)
class PoolMarket:
    """One pool over time: `usd_per_hour[i]` holds from `from_hours[i]` on (the first from 0), the last without end.

    `basis` says where the rate of interruptions comes from. Raises UserError naming the field.
    """

    pool: Pool
    from_hours: tuple[float, ...]
    usd_per_hour: tuple[float, ...]
    interruptions_per_hour: float
    basis: str

    def __post_init__(self) -> None:
        if not self.from_hours or len(self.from_hours) != len(self.usd_per_hour):
            raise UserError(
                f"{self.pool}: from_hours has {len(self.from_hours)} entries and usd_per_hour {len(self.usd_per_hour)}: "
                "give one price for each time, and at least one."
            )
        if self.from_hours[0] != 0 or list(self.from_hours) != sorted(set(self.from_hours)):
            raise UserError(f"{self.pool}: from_hours is {self.from_hours}: begin at 0 and ascend.")
        if not all(usd > 0 and math.isfinite(usd) for usd in self.usd_per_hour):
            raise UserError(
                f"{self.pool}: usd_per_hour is {self.usd_per_hour}: give prices above 0."
            )
        rate = self.interruptions_per_hour
        if not (rate >= 0 and math.isfinite(rate)):
            raise UserError(
                f"{self.pool}: interruptions_per_hour is {rate!r}: give a number of 0 or more."
            )

    def price_at(self, hours: float) -> float:
        """USD an hour at that time."""
        found = np.searchsorted(self.from_hours, hours, side="right") - 1
        return self.usd_per_hour[max(int(found), 0)]

    def usd(self, start: float, end: float) -> float:
        """What one instance costs from hour `start` to hour `end`."""
        edges = np.array([*self.from_hours, math.inf])
        overlap = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
        return float(np.maximum(overlap, 0.0) @ np.array(self.usd_per_hour))

    def interruptions(self, hours: float, seed: int) -> np.ndarray:
        """Times in 0 … `hours` at which capacity is taken back: drawn, the same for a pool and seed whatever beside."""
        if not (hours > 0 and math.isfinite(hours)):
            raise UserError(f"hours is {hours!r}: give a number above 0.")
        name = hashlib.sha256(str(self.pool).encode()).digest()[:8]
        generator = np.random.default_rng([seed, int.from_bytes(name, "big")])
        number = generator.poisson(self.interruptions_per_hour * hours)
        return np.sort(generator.uniform(0.0, hours, number))


def hourly_rate(monthly_share: float) -> float:
    """Interruptions an hour of one instance of which that share is interrupted in a month: −ln(1 − share) ÷ hours.

    Raises UserError for a share outside 0 … 1, and for 1 itself, which no rate gives.
    """
    if not 0 <= monthly_share < 1:
        raise UserError(f"monthly_share is {monthly_share!r}: give a share, 0 or more and below 1.")
    return -math.log1p(-monthly_share) / HOURS_PER_MONTH


def recorded(
    pools: Sequence[Pool], *, within: Within = "middle", monthly_share: float | None = None
) -> list[PoolMarket]:
    """The markets of those pools as recorded; a pool without a recorded price is left out.

    `monthly_share` takes the place of the advisor's band, as the caller's assumption. Raises UserError where no pool
    has a price, or a type no band.
    """
    if within not in _SHARES:
        raise UserError(
            f"within is {within!r}: allowed are {', '.join(_SHARES)}; give one of these."
        )
    history = spot_history()
    priced = {
        pool: [
            row
            for row in history
            if (row.region, row.zone_id, row.instance_type)
            == (pool.region, pool.zone_id, pool.instance_type)
        ]
        for pool in pools
    }
    times = [row.at for rows in priced.values() for row in rows]
    if not times:
        known = ", ".join(sorted({f"{row.instance_type} in {row.region}" for row in history}))
        raise UserError(
            f"no spot price is recorded of {', '.join(map(str, pools)) or 'no pool'}; recorded are {known}; "
            "give one of these or run `smml prices refresh`."
        )
    first, found = min(times), []
    for pool, rows in priced.items():
        if not rows:
            continue
        from_hours = [(row.at - first).total_seconds() / 3600 for row in rows]
        from_hours[0] = (
            0.0  # a pool that was recorded later cost as much before, for all that is known
        )
        rate, basis = _rate(pool, within, monthly_share)
        prices = tuple(row.price.value for row in rows)
        found.append(PoolMarket(pool, tuple(from_hours), prices, rate, basis))
    return found


def _rate(pool: Pool, within: Within, monthly_share: float | None) -> tuple[float, str]:
    if monthly_share is not None:
        return hourly_rate(monthly_share), f"assumed: {monthly_share:.0%} a month"
    band = interruption_rate(pool.instance_type, pool.region)
    share = band.low + _SHARES[within] * (band.high - band.low)
    if share >= 1:
        raise UserError(
            f"the band of {pool.instance_type} in {pool.region} is above {band.low:.0%} without an upper end: "
            "give within = low or middle, or a monthly_share of your own."
        )
    basis = f"drawn: {share:.0%} a month, {within} of the band {band.low:.0%} to {band.high:.0%} of {band.date}"
    return hourly_rate(share), basis
