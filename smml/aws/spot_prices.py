"""Reads what spot capacity cost: DescribeSpotPriceHistory of the EC2 API → spot prices by zone ID and time.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSpotPriceHistory.html (90 days are kept)
"""

import datetime
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from smml.data.schema import Quantity
from smml.data.spot_history import SpotPrice
from smml.errors import UserError

URL = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSpotPriceHistory.html"
PRODUCT = "Linux/UNIX"


def spot_rows(
    client: Any,
    region: str,
    types: Iterable[str],
    now: datetime.datetime,
    days: float,
) -> list[SpotPrice]:
    """Every change of those types' spot prices in the region's zones in the last `days`, oldest first.

    Raises UserError naming type, zone and field where a price is missing, negative or no number.
    """
    names = sorted(types)
    pages = client.get_paginator("describe_spot_price_history").paginate(
        InstanceTypes=names,
        ProductDescriptions=[PRODUCT],
        StartTime=now - datetime.timedelta(days=days),
        EndTime=now,
    )
    zone_ids: dict[str, str] = {}
    found: dict[tuple[str, str, datetime.datetime], SpotPrice] = {}
    for page in pages:
        for entry in page["SpotPriceHistory"]:
            if entry.get("InstanceType") not in names:
                continue
            row = _row(entry, region, _zone_id(client, entry, zone_ids), now.date())
            found[row.instance_type, row.zone_id, row.at] = row
    return sorted(found.values(), key=lambda row: (row.instance_type, row.zone_id, row.at))


def _zone_id(client: Any, entry: dict[str, Any], known: dict[str, str]) -> str:
    if entry.get("AvailabilityZoneId"):
        return entry["AvailabilityZoneId"]
    # Older endpoints answer the account's own name of the zone only; the ID is the same for everyone.
    if not known:
        answer = client.describe_availability_zones()
        known |= {zone["ZoneName"]: zone["ZoneId"] for zone in answer["AvailabilityZones"]}
    name = entry.get("AvailabilityZone", "")
    if name not in known:
        raise UserError(
            f"spot price of {entry.get('InstanceType')}, field AvailabilityZone: {name!r} is none of the region's zones "
            f"({', '.join(sorted(known))}); refresh again."
        )
    return known[name]


def _row(entry: dict[str, Any], region: str, zone_id: str, today: datetime.date) -> SpotPrice:
    what = f"spot price of {entry['InstanceType']} in {zone_id}"
    try:
        usd = float(entry["SpotPrice"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{what}, field SpotPrice: {entry.get('SpotPrice', 'missing')!r} is no number; refresh again."
        ) from error
    at = entry.get("Timestamp")
    if not isinstance(at, datetime.datetime):
        raise UserError(f"{what}, field Timestamp: {at!r} is no time; refresh again.")
    try:
        price = Quantity(
            value=usd,
            unit="USD/h",
            source=f"Amazon EC2 DescribeSpotPriceHistory on {today}",
            url=URL,
            date=today,
            checked=True,
        )
        return SpotPrice(
            instance_type=entry["InstanceType"], region=region, zone_id=zone_id, at=at, price=price
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = "SpotPrice" if first["loc"] == ("value",) else ".".join(map(str, first["loc"]))
        raise UserError(
            f"{what}, field {field}: {first['input']!r}: {first['msg']}; refresh again."
        ) from error
