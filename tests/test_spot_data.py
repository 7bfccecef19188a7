"""Spot samples, interruption bands and zone offerings: each with source and day; a wrong file is named with its row."""

from importlib import resources

import pytest

from smml.data import instances, offerings, prices, spot_history
from smml.errors import UserError


def packaged(file: str) -> str:
    return resources.files("smml.data").joinpath(file).read_text(encoding="utf-8")


SPOT, OFFERS = packaged(spot_history.SPOT_FILE), packaged(offerings.OFFERINGS_FILE)


@pytest.fixture(autouse=True)
def no_snapshot(tmp_path, monkeypatch):
    monkeypatch.setenv("SMML_CACHE", str(tmp_path / "cache"))


def test_every_spot_price_has_a_zone_a_time_and_a_source():
    rows = spot_history.spot_history()
    assert len(rows) > 150
    for row in rows:
        assert row.price.unit == "USD/h"
        assert row.at.tzinfo is not None
        assert row.price.source
        assert row.instance_type in instances()
    ordered = [(row.instance_type, row.zone_id, row.at) for row in rows]
    assert ordered == sorted(ordered)
    assert len(set(ordered)) == len(ordered)


def test_spot_is_not_dearer_than_on_demand_was():
    for row in spot_history.spot_history():
        held = [p.price.value for p in prices.prices(row.instance_type, row.region, "on-demand")]
        # The sample is older than the cut of P4d, whose on-demand price was half as high again.
        assert all(row.price.value <= 1.5 * usd for usd in held), row


def test_spot_look_ups_filter_and_name_what_is_known():
    some = spot_history.spot_history("g5.xlarge", "us-east-1")
    assert {row.zone_id for row in some} == {f"use1-az{n}" for n in (1, 2, 4, 5, 6)}
    assert all(row.instance_type == "g5.xlarge" for row in some)
    with pytest.raises(UserError, match=r"type 'g99.nano'; known are g4dn"):
        spot_history.spot_history("g99.nano")
    with pytest.raises(UserError, match="region 'moon'; known are"):
        spot_history.spot_history(region="moon")


def test_interruption_bands():
    band = spot_history.interruption_rate("g5.xlarge", "eu-north-1")
    assert 0 <= band.low < band.high <= 1
    assert band.url.startswith("https://")
    for row in spot_history.interruptions():
        assert row.instance_type in instances()
        assert 0 < row.savings < 1
    with pytest.raises(UserError, match="region 'mars'; known are eu-north-1"):
        spot_history.interruption_rate("g5.xlarge", "mars")
    with pytest.raises(UserError, match=r"type 'trn1.2xlarge'; known are c5"):
        spot_history.interruption_rate("trn1.2xlarge", "eu-north-1")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("use1-az1 = 0.2025", "use1-az1 = -0.2025", "g4dn.xlarge in use1-az1: price: -0.2025"),
        ("use1-az1 = 0.2025", '"us-east-1a" = 0.2025', "g4dn.xlarge in us-east-1a: zone_id"),
        ('region = "us-east-1"', 'region = "moon"', "region: 'moon'"),
        ("at = 2025-05-15", "", "missing 'at'"),
        ('">20%" = [0.22, 1.0]', '">20%" = [1.0, 0.22]', "low must be below high"),
        ('">20%" = [0.22, 1.0]', "", "missing '>20%'"),
        ('source = "skypilot_b"', 'source = "hearsay"', "missing 'hearsay'"),
        ("\n[bands]", "\n[bands", "is not TOML"),
    ],
)
def test_a_wrong_spot_row_is_named(old, new, named):
    assert old in SPOT
    with pytest.raises(UserError, match=named):
        spot_history.read_spot(SPOT.replace(old, new, 1))


def test_a_spot_price_stands_once():
    first, second = SPOT.split("\n[[samples]]")[1:3]
    assert first != second
    with pytest.raises(UserError, match="stands twice"):
        spot_history.read_spot(SPOT.replace(second, first, 1))


def test_offerings_by_zone():
    zones = offerings.offerings("us-east-1")
    assert list(zones) == sorted(zones)
    assert "g5.xlarge" in zones["use1-az4"]
    assert offerings.zones_of("p6-b200.48xlarge", "us-east-1") == ["use1-az6"]
    assert offerings.zones_of("g6.xlarge", "eu-west-1") == []
    for region in ("us-east-1", "us-east-2", "us-west-2", "eu-west-1", "eu-north-1"):
        for names in offerings.offerings(region).values():
            assert set(names) <= set(instances())
            assert len(set(names)) == len(names)
    with pytest.raises(UserError, match="region 'moon'; known are eu-north-1"):
        offerings.offerings("moon")


def test_withdrawn_types_are_offered_nowhere():
    gone = {name for name, entry in instances().items() if entry.status == "withdrawn"}
    assert gone
    for region in ("us-east-1", "us-west-2", "eu-west-1"):
        for names in offerings.offerings(region).values():
            assert not gone & set(names)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('zones = ["use1-az1"', 'zones = ["us-east-1a"', "field zones.0: 'us-east-1a'"),
        ('region = "us-east-1"', 'region = "moon"', "field region: 'moon'"),
        ('"g4dn.xlarge"', '"g4dn.metal"', "g4dn.metal stands twice"),
        ('source = "moto_2026_10"', 'source = "hearsay"', "missing 'hearsay'"),
        ("\n[[offers]]", "\n[[offers", "is not TOML"),
    ],
)
def test_a_wrong_offer_is_named(old, new, named):
    assert old in OFFERS
    with pytest.raises(UserError, match=named):
        offerings.read_offerings(OFFERS.replace(old, new, 1))
