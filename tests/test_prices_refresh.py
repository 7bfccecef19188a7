"""Refreshing prices: what is read from recorded answers, which of two figures is looked up, and what a wrong answer says."""

import copy
import datetime
import json

import pytest
from botocore import exceptions
from recorded_prices import NOW, REGION, TYPES, recorded, refresh

from smml.aws import prices as refreshing
from smml.aws.price_snapshot import write_prices
from smml.data import prices, spot_history
from smml.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMML_CACHE", str(tmp_path / "cache"))


def product_with(answer: dict, name: str, change) -> dict:
    """The answer with `change` applied to the product of that EC2 type."""
    answer = copy.deepcopy(answer)
    for place, text in enumerate(answer["PriceList"]):
        entry = json.loads(text)
        if entry["product"]["attributes"].get("instanceType") == name:
            change(entry)
            answer["PriceList"][place] = json.dumps(entry)
    return answer


def dimension(entry: dict) -> dict:
    (offer,) = entry["terms"]["OnDemand"].values()
    (found,) = offer["priceDimensions"].values()
    return found


# ------------------------------------------------------------------------------------------------------ what is read


def test_on_demand_reserved_metered_and_spot_prices_are_read_over_pages():
    done = refresh()
    found = {(row.item, row.kind): row.price.value for row in done.rows}
    assert found == {
        ("g5.xlarge", "on-demand"): 1.006,
        ("m5.large", "on-demand"): 0.096,
        (
            "m5.large",
            "reserved-1y",
        ): 0.06,  # standard, no upfront; neither convertible nor partial upfront
        ("m5.large", "reserved-3y"): 0.041,
        ("p5.48xlarge", "on-demand"): 55.04,
        ("s3/standard/storage", "on-demand"): 0.023,  # first tier; not the storage of tags
        ("transfer/internet-out", "on-demand"): 0.09,  # first tier that is not free
    }
    assert {row.region for row in done.rows} == {REGION}
    assert {row.price.date for row in done.rows} == {NOW.date()}
    assert all("published on 2026-11-20" in row.price.source for row in done.rows)
    spot = [(row.instance_type, row.zone_id, row.price.value) for row in done.spot]
    assert spot == [
        ("g5.xlarge", "usw2-az1", 0.3911),
        ("g5.xlarge", "usw2-az2", 0.4025),  # named by the account's name of the zone only
        ("g5.xlarge", "usw2-az2", 0.3782),
        ("m5.large", "usw2-az2", 0.0413),
    ]


def test_the_look_up_prefers_the_newer_snapshot_and_says_so():
    assert prices.price("m5.large", "eu-west-1")
    with pytest.raises(UserError, match=r"no on-demand price of p5.48xlarge in us-west-2"):
        prices.price("p5.48xlarge", REGION)
    done = refresh()
    assert prices.price("p5.48xlarge", REGION).value == 55.04
    (row,) = prices.prices("g5.xlarge", REGION, "on-demand")
    assert row.origin == "refreshed snapshot"
    assert "GetProducts" in row.price.source
    assert prices.price("g5.xlarge").source.startswith("Karpenter"), (
        "another region stays as packaged"
    )
    years = {row.at.year for row in spot_history.spot_history("g5.xlarge", REGION)}
    assert years == {2025, 2026}, "refreshed samples stand beside the packaged ones"
    assert done.files == [prices.snapshot_file(), spot_history.snapshot_file()]


def test_an_older_snapshot_does_not_go_before_newer_packaged_prices():
    refresh(now=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    (row,) = prices.prices("g5.xlarge", REGION, "on-demand")
    assert row.origin == "prices.toml"
    assert prices.price("p5.48xlarge", REGION).value == 55.04, "nothing newer is known of it"


def test_rows_of_other_regions_stay_in_the_snapshot():
    refresh()
    kept = prices.snapshot()["g5.xlarge", REGION, "on-demand"]
    elsewhere = kept.model_copy(update={"region": "eu-west-1"})
    write_prices(prices.snapshot_file(), [kept, elsewhere])
    refresh()
    assert set(prices.snapshot()) >= {
        ("g5.xlarge", "eu-west-1", "on-demand"),
        ("p5.48xlarge", REGION, "on-demand"),
    }


def test_a_second_refresh_moves_nothing():
    first = refresh()
    assert {change.item for change in first.changes if change.was is None} >= {"p5.48xlarge"}
    assert refresh().changes == []


# ------------------------------------------------------------------------------------------------------- bad answers


def _set(path: tuple[str, ...], value):
    def change(entry: dict) -> None:
        target = dimension(entry)
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            _set(("pricePerUnit",), {"USD": "-1.006"}),
            r"g5.xlarge in us-west-2, on-demand, field pricePerUnit.USD: '-1.006'",
        ),
        (_set(("pricePerUnit",), {"USD": "a lot"}), "pricePerUnit.USD: 'a lot' is no number"),
        (_set(("pricePerUnit",), {"USD": "nan"}), "pricePerUnit.USD: 'nan' is no price"),
        (_set(("pricePerUnit",), {}), "field pricePerUnit: missing; every price is in USD"),
        (_set(("pricePerUnit",), {"CNY": "7.1"}), "field pricePerUnit: CNY; every price is in USD"),
        (
            _set(("pricePerUnit",), {"USD": "1", "CNY": "7.1"}),
            "field pricePerUnit: CNY, USD; every",
        ),
        (_set(("unit",), "Quantity"), "field unit: 'Quantity'; expected is Hrs"),
        (
            lambda entry: entry["terms"].pop("OnDemand"),
            r"g5.xlarge .*field terms.OnDemand: missing",
        ),
        (lambda entry: entry.pop("product"), "lacks 'product'"),
    ],
)
def test_a_wrong_price_is_named_and_nothing_is_written(change, named):
    def alter(name: str, answer: dict) -> dict:
        return product_with(answer, "g5.xlarge", change) if name.startswith("ec2") else answer

    with pytest.raises(UserError, match=named) as caught:
        refresh(alter)
    assert "\n" not in str(caught.value)
    assert not prices.snapshot_file().exists()
    assert not spot_history.snapshot_file().exists()


def test_two_prices_of_one_type_are_not_chosen_between():
    def alter(name: str, answer: dict) -> dict:
        if name != "ec2_us-west-2_page2.json":
            return answer
        entry = json.loads(recorded("ec2_us-west-2_page1.json")["PriceList"][0])
        dimension(entry)["pricePerUnit"]["USD"] = "1.5"
        return answer | {"PriceList": [*answer["PriceList"], json.dumps(entry)]}

    with pytest.raises(UserError, match=r"g5.xlarge in us-west-2, on-demand: .* 1.006 and 1.5"):
        refresh(alter)


def test_a_product_that_is_no_json_is_named():
    def alter(name: str, answer: dict) -> dict:
        return answer | {"PriceList": ["{"]} if name.startswith("ec2") else answer

    with pytest.raises(UserError, match="AmazonEC2 holds a product that is not JSON"):
        refresh(alter)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("SpotPrice", "-0.1", r"g5.xlarge in usw2-az2, field SpotPrice: -0.1"),
        ("SpotPrice", "free", "field SpotPrice: 'free' is no number"),
        ("AvailabilityZoneId", "moon", "field zone_id: 'moon'"),
    ],
)
def test_a_wrong_spot_price_is_named(field, value, named):
    def alter(name: str, answer: dict) -> dict:
        if name == "spot_us-west-2_page1.json":
            answer["SpotPriceHistory"][0][field] = value
        return answer

    with pytest.raises(UserError, match=named):
        refresh(alter)
    assert not prices.snapshot_file().exists()


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("ThrottlingException", "slow down: try again in a minute"),
        ("AccessDeniedException", "needs pricing:GetProducts"),
        ("InternalErrorException", "go on with the packaged prices"),
    ],
)
def test_an_api_that_refuses_is_explained(code, named):
    with pytest.raises(UserError, match=named) as caught:
        refresh(lambda name, answer: code if name == "ec2_us-west-2_page1.json" else answer)
    assert "prices of us-west-2 (pricing)" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (exceptions.NoCredentialsError(), "run `aws configure`"),
        (exceptions.PartialCredentialsError(provider="env", cred_var="x"), "run `aws configure`"),
        (exceptions.ProfileNotFound(profile="gone"), "set AWS_PROFILE"),
        (exceptions.EndpointConnectionError(endpoint_url="https://pricing"), "no network"),
        (exceptions.ConnectTimeoutError(endpoint_url="https://pricing"), "no network"),
    ],
)
def test_no_credentials_and_no_network_are_explained(error, named):
    def client(service: str, region: str):
        raise error

    with pytest.raises(UserError, match=named):
        refreshing.refresh([REGION], types=TYPES, now=NOW, client=client)


def test_an_unknown_region_or_none_is_named_before_anything_is_asked():
    with pytest.raises(UserError, match=r"unknown region 'moon'; AWS has .*us-west-2"):
        refreshing.refresh(["moon"])
    with pytest.raises(UserError, match="no region was given"):
        refreshing.refresh([])


def test_an_empty_price_list_is_no_refresh():
    def alter(name: str, answer: dict) -> dict:
        if "SpotPriceHistory" in answer:
            return answer
        return {"FormatVersion": "aws_v1", "PriceList": []} | (
            {"NextToken": answer["NextToken"]} if "NextToken" in answer else {}
        )

    with pytest.raises(UserError, match="answered no price for us-west-2"):
        refresh(alter)


def test_a_corrupt_snapshot_is_named():
    refresh()
    file = prices.snapshot_file()
    file.write_text(file.read_text().replace('unit = "USD/h"', 'unit = "CNY/h"', 1))
    with pytest.raises(UserError, match="is in CNY; every price is in USD") as caught:
        prices.price("g5.xlarge")
    assert str(file) in str(caught.value)
