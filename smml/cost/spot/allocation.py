"""Which pools a fleet takes: AWS's allocation strategies for Spot, each replayed on the same market.

As the Amazon EC2 User Guide documents them, "Use allocation strategies to determine how EC2 Fleet or Spot Fleet fulfills
Spot and On-Demand capacity": lowest-price takes the cheapest pool; capacity-optimized the pools with the highest
capacity; price-capacity-optimized the cheapest of those; diversified all pools. AWS does not publish its measure of
capacity. Here it is an input, `capacity`, higher is better; the stand-in for it is the rate of interruptions, negated:
the documentation equates highest capacity with the lowest chance of interruption.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from smml.cost.spot.market import PoolMarket
from smml.cost.spot.pools import Pool
from smml.cost.spot.run import Spread
from smml.errors import UserError

Strategy = Literal["lowest-price", "capacity-optimized", "price-capacity-optimized", "diversified"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


@dataclass(frozen=True)
class Offer:
    """What a fleet sees of a pool when it launches: price, and capacity as a score (higher is better)."""

    pool: Pool
    usd_per_hour: float
    capacity: float


@dataclass(frozen=True)
class Fleet:
    """Many replays of one strategy.

    usd                 of the whole fleet in a replay
    usd_per_hour        of one instance, over the hours that it ran
    interruptions       times that instances were taken back in a replay: a job that needs all of them stops as often
    lost                instances that were taken back in a replay
    largest_loss        largest share of the fleet that went at once, in a replay
    running             share of the instance-hours asked for that ran
    """

    strategy: Strategy
    usd: Spread
    usd_per_hour: Spread
    interruptions: Spread
    lost: Spread
    largest_loss: Spread
    running: Spread


def allocate(strategy: Strategy, instances: int, offers: Sequence[Offer]) -> dict[Pool, int]:
    """Instances by pool; where pools are equal in what a strategy looks at, those that come first by name.

    Raises UserError for an unknown strategy, no instances or no offers.
    """
    if strategy not in STRATEGIES:
        raise UserError(
            f"strategy is {strategy!r}: allowed are {', '.join(STRATEGIES)}; give one of these."
        )
    if not isinstance(instances, int) or instances < 1:
        raise UserError(f"instances is {instances!r}: give a whole number of 1 or more.")
    if not offers:
        raise UserError("offers is empty: give the pools from which to choose.")
    if strategy == "diversified":
        each, more = divmod(instances, len(offers))
        order = sorted(offers, key=lambda offer: (offer.usd_per_hour, offer.pool))
        shares = {offer.pool: each + (number < more) for number, offer in enumerate(order)}
        return {pool: number for pool, number in shares.items() if number}
    best = max(offer.capacity for offer in offers)
    keys = {
        "lowest-price": lambda offer: (offer.usd_per_hour, offer.pool),
        "capacity-optimized": lambda offer: (-offer.capacity, offer.pool),
        "price-capacity-optimized": lambda offer: (
            offer.capacity < best,
            offer.usd_per_hour,
            offer.pool,
        ),
    }
    return {min(offers, key=keys[strategy]).pool: instances}


def replay(
    strategy: Strategy,
    markets: Sequence[PoolMarket],
    instances: int,
    hours: float,
    *,
    replace_hours: float = 0.1,
    capacity: Mapping[Pool, float] | None = None,
    replays: int = 200,
    seed: int = 0,
) -> Fleet:
    """Keep a fleet up for `hours`, `replays` times with interruptions drawn anew (the same ones for every strategy).

    An interruption takes all instances that the fleet has in a pool. They run elsewhere `replace_hours` later, placed by
    the strategy at the prices of that moment, not where they came from unless there is nothing else. Raises UserError.
    """
    for name, value in (("replace_hours", replace_hours), ("hours", hours)):
        if not (math.isfinite(value) and value >= 0):
            raise UserError(f"{name} is {value!r}: give a number of 0 or more.")
    if not isinstance(replays, int) or replays < 1:
        raise UserError(f"replays is {replays!r}: give a whole number of 1 or more.")
    if len({market.pool for market in markets}) < len(markets):
        raise UserError("markets names a pool twice: give one market a pool.")
    held = {market.pool: market for market in markets}
    score = {pool: -market.interruptions_per_hour for pool, market in held.items()}
    if capacity is not None:
        if missing := [str(pool) for pool in held if pool not in capacity]:
            raise UserError(f"capacity holds no score of {missing[0]}: give one for each pool.")
        score = {pool: capacity[pool] for pool in held}
    rows = np.array(
        [
            _once(strategy, held, score, instances, hours, replace_hours, seed + number)
            for number in range(replays)
        ]
    )  # [replays, 5]: USD, instance-hours, interruptions, instances lost, largest share lost at once
    usd, ran, stops, lost, largest = rows.T
    spreads = (usd, usd / ran, stops, lost, largest, ran / (instances * hours))
    return Fleet(strategy, *map(Spread.of, spreads))


def _once(
    strategy: Strategy,
    held: Mapping[Pool, PoolMarket],
    score: Mapping[Pool, float],
    instances: int,
    hours: float,
    replace_hours: float,
    seed: int,
) -> tuple[float, float, float, float, float]:
    def place(number: int, at: float, left: Pool | None) -> dict[Pool, int]:
        offers = [Offer(p, m.price_at(at), score[p]) for p, m in held.items() if p != left]
        return allocate(strategy, number, offers or [Offer(left, held[left].price_at(at), 0.0)])

    # Events in time: a pool is taken back (number 0), or instances that left `pool` are placed again.
    events = [
        (float(time), 0, pool)
        for pool, market in held.items()
        for time in market.interruptions(hours, seed)
    ]
    heapq.heapify(events)
    running: dict[Pool, list[tuple[float, int]]] = {}  # since when, how many

    def start(number: int, at: float, left: Pool | None) -> None:
        for pool, share in place(number, at, left).items():
            running.setdefault(pool, []).append((at, share))

    usd = ran = stops = lost = largest = 0.0

    def end(pool: Pool, at: float) -> int:
        nonlocal usd, ran
        groups = running.pop(pool, [])
        for since, number in groups:
            usd += number * held[pool].usd(since, at)
            ran += number * (at - since)
        return sum(number for _, number in groups)

    start(instances, 0.0, None)
    while events:
        at, number, pool = heapq.heappop(events)
        if number:
            start(number, at, pool)
            continue
        gone = end(pool, at)
        if gone:
            stops, lost, largest = stops + 1, lost + gone, max(largest, gone / instances)
            if at + replace_hours < hours:
                heapq.heappush(events, (at + replace_hours, gone, pool))
    for pool in list(running):
        end(pool, hours)
    return usd, ran, stops, lost, largest
