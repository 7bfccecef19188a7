"""Prices: every figure with unit, source and date; wrong files and unknown names are named."""

import datetime
from importlib import resources

import pytest
from hypothesis import given, strategies as st

from smml.data import instances, limits, prices
from smml.data.schema import Quantity
from smml.errors import UserError

PRICES = resources.files("smml.data").joinpath(prices.PRICES_FILE).read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def no_snapshot(tmp_path, monkeypatch):
    monkeypatch.setenv("SMML_CACHE", str(tmp_path / "cache"))


# ------------------------------------------------------------------------------------------------- what is packaged


def test_every_price_has_unit_source_and_date():
    rows = prices.prices()
    assert len(rows) > 200
    for row in rows:
        assert isinstance(row.price, Quantity)
        assert row.price.value > 0
        assert row.price.unit in prices.UNITS
        assert row.price.url.startswith("https://")
        assert len(row.price.source) > 20
        assert datetime.date(2017, 1, 1) < row.price.date <= datetime.date(2026, 11, 21)


def test_no_price_stands_twice():
    keys = [row.key for row in prices.prices()]
    assert len(keys) == len(set(keys))
    here = {row.key for row in prices.read_prices(PRICES).values()}
    there = {
        (name, entry.region, "on-demand")
        for name, entry in instances().items()
        if entry.price_usd_per_hour and entry.price_kind == "on-demand"
    }
    assert not here & there


def test_ec2_in_its_own_region_comes_from_the_instances():
    held = prices.price("g5.xlarge")
    assert held == instances()["g5.xlarge"].price_usd_per_hour
    assert prices.price("p5e.48xlarge", "us-east-2", "capacity-block").unit == "USD/h"


def test_what_limits_hold_is_referred_to():
    held, lambda_request = limits.limit("lambda_price_per_request"), "lambda/x86/request"
    assert prices.price(lambda_request).value == held.value
    assert prices.price(lambda_request).date == held.date
    assert [row.origin for row in prices.prices(lambda_request)] == ["limits.toml"]


@pytest.mark.parametrize("region", ["us-east-1", "us-east-2", "us-west-2", "eu-west-1"])
def test_ec2_items_are_of_the_catalogue(region):
    rows = [row for row in prices.prices(region=region) if "/" not in row.item]
    assert rows
    assert {row.item for row in rows} <= set(instances())


def test_regions_differ_where_aws_does():
    assert prices.price("g5.xlarge", "us-west-2").value == prices.price("g5.xlarge").value
    assert prices.price("g5.xlarge", "eu-west-1").value > prices.price("g5.xlarge").value


def test_a_region_asks_the_same_share_more_for_every_size_of_a_family():
    for region in ("us-east-2", "us-west-2", "eu-west-1", "eu-north-1"):
        shares: dict[str, list[float]] = {}
        for row in prices.prices(region=region, kind="on-demand"):
            held = instances().get(row.item)
            if held and held.region == "us-east-1" and held.price_usd_per_hour:
                share = row.price.value / held.price_usd_per_hour.value
                shares.setdefault(held.family, []).append(share)
        assert len(shares) > 2
        for family, found in shares.items():
            assert max(found) < 1.005 * min(found), (region, family, found)


def test_larger_sizes_of_a_family_cost_more():
    for region in prices.regions("g5.xlarge"):
        sizes = ["g5.xlarge", "g5.4xlarge", "g5.8xlarge", "g5.12xlarge"]
        usd = [prices.price(size, region).value for size in sizes]
        assert usd == sorted(usd), region


def test_colder_classes_cost_less_to_keep():
    order = ["standard", "standard-ia", "glacier-instant", "glacier-flexible", "glacier-deep"]
    usd = [prices.price(f"s3/{name}/storage").value for name in order]
    assert usd == sorted(usd, reverse=True)


def test_commitment_costs_less_than_demand():
    for row in prices.prices():
        if row.kind.startswith(("reserved", "savings")):
            assert row.price.value < prices.price(row.item, row.region).value


# --------------------------------------------------------------------------------------------------------- look-up


def test_filters_agree_with_the_single_look_up():
    for row in prices.prices():
        assert prices.price(row.item, row.region, row.kind) == row.price
    assert prices.prices("s3/") == [row for row in prices.prices() if row.item.startswith("s3/")]
    assert {row.kind for row in prices.prices(kind="capacity-block")} == {"capacity-block"}
    assert prices.prices(kind="spot", region="eu-west-1") == []


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (("g5.xl",), "item 'g5.xl'; known are g5.12xlarge"),
        (("s3/attic/storage",), "s3/standard/storage"),
        (("g5.xlarge", "mars-east-1"), "region 'mars-east-1'; known are .*us-west-2"),
        (("g5.xlarge", "us-east-1", "free"), "kind 'free'; known are capacity-block, on-demand"),
        (("p6-b300.48xlarge", "eu-west-1"), "no on-demand price of p6-b300.48xlarge in eu-west-1"),
        (("g5.xlarge", "us-east-1", "reserved-3y"), "known are on-demand in eu-north-1"),
    ],
)
def test_what_is_unknown_is_named_beside_what_is_known(asked, named):
    with pytest.raises(UserError, match=named) as caught:
        prices.price(*asked)
    assert "\n" not in str(caught.value)


def test_filters_reject_unknown_names():
    for asked in ({"item": "nothing"}, {"region": "moon"}, {"kind": "gift"}):
        with pytest.raises(UserError, match="known are"):
            prices.prices(**asked)


# -------------------------------------------------------------------------------------------------------- bad files

LINE = '"p3dn.24xlarge" = 33.711'


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (
            LINE,
            '"p3dn.24xlarge" = -33.711',
            r"p3dn.24xlarge in eu-west-1, on-demand: price: -33.711",
        ),
        (LINE, '"p3dn.24xlarge" = 0', r"p3dn.24xlarge in eu-west-1, on-demand: price: 0"),
        (LINE, '"p3dn.24xlarge" = "33.711"', "p3dn.24xlarge in eu-west-1.*price"),
        (LINE, '"p3dn.24xlarge" = true', "p3dn.24xlarge in eu-west-1.*price"),
        (LINE, '"p3dn.24xlarge" = inf', "p3dn.24xlarge in eu-west-1.*price"),
        (LINE, '"p3dn.24xlarge" = {}', "p3dn.24xlarge in eu-west-1.*missing 'value'"),
        (LINE, '"p3dn.24xlarge" = { value = 1, source = "hearsay" }', "source: 'hearsay'"),
        (LINE, '"p3dn.24xlarge" = { limit = "none_such" }', "none_such"),
        (LINE, '"P3 dn" = 33.711', "P3 dn in eu-west-1.*item"),
        (LINE, LINE + "\n" + LINE, "is not TOML"),
        ('unit = "USD/h"', 'unit = "EUR/h"', "unit: 'EUR/h' is in EUR; every price is in USD"),
        ('unit = "USD/h"', 'unit = "USD/fortnight"', "unit: 'USD/fortnight'; allowed are USD/h"),
        ('unit = "USD/h"\n', "", "table 1: unit"),
        ('region = "us-west-2"', 'region = "Oregon"', "in Oregon, on-demand: region: 'Oregon'"),
        (
            'kind = "reserved-1y"',
            'kind = "favour"',
            "m5.large in us-east-1, favour: kind: 'favour'",
        ),
        ('kind = "reserved-3y"', 'kind = "reserved-1y"', "m5.large.*stands twice"),
        ("date = 2025-05-15", "", "sources: date"),
        ("\n[[tables]]", "\n[[tables", "is not TOML"),
    ],
)
def test_a_wrong_row_is_named(old, new, named):
    assert old in PRICES
    with pytest.raises(UserError, match=named) as caught:
        prices.read_prices(PRICES.replace(old, new, 1), "mine.toml")
    assert "mine.toml" in str(caught.value) or "none_such" in str(caught.value)


@given(
    st.floats(1e-9, 1e4),
    st.sampled_from(["us-west-2", "ap-south-1"]),
    st.sampled_from(prices.UNITS),
    st.sampled_from(prices.KINDS),
)
def test_any_positive_price_is_read_as_written(usd, region, unit, kind):
    text = (
        '[sources.a]\ntitle = "made up"\nurl = "https://example.com"\ndate = 2026-01-02\nchecked = true\n'
        f'[[tables]]\nregion = "{region}"\nkind = "{kind}"\nunit = "{unit}"\nsource = "a"\n'
        f'[tables.prices]\n"made/up" = {usd!r}\n'
    )
    row = prices.read_prices(text)["made/up", region, kind]
    assert (row.price.value, row.price.unit) == (usd, unit)
    assert row.price.date == datetime.date(2026, 1, 2)
