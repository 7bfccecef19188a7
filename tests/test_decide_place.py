"""Own hardware or AWS: the break-even in closed form, costs that rise with load, time and price, wrong input named."""

import dataclasses

import pytest
from hypothesis import given, strategies as st

from smml.cost.decisions.decide_place import (
    Placement,
    break_even_months,
    choose_place,
    own_usd,
    rented_usd,
)
from smml.errors import UserError

NEED = Placement(1, 1, usd_per_hour=2, own_purchase_usd=30_000, own_usd_per_month=300)


def test_the_break_even_is_where_both_cost_the_same():
    months = break_even_months(NEED)
    assert months == pytest.approx(30_000 / (2 * 730 - 300))
    at = dataclasses.replace(NEED, horizon_months=months)
    assert own_usd(at) == pytest.approx(rented_usd(at))


PLACEMENTS = st.builds(
    lambda mean, more, rent, price, running, months: Placement(
        mean, mean + more, rent, price, running, horizon_months=months
    ),
    st.floats(0.01, 50),
    st.floats(0, 50),
    st.floats(0.01, 100),
    st.floats(100, 1e6),
    st.floats(0, 1e4),
    st.floats(0.5, 120),
)


@given(PLACEMENTS, st.floats(1, 10))
def test_costs_rise_with_load_time_and_price(wanted, factor):
    longer = dataclasses.replace(wanted, horizon_months=wanted.horizon_months * factor)
    assert rented_usd(longer) >= rented_usd(wanted)
    assert own_usd(longer) >= own_usd(wanted)
    more = dataclasses.replace(wanted, peak_machines=wanted.peak_machines * factor)
    assert own_usd(more) >= own_usd(wanted)
    assert rented_usd(more) == rented_usd(wanted)


@given(PLACEMENTS)
def test_the_cheaper_place_is_chosen(wanted):
    decision = choose_place(wanted)
    cheaper = min(own_usd(wanted), rented_usd(wanted))
    assert decision.price.usd * wanted.horizon_months == pytest.approx(cheaper)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"usd_per_hour": -1}, "usd_per_hour is -1"),
        ({"own_usd_per_month": -1}, "own_usd_per_month is -1"),
        ({"peak_machines": 0.5}, "a peak is no less"),
        ({"needed_in_days": -1}, "needed_in_days is -1"),
        ({"data_must_stay": True, "managed": True}, "nothing will do"),
    ],
)
def test_wrong_input_of_a_place_is_named(change, named):
    with pytest.raises(UserError, match=named):
        choose_place(dataclasses.replace(NEED, **change))
