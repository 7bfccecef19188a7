"""Ways to buy: what is counted, what is monotone, what is refused. Prices here are made up."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from smml.cost.buying.demand import Demand, monthly, weekly
from smml.cost.buying.options import (
    CapacityBlock,
    Commitment,
    OnDemand,
    Spot,
    best_commitment,
    block_days,
    blocks,
    cost,
    spot_goodput,
)
from smml.data import purchase_terms
from smml.errors import UserError

HOURS = st.floats(0, 730)
PRICES = st.floats(0.01, 100)
MONTHS = st.floats(0.1, 60)
LOADS = st.lists(st.integers(0, 6), min_size=1, max_size=48).map(np.array)


def options(price):
    return [
        OnDemand(price),
        Spot(0.4 * price, 0.9),
        Commitment("plan", 0.6 * price, price, 12),
        Commitment("reserved", 0.4 * price, price, 36, upfront_share=1.0),
    ]


@given(PRICES, MONTHS)
def test_on_demand_at_no_hours_costs_nothing(price, months):
    assert cost(OnDemand(price), monthly(0), months) == 0.0


@settings(max_examples=60, deadline=None)
@given(PRICES, HOURS, HOURS, MONTHS)
def test_cost_grows_with_hours(price, one, other, months):
    few, many = sorted((one, other))
    for option in options(price):
        assert (
            cost(option, monthly(few), months)
            <= cost(option, monthly(many), months) * (1 + 1e-9) + 1e-9
        ), option


@settings(max_examples=60, deadline=None)
@given(PRICES, HOURS, MONTHS, MONTHS)
def test_cost_grows_with_horizon(price, hours, one, other):
    short, long = sorted((one, other))
    for option in options(price):
        assert (
            cost(option, monthly(hours), short)
            <= cost(option, monthly(hours), long) * (1 + 1e-9) + 1e-9
        ), option


@settings(max_examples=60, deadline=None)
@given(PRICES, PRICES, LOADS, MONTHS)
def test_cost_grows_with_price(one, other, load, months):
    cheap, dear = sorted((one, other))
    for less, more in zip(options(cheap), options(dear), strict=True):
        assert cost(less, Demand(load), months) <= cost(more, Demand(load), months) * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.1, 700), st.floats(0.1, 700), st.floats(0.1, 6))
def test_a_block_costs_more_for_more_hours(one, other, months):
    few, many = sorted((one, other))
    block = CapacityBlock(2.0)
    assert cost(block, monthly(few), months) <= cost(block, monthly(many), months) + 1e-9


@settings(max_examples=60, deadline=None)
@given(LOADS, st.integers(1, 7), st.floats(0.05, 1.2))
def test_a_commitment_is_counted_as_by_hand(load, instances, ratio):
    option = Commitment("plan", ratio, 1.0, 12, instances)
    hours = np.resize(load, 8760)
    by_hand = 8760 * instances * ratio + sum(max(0, hour - instances) for hour in hours)
    flow = option.cash_flow(Demand(load), 12)
    assert flow.usd == pytest.approx(by_hand)
    assert flow.used_hours == pytest.approx(hours.sum())
    assert flow.paid_hours >= flow.used_hours


@settings(max_examples=60, deadline=None)
@given(LOADS, st.floats(0.05, 1.5))
def test_best_commitment_is_the_cheapest_of_all(load, ratio):
    demand = Demand(load)
    # Whole periods, so that the horizon sees what the mean says.
    hours = 24 * load.size
    usd = {0: float(np.resize(load, hours).sum())}
    for number in range(1, 9):
        over = np.maximum(np.resize(load, hours) - number, 0).sum()
        usd[number] = number * ratio * hours + over
    assert usd[best_commitment(demand, ratio)] == pytest.approx(min(usd.values()))


def test_a_commitment_is_paid_where_nothing_is_used():
    flow = Commitment("plan", 0.5, 1.0, 12).cash_flow(monthly(0), 3)
    assert flow.usd == pytest.approx(0.5 * 8760)
    assert flow.idle_share == 1.0


def test_a_second_term_is_bought_only_where_it_pays():
    plan = Commitment("plan", 0.5, 1.0, 12)
    assert cost(plan, monthly(730), 13) == pytest.approx(0.5 * 8760 + 730)
    assert cost(plan, monthly(730), 23) == pytest.approx(0.5 * 8760 * 2)


def test_upfront_is_dearer_the_dearer_money_is():
    spread = Commitment("none", 1.0, 2.0, 12)
    upfront = Commitment("all", 1.0, 2.0, 12, upfront_share=1.0)
    demand = monthly(730)
    assert cost(spread, demand, 12) == pytest.approx(cost(upfront, demand, 12))
    assert cost(spread, demand, 12, 0.1) < cost(upfront, demand, 12, 0.1)
    by_hand = sum(730 / 1.1 ** (month / 12) for month in range(1, 13))
    assert cost(spread, demand, 12, 0.1) == pytest.approx(by_hand)


def test_overflow_without_an_on_demand_price_is_refused():
    with pytest.raises(UserError, match="peak of 3 uncovered"):
        Commitment("plan", 1.0, None, 12, 2).cash_flow(monthly(10, 3), 1)


def test_spot_pays_for_what_is_lost():
    assert cost(Spot(0.5, 0.8), monthly(100), 1) == pytest.approx(100 / 0.8 * 0.5)
    assert spot_goodput(0.0, 60, 300) == 1.0
    rates = [spot_goodput(rate, 60, 300) for rate in (0.001, 0.01, 0.1, 1.0)]
    assert all(first > second for first, second in itertools.pairwise(rates))
    assert spot_goodput(0.01, 60, 300, instances=8) == pytest.approx(spot_goodput(0.08, 60, 300))


@pytest.mark.parametrize(
    ("days", "sold"), [(0.1, 1), (1, 1), (13.2, 14), (14, 14), (14.1, 21), (21, 21), (181, 182)]
)
def test_blocks_are_sold_in_days_then_weeks(days, sold):
    assert block_days(days) == sold


def test_blocks_cover_a_working_week():
    week = weekly([9, 9, 9, 9, 9, 0, 0], starts_at=9)
    found = blocks(week.over(4 * 168 / 730))
    assert found == [(9 + 168 * number, 5, 1) for number in range(4)]
    flow = CapacityBlock(2.0).cash_flow(week, 4 * 168 / 730)
    assert flow.usd == 4 * 5 * 24 * 2.0
    assert flow.idle_share == pytest.approx(1 - 45 / 120)


def test_blocks_hold_the_peak_of_their_days():
    load = np.zeros(24 * 10)
    load[5], load[100], load[130] = 2, 3, 1.2
    assert blocks(load) == [(5, 1, 2), (100, 2, 3)]


def test_every_used_hour_lies_in_one_block():
    rng = np.random.default_rng(0)
    for _ in range(30):
        load = (rng.random(24 * 60) < rng.uniform(0.001, 0.02)) * rng.integers(1, 5)
        taken = np.zeros(load.size + 24 * 60, dtype=int)
        for start, days, instances in blocks(load):
            part = slice(start, start + 24 * days)
            assert load[part].max(initial=0) <= instances
            taken[part] += 1
        assert taken.max() <= 1
        assert (taken[: load.size][load > 0] == 1).all()


def test_a_block_has_a_longest_and_a_widest():
    longest = purchase_terms.term("capacity_block_longest").value
    months = 24 * longest / 730
    assert blocks(monthly(730).over(months)) == [(0, int(longest), 1)]
    with pytest.raises(UserError, match=f"lasts {longest:g} at most"):
        CapacityBlock(1.0).cash_flow(monthly(730), months + 0.1)
    with pytest.raises(UserError, match="65 instances are needed at once"):
        CapacityBlock(1.0).cash_flow(monthly(10, 65), 1)


def test_payments_add_up_and_come_in_time():
    demand = weekly([9] * 5 + [0, 0])
    for option in [*options(2.0), CapacityBlock(3.0)]:
        flow = option.cash_flow(demand, 5.5)
        assert flow.present_usd(0.0) == pytest.approx(flow.usd)
        later = any(payment.month > 0 for payment in flow.payments)
        assert (flow.present_usd(0.08) < flow.usd) == later
        assert all(payment.month >= 0 for payment in flow.payments)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OnDemand(-1.0), "usd_per_hour is -1.0"),
        (lambda: OnDemand(math.nan), "usd_per_hour is nan"),
        (lambda: Spot(1.0, 0.0), "goodput is 0.0"),
        (lambda: Commitment("plan", 1.0, 1.0, 0), "term_months is 0"),
        (lambda: Commitment("plan", 1.0, 0.0, 12), "on_demand_usd_per_hour is 0.0"),
        (lambda: Commitment("plan", 1.0, 1.0, 12, 1, 2.0), "upfront_share is 2.0"),
        (lambda: spot_goodput(-1.0, 1, 1), "interruptions_per_hour is -1.0"),
        (lambda: best_commitment(monthly(1), 0.0), "price_ratio is 0.0"),
        (lambda: Demand(np.array([1.0, -2.0])), "load holds -2.0"),
        (lambda: Demand(np.zeros((2, 2))), "shape"),
        (lambda: monthly(731), "hours a month are 731"),
        (lambda: monthly(1, 0), "instances is 0"),
        (lambda: weekly([1, 2]), "has 2 entries"),
        (lambda: weekly([9, 9, 9, 9, 25, 0, 0]), r"hours_by_day\[4\] is 25"),
        (lambda: cost(OnDemand(1.0), monthly(1), 0), "months is 0"),
        (lambda: cost(OnDemand(1.0), monthly(1), 1, -1.0), "discount_rate is -1.0"),
    ],
)
def test_what_is_wrong_is_named(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_demand_speaks_of_the_month():
    demand = monthly(73, 2)
    assert demand.hours_per_month == pytest.approx(146)
    assert demand.peak == 2
    assert demand.utilization == pytest.approx(0.1)
    assert demand.covered(2) == pytest.approx(0.1)
    assert weekly([24] * 7).utilization == 1.0
    assert demand.over(0.5).sum() == pytest.approx(146)


TERMS = """
[sources.s]
title = "t"
url = "https://example.org"
date = 2026-01-01
checked = true
[figures]
days = { value = 3, unit = "days", source = "s" }
[facts]
f = { says = "x", source = "s" }
[capacity_blocks]
"p5.48xlarge" = { regions = ["us-east-1"], source = "s" }
"""


def test_terms_are_read_and_checked():
    held = purchase_terms.read_terms(TERMS)
    assert held.figures["days"].value == 3.0
    for change, words in [
        (("value = 3", "value = -3"), "row days: value"),
        (('source = "s" }\n[facts]', 'source = "z" }\n[facts]'), "row days: missing 'z'"),
        (('"us-east-1"', '"useast"'), "p5.48xlarge: regions"),
        (("[facts]", "[fact]"), "missing 'facts'"),
        (("[figures]", "[figures"), "is not TOML"),
    ]:
        with pytest.raises(UserError, match=words):
            purchase_terms.read_terms(TERMS.replace(*change))
    with pytest.raises(UserError, match="holds no 'nothing'"):
        purchase_terms.term("nothing")
    with pytest.raises(UserError, match="holds no 'nothing'"):
        purchase_terms.rule("nothing")
    assert purchase_terms.block_offer("g5.xlarge") is None
