"""Reads the AWS Price List: GetProducts of the Pricing API → price rows of EC2 types and of metered services.

A product is a JSON text: attributes, and under terms.OnDemand and terms.Reserved offers with price dimensions, one a tier.
https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_pricing_GetProducts.html
"""

import datetime
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from smml.data.prices import PriceRow
from smml.data.schema import Quantity
from smml.errors import UserError

URL = "https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_pricing_GetProducts.html"
# Linux, shared tenancy, capacity in use, nothing preinstalled: what "on demand" means everywhere in this project.
EC2_FILTERS = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "capacitystatus": "Used",
    "preInstalledSw": "NA",
    "marketoption": "OnDemand",
}
_RESERVED = {"1yr": "reserved-1y", "3yr": "reserved-3y"}
_USAGE_PREFIX = r"(?:[A-Z]{2,4}\d{0,2}-)?"


@dataclass(frozen=True)
class Meter:
    """What AWS bills under one usage type: service code, usage type without the region's prefix, units, scale.

    `billed` are the units that the Price List uses for it; `scale` turns a price in them into one in `unit`.
    """

    service: str
    usage_type: str
    unit: str
    billed: tuple[str, ...]
    scale: float = 1.0


def _stored(usage_type: str, service: str = "AmazonS3") -> Meter:
    return Meter(service, usage_type, "USD/GB-month", ("GB-Mo",))


METERS = {
    "s3/standard/storage": _stored("TimedStorage-ByteHrs"),
    "s3/standard-ia/storage": _stored("TimedStorage-SIA-ByteHrs"),
    "s3/one-zone-ia/storage": _stored("TimedStorage-ZIA-ByteHrs"),
    "s3/glacier-instant/storage": _stored("TimedStorage-GIR-ByteHrs"),
    "s3/glacier-flexible/storage": _stored("TimedStorage-GlacierByteHrs"),
    "s3/glacier-deep/storage": _stored("TimedStorage-GDA-ByteHrs"),
    "s3/intelligent-tiering/frequent/storage": _stored("TimedStorage-INT-FA-ByteHrs"),
    "s3/intelligent-tiering/infrequent/storage": _stored("TimedStorage-INT-IA-ByteHrs"),
    "s3/intelligent-tiering/archive-instant/storage": _stored("TimedStorage-INT-AIA-ByteHrs"),
    "s3/intelligent-tiering/monitoring": Meter(
        "AmazonS3", "Monitoring-Automation-INT", "USD/object-month", ("Objects",)
    ),
    "s3/requests/put": Meter("AmazonS3", "Requests-Tier1", "USD/request", ("Requests",)),
    "s3/requests/get": Meter("AmazonS3", "Requests-Tier2", "USD/request", ("Requests",)),
    "efs/standard/storage": _stored("TimedStorage-ByteHrs", "AmazonEFS"),
    "efs/infrequent/storage": _stored("IATimedStorage-ByteHrs", "AmazonEFS"),
    "ebs/gp3/storage": _stored("EBS:VolumeUsage.gp3", "AmazonEC2"),
    "transfer/internet-out": Meter(
        "AWSDataTransfer", "DataTransfer-Out-Bytes", "USD/GB", ("GB", "GigaBytes")
    ),
    "transfer/cross-az": Meter("AmazonEC2", "DataTransfer-Regional-Bytes", "USD/GB", ("GB",)),
    "lambda/x86/request": Meter("AWSLambda", "Request", "USD/request", ("Requests", "Request")),
    "lambda/x86/duration": Meter(
        "AWSLambda", "Lambda-GB-Second", "USD/GB-s", ("Lambda-GB-Second", "Second")
    ),
    "fargate/x86/vcpu": Meter(
        "AmazonECS", "Fargate-vCPU-Hours:perCPU", "USD/vCPU-h", ("hours", "Hrs")
    ),
    "fargate/x86/memory": Meter("AmazonECS", "Fargate-GB-Hours", "USD/GB-h", ("hours", "Hrs")),
}


def sagemaker_meter(instance_type: str) -> Meter:
    """The meter of a SageMaker hosting instance such as "ml.g5.xlarge"; its item is "sagemaker/ml.g5.xlarge"."""
    return Meter("AmazonSageMaker", f"Host:{instance_type}", "USD/h", ("Hrs", "hours"))


def ec2_rows(
    client: Any, region: str, types: Iterable[str], today: datetime.date
) -> Iterator[PriceRow]:
    """On-demand and standard no-upfront reserved prices of those EC2 types in the region. Raises UserError: see `_usd`."""
    wanted = set(types)
    filters = {"regionCode": region, **EC2_FILTERS}
    for product in _products(client, "AmazonEC2", filters, {}):
        name = _attribute(product, "instanceType")
        if name not in wanted:
            continue
        for kind, dimension in _ec2_offers(product):
            usd = _usd(dimension, f"{name} in {region}, {kind}", ("Hrs",))
            if usd is not None:
                yield _row(name, region, kind, usd, "USD/h", product, today)


def meter_row(
    client: Any, region: str, item: str, meter: Meter, today: datetime.date
) -> PriceRow | None:
    """The first tier that costs something, on demand; None where the region has no such meter. Raises UserError: see `_usd`."""
    pattern = re.compile(_USAGE_PREFIX + re.escape(meter.usage_type))
    found: dict[float, tuple[float, dict[str, Any]]] = {}
    for product in _products(
        client, meter.service, {"regionCode": region}, {"usagetype": meter.usage_type}
    ):
        if not pattern.fullmatch(_attribute(product, "usagetype")):
            continue
        tiers = [
            (float(tier.get("beginRange", 0)), tier) for _, tier in _dimensions(product, "OnDemand")
        ]
        for _, tier in sorted(tiers, key=lambda pair: pair[0]):
            usd = _usd(tier, f"{item} in {region}", meter.billed)
            if usd is not None:
                found[usd] = (usd * meter.scale, product)
                break
    if len(found) > 1:
        raise UserError(
            f"{item} in {region}: the Price List answers {len(found)} prices ({', '.join(map(str, sorted(found)))}) for "
            f"usage type {meter.usage_type}; narrow the meter in smml/aws/price_list.py."
        )
    for usd, product in found.values():
        return _row(item, region, "on-demand", usd, meter.unit, product, today)
    return None


def _products(
    client: Any, service: str, equal: dict[str, str], containing: dict[str, str]
) -> Iterator[dict[str, Any]]:
    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in equal.items()]
    filters += [
        {"Type": "CONTAINS", "Field": key, "Value": value} for key, value in containing.items()
    ]
    pages = client.get_paginator("get_products").paginate(
        ServiceCode=service, Filters=filters, FormatVersion="aws_v1"
    )
    for page in pages:
        for text in page["PriceList"]:
            try:
                yield json.loads(text) if isinstance(text, str) else text
            except json.JSONDecodeError as error:
                raise UserError(
                    f"the Price List of {service} holds a product that is not JSON: {error}; refresh again."
                ) from error


def _attribute(product: dict[str, Any], name: str) -> str:
    try:
        return product["product"]["attributes"][name]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"a product of the Price List lacks {error} (sku {_sku(product)}); its format changed, update this package."
        ) from error


def _sku(product: Any) -> str:
    held = product.get("product") if isinstance(product, dict) else None
    return held.get("sku", "unknown") if isinstance(held, dict) else "unknown"


def _dimensions(
    product: dict[str, Any], term: str
) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    for offer in product.get("terms", {}).get(term, {}).values():
        for dimension in offer.get("priceDimensions", {}).values():
            yield offer.get("termAttributes", {}), dimension


def _ec2_offers(product: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    demanded = list(_dimensions(product, "OnDemand"))
    if not demanded:
        raise UserError(
            f"{_attribute(product, 'instanceType')} (sku {_sku(product)}), field terms.OnDemand: missing; refresh again, "
            "or leave out that region."
        )
    for _, dimension in demanded:
        yield "on-demand", dimension
    for offer, dimension in _dimensions(product, "Reserved"):
        plain = (offer.get("OfferingClass"), offer.get("PurchaseOption")) == (
            "standard",
            "No Upfront",
        )
        if plain and offer.get("LeaseContractLength") in _RESERVED:
            yield _RESERVED[offer["LeaseContractLength"]], dimension


def _usd(dimension: dict[str, Any], what: str, billed: tuple[str, ...]) -> float | None:
    """USD of a price dimension; None where the tier is free.

    Raises UserError naming the field: another unit or currency, a price that is missing, negative or no number.
    """
    if dimension.get("unit") not in billed:
        raise UserError(
            f"{what}, field unit: {dimension.get('unit')!r}; expected is {' or '.join(billed)}; update this package."
        )
    prices = dimension.get("pricePerUnit") or {}
    if set(prices) != {"USD"}:
        given = ", ".join(sorted(prices)) or "missing"
        raise UserError(
            f"{what}, field pricePerUnit: {given}; every price is in USD: leave out that region (China bills in CNY)."
        )
    try:
        usd = float(prices["USD"])
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{what}, field pricePerUnit.USD: {prices['USD']!r} is no number; refresh again."
        ) from error
    if not 0 <= usd < float("inf"):
        raise UserError(
            f"{what}, field pricePerUnit.USD: {prices['USD']!r} is no price; refresh again."
        )
    return usd or None


def _row(
    item: str,
    region: str,
    kind: str,
    usd: float,
    unit: str,
    product: dict[str, Any],
    today: datetime.date,
) -> PriceRow:
    published = str(product.get("publicationDate", ""))[:10] or "an unstated day"
    price = Quantity(
        value=usd,
        unit=unit,
        source=f"AWS Price List, GetProducts on {today}, offer file published on {published}",
        url=URL,
        date=today,
        checked=True,
    )
    return PriceRow(item=item, region=region, kind=kind, price=price, origin="refreshed snapshot")
