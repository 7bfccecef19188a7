"""Servers of one's own: every part of the bill by hand, depreciation, what is monotone. Amounts here are made up."""

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from smml.cost.buying.demand import monthly
from smml.cost.buying.options import cost
from smml.cost.buying.owned import Owned, owned
from smml.data import owned_hardware
from smml.data.catalogue import instance
from smml.errors import UserError

SERVER = Owned(
    price_usd=100_000,
    power_kw=10,
    idle_power_share=0.3,
    power_usage_effectiveness=1.5,
    electricity_usd_per_kwh=0.1,
    space_usd_per_kw_month=200,
    people_usd_per_month=1000,
    repairs_per_year=0.06,
    life_months=48,
    resale_share=0.1,
    sold_at_end=False,
)
READER = {
    "electricity_usd_per_kwh": 0.1,
    "idle_power_share": 0.3,
    "people_usd_per_month": 1000,
    "repairs_per_year": 0.06,
    "life_months": 48,
    "resale_share": 0.1,
    "sold_at_end": False,
}
MONTHS = st.floats(0.1, 120)


def test_a_year_by_hand():
    demand = monthly(300, 2)
    power = 2 * 12 * (300 + 0.3 * 430) * 10 * 1.5 * 0.1
    rest = 2 * 12 * (2000 + 500) + 12 * 1000
    assert cost(SERVER, demand, 12) == pytest.approx(200_000 + power + rest)
    sold = replace(SERVER, sold_at_end=True)
    worth = 2 * 100_000 * (1 - 0.25 * 0.9)
    assert cost(sold, demand, 12) == pytest.approx(200_000 + power + rest - worth)
    assert SERVER.cash_flow(demand, 12).paid_hours == 2 * 8760


def test_worth_falls_in_a_straight_line():
    assert SERVER.worth_usd(0) == 100_000
    assert SERVER.worth_usd(24) == pytest.approx(55_000)
    assert SERVER.worth_usd(48) == SERVER.worth_usd(60) == pytest.approx(10_000)


def test_replaced_when_its_life_ends():
    bought = [p for p in SERVER.cash_flow(monthly(1), 49).payments if p.what == "servers"]
    assert [p.month for p in bought] == [0, 48]
    assert len([p for p in SERVER.cash_flow(monthly(1), 48).payments if p.what == "servers"]) == 1


@settings(max_examples=60, deadline=None)
@given(MONTHS, MONTHS, st.booleans())
def test_cost_grows_with_horizon(one, other, sold):
    server, (short, long) = replace(SERVER, sold_at_end=sold), sorted((one, other))
    assert cost(server, monthly(200), short) <= cost(server, monthly(200), long) * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.1, 730), st.floats(0.1, 730), MONTHS)
def test_cost_grows_with_hours(one, other, months):
    few, many = sorted((one, other))
    assert cost(SERVER, monthly(few), months) <= cost(SERVER, monthly(many), months) * (1 + 1e-9)


@given(
    st.sampled_from(
        [
            "price_usd",
            "power_kw",
            "power_usage_effectiveness",
            "electricity_usd_per_kwh",
            "space_usd_per_kw_month",
            "people_usd_per_month",
            "repairs_per_year",
        ]
    ),
    st.floats(1, 3),
)
def test_cost_grows_with_each_price(field, factor):
    dearer = replace(SERVER, **{field: getattr(SERVER, field) * factor})
    assert cost(SERVER, monthly(100), 24) <= cost(dearer, monthly(100), 24)


def test_later_money_is_worth_less():
    assert cost(SERVER, monthly(300), 36, 0.1) < cost(SERVER, monthly(300), 36)
    assert cost(SERVER, monthly(300), 36, 0.1) > SERVER.price_usd


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("price_usd", -1),
        ("power_kw", float("nan")),
        ("idle_power_share", 1.1),
        ("power_usage_effectiveness", 0.9),
        ("resale_share", -0.1),
        ("repairs_per_year", 2),
        ("life_months", 0),
        ("people_usd_per_month", float("inf")),
    ],
)
def test_what_is_wrong_is_named(field, value):
    with pytest.raises(UserError, match=field):
        replace(SERVER, **{field: value})


def test_what_depends_on_the_reader_has_no_default():
    for name in READER:
        with pytest.raises(TypeError, match=name):
            owned("dgx-h100", **{key: value for key, value in READER.items() if key != name})


def test_facts_fill_in_the_rest():
    made = owned("dgx-h100", **READER)
    held = owned_hardware.server("dgx-h100")
    assert made.price_usd == held.price.value
    assert made.power_kw == held.power.value
    assert (
        made.power_usage_effectiveness == owned_hardware.figure("power_usage_effectiveness").value
    )
    assert made.space_usd_per_kw_month == owned_hardware.figure("colocation").value
    with pytest.raises(UserError, match="holds no server 'abacus'"):
        owned("abacus", **READER)


@pytest.mark.parametrize("name", owned_hardware.owned_hardware().servers)
def test_comparable_types_hold_the_same_accelerators(name):
    held = owned_hardware.server(name)
    for kind in held.comparable:
        entry = instance(kind)
        assert (entry.accelerator, entry.accelerator_count) == (held.accelerator, held.accelerators)


def test_currencies_are_not_mixed():
    assert owned_hardware.electricity_usd_per_kwh("electricity_us_commercial") > 0
    euro = owned_hardware.figure("electricity_eu_non_household").value
    assert owned_hardware.electricity_usd_per_kwh(
        "electricity_eu_non_household", 2.0
    ) == pytest.approx(2 * euro)
    with pytest.raises(UserError, match="EUR/kWh; give usd_per_unit"):
        owned_hardware.electricity_usd_per_kwh("electricity_eu_non_household")
    with pytest.raises(UserError, match="leave usd_per_unit out"):
        owned_hardware.electricity_usd_per_kwh("electricity_us_commercial", 1.1)
    with pytest.raises(UserError, match="usd_per_unit is -1"):
        owned_hardware.electricity_usd_per_kwh("electricity_eu_non_household", -1)
    with pytest.raises(UserError, match="not a price of electricity"):
        owned_hardware.electricity_usd_per_kwh("colocation")


HARDWARE = """
[sources.s]
title = "t"
url = "https://example.org"
date = 2026-01-01
checked = true
[servers.one]
name = "One"
accelerator = "h100-sxm"
accelerators = 8
price = { value = 5, source = "s" }
power = { value = 1, source = "s" }
comparable = ["p5.48xlarge"]
[figures]
rent = { value = 2, unit = "USD/kW-month", source = "s" }
"""


def test_hardware_is_read_and_checked():
    assert owned_hardware.read_owned_hardware(HARDWARE).servers["one"].price.value == 5.0
    for change, words in [
        (("value = 5", "value = 0"), "row one: value"),
        (('"h100-sxm"', '"abacus"'), "row one: accelerator"),
        (('unit = "USD/kW-month", ', ""), "row rent: missing 'unit'"),
        (("[figures]", "[figures"), "is not TOML"),
    ]:
        with pytest.raises(UserError, match=words):
            owned_hardware.read_owned_hardware(HARDWARE.replace(*change))
    with pytest.raises(UserError, match="holds no 'nothing'"):
        owned_hardware.figure("nothing")
