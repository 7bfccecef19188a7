"""Allocation: each strategy takes what AWS documents, and a replay adds up."""

import math

import pytest
from hypothesis import given, settings, strategies as st

from smml.cost.spot.allocation import STRATEGIES, Offer, allocate, replay
from smml.cost.spot.market import PoolMarket
from smml.cost.spot.pools import Pool
from smml.errors import UserError

A, B, C, D = (Pool("us-east-1", f"use1-az{n}", "g5.xlarge") for n in (1, 2, 3, 4))
# Made up: A is the cheapest and fullest, B and C have the most spare capacity, C is cheaper than B.
OFFERS = [Offer(A, 0.3, 1.0), Offer(B, 0.6, 9.0), Offer(C, 0.5, 9.0), Offer(D, 0.9, 3.0)]


def markets(rates=(0.05, 0.001, 0.001, 0.01)) -> list[PoolMarket]:
    return [
        PoolMarket(offer.pool, (0.0,), (offer.usd_per_hour,), rate, "made up")
        for offer, rate in zip(OFFERS, rates, strict=True)
    ]


def test_each_strategy_takes_what_is_documented():
    assert allocate("lowest-price", 10, OFFERS) == {A: 10}
    assert allocate("capacity-optimized", 10, OFFERS) == {B: 10}, "blind to the price"
    assert allocate("price-capacity-optimized", 10, OFFERS) == {C: 10}
    assert allocate("diversified", 10, OFFERS) == {A: 3, C: 3, B: 2, D: 2}
    assert allocate("diversified", 2, OFFERS) == {A: 1, C: 1}


offers = st.lists(st.tuples(st.floats(0.01, 100), st.integers(1, 10)), min_size=1, max_size=8).map(
    lambda rows: [Offer(Pool("r", f"z{n}", "t"), usd, score) for n, (usd, score) in enumerate(rows)]
)


@given(offers, st.integers(1, 50), st.sampled_from(STRATEGIES))
def test_every_instance_is_placed_once_and_nothing_is_cheaper_than_the_lowest_price(
    offered, instances, strategy
):
    usd = {offer.pool: offer.usd_per_hour for offer in offered}
    score = {offer.pool: offer.capacity for offer in offered}

    def bill(name):
        return sum(
            number * usd[pool] for pool, number in allocate(name, instances, offered).items()
        )

    placed = allocate(strategy, instances, offered)
    assert sum(placed.values()) == instances
    assert min(placed.values()) > 0
    assert bill("lowest-price") <= bill(strategy) + 1e-9
    assert bill("price-capacity-optimized") <= bill("capacity-optimized") + 1e-9
    for name in ("capacity-optimized", "price-capacity-optimized"):
        assert {score[pool] for pool in allocate(name, instances, offered)} == {max(score.values())}


def test_without_interruptions_a_replay_costs_price_times_hours():
    quiet = markets((0, 0, 0, 0))
    fleet = replay("lowest-price", quiet, 4, 100, replays=3)
    assert fleet.usd.mean == pytest.approx(0.3 * 4 * 100)
    assert fleet.running.mean == pytest.approx(1)
    assert fleet.lost.mean == fleet.largest_loss.mean == 0
    spread = replay("diversified", quiet, 4, 100, replays=3)
    assert spread.usd.mean == pytest.approx((0.3 + 0.6 + 0.5 + 0.9) * 100)


def test_a_fleet_in_one_pool_loses_all_at_once_and_a_diversified_one_loses_a_part():
    one = replay("lowest-price", markets(), 4, 730, replays=100)
    many = replay("diversified", markets(), 4, 730, replays=100)
    assert one.largest_loss.p50 == 1.0
    assert many.largest_loss.p50 < 1.0
    assert one.lost.mean > many.lost.mean > 0
    assert one.interruptions.mean * 4 == pytest.approx(one.lost.mean), "all four, each time"
    # Whatever goes, a job that needs all instances stops: spread out, it meets the interruptions of every pool.
    one_pool = replay("capacity-optimized", markets(), 4, 730, replays=100)
    assert many.interruptions.mean > one_pool.interruptions.mean
    safe = replay("price-capacity-optimized", markets(), 4, 730, replays=100)
    assert safe.lost.mean < one.lost.mean
    assert one.usd_per_hour.mean < safe.usd_per_hour.mean


def test_instances_are_lost_at_the_rate_of_their_pools():
    only = markets()[:1]
    fleet = replay("lowest-price", only, 5, 1000, replace_hours=0.0, replays=400)
    assert fleet.lost.mean == pytest.approx(0.05 * 1000 * 5, rel=0.03)
    assert fleet.running.mean == pytest.approx(1)
    slow = replay("lowest-price", only, 5, 1000, replace_hours=5.0, replays=400)
    # Up 1/rate hours, down 5: the renewal theorem; interruptions of an empty pool take nothing.
    assert slow.running.mean == pytest.approx(20 / (20 + 5), rel=0.02)


def test_the_pool_that_was_just_taken_back_is_not_taken_again_at_once():
    # A is cheapest and goes all the time: half of the time after an interruption the fleet is in C.
    pair = [markets((0.5, 0, 0, 0))[0], markets((0, 0, 0.5, 0))[2]]
    fleet = replay("lowest-price", pair, 1, 2000, replace_hours=0.0, replays=20)
    assert 0.35 < fleet.usd_per_hour.mean < 0.45


def test_prices_that_cross_move_the_fleet_only_when_it_is_placed():
    early = PoolMarket(A, (0.0, 10.0), (1.0, 3.0), 0.0, "made up")
    late = PoolMarket(B, (0.0, 10.0), (2.0, 1.0), 0.0, "made up")
    fleet = replay("lowest-price", [early, late], 1, 20, replays=1)
    assert fleet.usd.mean == pytest.approx(10 * 1.0 + 10 * 3.0)


def test_capacity_is_an_input():
    best = {A: 0.0, B: 0.0, C: 0.0, D: 1.0}
    fleet = replay("capacity-optimized", markets((0, 0, 0, 0)), 2, 10, capacity=best, replays=1)
    assert fleet.usd.mean == pytest.approx(2 * 10 * 0.9)
    with pytest.raises(UserError, match=r"capacity holds no score of g5.xlarge in use1-az2"):
        replay("capacity-optimized", markets(), 2, 10, capacity={A: 1.0})


@settings(max_examples=25)
@given(st.sampled_from(STRATEGIES), st.floats(1, 3), st.integers(1, 6), st.floats(1, 200))
def test_costs_grow_with_price_fleet_and_time(strategy, factor, instances, hours):
    def usd(scale=1.0, more=0, longer=0.0):
        dearer = [
            PoolMarket(m.pool, m.from_hours, (m.usd_per_hour[0] * scale,), 0.0, "made up")
            for m in markets()
        ]
        return replay(strategy, dearer, instances + more, hours + longer, replays=1).usd.mean

    assert usd(factor) == pytest.approx(factor * usd())
    assert usd(more=1) > usd()
    assert usd(longer=1.0) > usd()


def test_the_same_seed_replays_the_same():
    first, second = (replay("diversified", markets(), 3, 500, replays=20, seed=3) for _ in "ab")
    assert first == second
    assert first != replay("diversified", markets(), 3, 500, replays=20, seed=4)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: allocate("cheapest", 1, OFFERS), "strategy is 'cheapest': allowed are lowest"),
        (lambda: allocate("diversified", 0, OFFERS), "instances is 0"),
        (lambda: allocate("diversified", 1, []), "offers is empty"),
        (lambda: replay("diversified", markets(), 1, math.inf), "hours is inf"),
        (lambda: replay("diversified", markets(), 1, 10, replace_hours=-1), "replace_hours is -1"),
        (lambda: replay("diversified", markets(), 1, 10, replays=0), "replays is 0"),
        (lambda: replay("diversified", markets() * 2, 1, 10), "names a pool twice"),
    ],
)
def test_bad_input_is_named(call, said):
    with pytest.raises(UserError) as error:
        call()
    assert said in str(error.value)
