"""Where one option overtakes another: closed form against bisection, the envelope against all lines. Made-up prices."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st
from test_owned import SERVER

from smml.cost.buying.break_even import (
    Line,
    bisected,
    crossing,
    line,
    lower_envelope,
    months_until_owned_pays,
)
from smml.cost.buying.demand import monthly
from smml.cost.buying.options import CapacityBlock, Commitment, OnDemand, Spot, cost
from smml.errors import UserError

LINES = st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 10)), min_size=1, max_size=6).map(
    lambda pairs: [Line(str(i), fixed, price) for i, (fixed, price) in enumerate(pairs)]
)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 50), st.one_of(st.floats(0.05, 0.99), st.floats(1.01, 1.5)))
def test_commitment_against_on_demand(price, ratio):
    rent, plan = OnDemand(price), Commitment("plan", ratio * price, price, 12)
    closed = crossing(line(rent), line(plan))
    found = bisected(
        lambda hours: cost(rent, monthly(hours), 12),
        lambda hours: cost(plan, monthly(hours), 12),
        0,
        730,
    )
    if ratio > 1:
        assert closed is None
        assert found is None
    else:
        assert closed == pytest.approx(730 * ratio)
        assert found == pytest.approx(closed, rel=1e-4, abs=1e-3)
        there = monthly(min(closed, 730))
        assert cost(rent, there, 12) == pytest.approx(cost(plan, there, 12))


@settings(max_examples=40, deadline=None)
@given(st.floats(5, 60), st.floats(1, 48), st.booleans())
def test_owned_against_on_demand_by_hours(price, months, sold):
    server, rent = replace(SERVER, sold_at_end=sold), OnDemand(price)
    closed = crossing(line(rent), line(server, months))
    found = bisected(
        lambda hours: cost(rent, monthly(hours), months),
        lambda hours: cost(server, monthly(hours), months),
        0.01,
        730,
    )
    # A horizon of part of a month sees its first hours only, a line the mean month.
    if months == int(months) and closed is not None:
        assert found == pytest.approx(closed, rel=1e-3)
    if closed is not None:
        assert line(rent).usd(closed) == pytest.approx(line(server, months).usd(closed))


@settings(max_examples=40, deadline=None)
@given(st.floats(5, 100))
def test_owned_against_on_demand_by_months(price):
    rent = OnDemand(price)
    closed = months_until_owned_pays(SERVER, rent, 730)
    found = bisected(
        lambda months: cost(rent, monthly(730), months),
        lambda months: cost(SERVER, monthly(730), months),
        0.01,
        SERVER.life_months,
    )
    if closed is None:
        assert found is None
    else:
        assert found == pytest.approx(closed, rel=1e-3)


def test_never_is_an_answer():
    assert crossing(Line("a", 0, 1), Line("b", 0, 1)) is None
    assert crossing(Line("a", 0, 1), Line("b", 731, 0)) is None
    assert crossing(Line("a", 0, 1), Line("b", 10, 2)) is None
    assert months_until_owned_pays(SERVER, OnDemand(1.0), 10) is None
    assert bisected(lambda x: 1, lambda x: 2, 0, 1) is None
    assert bisected(lambda x: 2, lambda x: 1, 0, 1) == 0


def test_spot_lies_below_on_demand_or_never():
    assert crossing(line(OnDemand(1.0)), line(Spot(0.4, 0.9))) == 0
    assert line(Spot(0.9, 0.8)).usd_per_hour > line(OnDemand(1.0)).usd_per_hour


@given(LINES)
def test_the_envelope_is_the_cheapest_everywhere(lines):
    by_name = {one.name: one for one in lines}
    segments = lower_envelope(lines)
    assert segments[0].start == 0
    assert segments[-1].end == 730
    for before, after in pairwise(segments):
        assert before.end == after.start
        assert by_name[before.name].usd_per_hour > by_name[after.name].usd_per_hour
        assert by_name[before.name].usd(before.end) == pytest.approx(
            by_name[after.name].usd(before.end)
        )
    for segment in segments:
        for share in (0.0, 0.5, 1.0):
            hours = segment.start + share * (segment.end - segment.start)
            least = min(one.usd(hours) for one in lines)
            assert by_name[segment.name].usd(hours) == pytest.approx(least, abs=1e-6)


def test_a_block_in_steps_is_found_by_bisection():
    rent, block = OnDemand(2.0), CapacityBlock(1.5)
    found = bisected(
        lambda hours: cost(rent, monthly(hours), 1),
        lambda hours: cost(block, monthly(hours), 1),
        1,
        24,
    )
    assert found == pytest.approx(18)
    with pytest.raises(UserError, match="not along a line"):
        line(block)


def test_what_is_wrong_is_named():
    with pytest.raises(UserError, match="the range is 1 to 1"):
        bisected(lambda x: x, lambda x: x, 1, 1)
    with pytest.raises(UserError, match="lines is empty"):
        lower_envelope([])
    with pytest.raises(UserError, match="months is None"):
        line(SERVER)
    with pytest.raises(UserError, match="months is 60"):
        line(SERVER, 60)
