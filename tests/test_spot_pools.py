"""Pools: the teaching numbers from real offerings, what is not offered, and that more choice is never fewer pools."""

import pytest
from hypothesis import given, strategies as st

from smml.cost.spot.pools import Pool, pools, staircase
from smml.data.offerings import offerings
from smml.errors import UserError

REGION = "us-east-1"
FAMILIES = ("g5", "g6", "g6e")
SIZES = ("xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge")
ZONES = ("use1-az1", "use1-az2", "use1-az4")


def test_one_family_in_one_zone_then_three_zones_then_more_families():
    steps = staircase(REGION, FAMILIES, SIZES, ZONES)
    assert [step.pools for step in steps] == [6, 18, 36, 54]
    assert [len(step.families) for step in steps] == [1, 1, 2, 3]
    assert [len(step.zones) for step in steps] == [1, 3, 3, 3]


def test_the_offerings_really_say_so():
    held = offerings(REGION)
    for zone in ZONES:
        assert {f"{family}.{size}" for family in FAMILIES for size in SIZES} <= set(held[zone])


def test_a_second_region_has_pools_of_its_own():
    types = [f"g6.{size}" for size in SIZES]
    east, west = pools("us-east-1", types), pools("us-west-2", types)
    assert east
    assert west
    assert not set(east) & set(west)


def test_a_type_counts_only_where_it_is_offered():
    everywhere = pools(REGION, ["p5.48xlarge"])
    fewer = pools(REGION, ["p5en.48xlarge"])
    assert 0 < len(fewer) < len(everywhere)
    assert all("p5en.48xlarge" in offerings(REGION)[pool.zone_id] for pool in fewer)
    assert str(fewer[0]) == f"p5en.48xlarge in {fewer[0].zone_id}"


def test_a_type_or_zone_named_twice_is_one_pool():
    once = pools(REGION, ["g5.xlarge"], ["use1-az1"])
    assert pools(REGION, ["g5.xlarge"] * 2, ["use1-az1"] * 2) == once
    assert once == [Pool(REGION, "use1-az1", "g5.xlarge")]


@given(
    families=st.sets(st.sampled_from(("m5", "c5", "r5", *FAMILIES)), min_size=1),
    zones=st.sets(st.sampled_from(ZONES), min_size=1),
)
def test_every_family_and_zone_adds_pools(families, zones):
    def count(names, where):
        return len(pools(REGION, [f"{name}.4xlarge" for name in sorted(names)], sorted(where)))

    assert count(families, zones) == len(families) * len(zones)
    assert count(families | {"g4dn"}, zones) == count(families, zones) + len(zones)


@pytest.mark.parametrize(
    ("region", "types", "zones", "said"),
    [
        ("mars-north-1", ["g5.xlarge"], None, "region 'mars-north-1'"),
        (REGION, ["g5.xlarge"], ["euw1-az1"], "no zone 'euw1-az1'; it has use1-az1"),
        (REGION, ["g5.3xlarge"], None, "'g5.3xlarge' is not offered in us-east-1; offered are g5."),
        (REGION, ["q9.large"], None, "'q9.large' is not offered in us-east-1; offered are c5"),
    ],
)
def test_what_does_not_exist_is_named(region, types, zones, said):
    with pytest.raises(UserError) as error:
        pools(region, types, zones)
    assert said in str(error.value)


@pytest.mark.parametrize("empty", ["families", "sizes", "zones"])
def test_an_empty_choice_is_named(empty):
    given = {"families": FAMILIES, "sizes": SIZES, "zones": ZONES} | {empty: ()}
    with pytest.raises(UserError, match=f"{empty} is empty"):
        staircase(REGION, **given)
