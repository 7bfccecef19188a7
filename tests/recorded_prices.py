"""Recorded answers of the Pricing and EC2 APIs: botocore's models check them and every request that asks for them."""

import datetime
import json
from pathlib import Path

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.stub import Stubber

from smml.aws import price_list, prices as refreshing
from smml.data import prices

RECORDED = Path(__file__).resolve().parent / "recorded" / "pricing"
REGION = "us-west-2"
TYPES = ("g5.xlarge", "m5.large", "p5.48xlarge")
NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
FILTERS = {"regionCode": REGION, **price_list.EC2_FILTERS}
# Held here, for a test of the command puts another function in its place.
_REFRESH = refreshing.refresh


def recorded(name: str) -> dict:
    answer = json.loads((RECORDED / name).read_text(encoding="utf-8"))
    for entry in answer.get("SpotPriceHistory", []):
        entry["Timestamp"] = datetime.datetime.fromisoformat(entry["Timestamp"])
    return answer


def stubbed(service: str, region: str) -> tuple:
    client = boto3.client(
        service,
        region_name=region,
        config=Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}),
    )
    stub = Stubber(client)
    stub.activate()
    return client, stub


def asked(service: str, equal: dict[str, str], containing: dict[str, str] | None = None) -> dict:
    filters = [{"Type": "TERM_MATCH", "Field": k, "Value": v} for k, v in equal.items()]
    filters += [{"Type": "CONTAINS", "Field": k, "Value": v} for k, v in (containing or {}).items()]
    return {"ServiceCode": service, "Filters": filters, "FormatVersion": "aws_v1"}


class Recorded:
    """Both APIs in one region: what each request must say, and what is answered; `alter` may change an answer."""

    def __init__(self, alter=lambda name, answer: answer, now=NOW):
        self.pricing, self.pricing_stub = stubbed("pricing", "us-east-1")
        self.ec2, self.ec2_stub = stubbed("ec2", REGION)

        def product(expected: dict, name: str) -> None:
            answer = alter(name, recorded(name))
            if isinstance(answer, str):
                self.pricing_stub.add_client_error("get_products", answer, "as recorded")
            else:
                self.pricing_stub.add_response("get_products", answer, expected)

        product(asked("AmazonEC2", FILTERS), "ec2_us-west-2_page1.json")
        product(
            asked("AmazonEC2", FILTERS) | {"NextToken": "AAMA-page-2"}, "ec2_us-west-2_page2.json"
        )
        hosted = [row.item for row in prices.prices("sagemaker/")]
        meters = price_list.METERS | {
            item: price_list.sagemaker_meter(item.removeprefix("sagemaker/")) for item in hosted
        }
        files = {
            "s3/standard/storage": "s3_us-west-2.json",
            "transfer/internet-out": "transfer_us-west-2.json",
        }
        for item, meter in meters.items():
            expected = asked(meter.service, {"regionCode": REGION}, {"usagetype": meter.usage_type})
            product(expected, files.get(item, "empty.json"))
        spot = {
            "InstanceTypes": sorted(TYPES),
            "ProductDescriptions": ["Linux/UNIX"],
            "StartTime": now - datetime.timedelta(days=14),
            "EndTime": now,
        }
        for name, extra in (
            ("spot_us-west-2_page1.json", {}),
            ("spot_us-west-2_page2.json", {"NextToken": "b1a2c3"}),
        ):
            self.ec2_stub.add_response(
                "describe_spot_price_history", alter(name, recorded(name)), spot | extra
            )
            if not extra:
                continue
            self.ec2_stub.add_response(
                "describe_availability_zones", recorded("zones_us-west-2.json"), {}
            )

    def __call__(self, service: str, region: str):
        assert (service, region) in (("pricing", "us-east-1"), ("ec2", REGION))
        return {"pricing": self.pricing, "ec2": self.ec2}[service]


def refresh(alter=lambda name, answer: answer, now=NOW) -> refreshing.Refreshed:
    return _REFRESH([REGION], types=TYPES, now=now, client=Recorded(alter, now))
