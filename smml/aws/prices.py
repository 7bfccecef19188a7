"""Refreshes prices from AWS into the reader's cache, tells what moved, and how old each source is."""

import datetime
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smml.aws.price_list import METERS, ec2_rows, meter_row, sagemaker_meter
from smml.aws.price_snapshot import write_prices, write_spot
from smml.aws.spot_prices import spot_rows
from smml.data import prices as price_data, spot_history as spot_data
from smml.data.catalogue import instances
from smml.data.offerings import Offer
from smml.data.prices import PriceRow
from smml.data.spot_history import SpotPrice
from smml.errors import UserError

REGIONS = ("us-east-1", "us-west-2", "eu-west-1")
PRICING_REGION = "us-east-1"  # the Pricing API answers for every region from here
STALE_DAYS = 90
Client = Callable[[str, str], Any]


@dataclass(frozen=True)
class Change:
    """One price that moved, appeared (`was` None) or went (`now` None); in `unit`."""

    item: str
    region: str
    kind: str
    unit: str
    was: float | None
    now: float | None

    @property
    def by(self) -> float | None:
        """Share by which it rose; negative where it fell; None where it appeared or went."""
        return None if self.was is None or self.now is None else self.now / self.was - 1


@dataclass(frozen=True)
class Refreshed:
    """What a refresh read: rows, where they stand, and what moved against what was known before."""

    rows: list[PriceRow]
    spot: list[SpotPrice]
    files: list[Path]
    changes: list[Change]


@dataclass(frozen=True)
class Age:
    """How old a source is: its day, the days since, how many figures rest on it, and whether that is too old."""

    source: str
    date: datetime.date
    days: int
    figures: int
    stale: bool


def refresh(
    regions: Iterable[str] = REGIONS,
    endpoint: str | None = None,
    *,
    spot_days: float = 14,
    types: Iterable[str] | None = None,
    now: datetime.datetime | None = None,
    client: Client | None = None,
) -> Refreshed:
    """Read on-demand, reserved, metered and spot prices of `regions` and write them as snapshots into the cache folder.

    `endpoint`: URL of a stand-in for both APIs; the real ones where None. `types`: EC2 types, default the catalogue's.
    Rows of other regions in an earlier snapshot stay. Nothing is written unless everything was read.
    Raises UserError: no credentials, no network, throttled, refused, another currency, a missing or negative price.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    asked, names = list(regions), list(types if types is not None else instances())
    _regions(asked)
    make = client or _client(endpoint)
    rows: list[PriceRow] = []
    spot: list[SpotPrice] = []
    for region in asked:
        with _explained("pricing", region):
            listed = make("pricing", PRICING_REGION)
            rows += _once(ec2_rows(listed, region, names, now.date()))
            meters = METERS | {
                row.item: sagemaker_meter(row.item.removeprefix("sagemaker/"))
                for row in price_data.prices("sagemaker/")
            }
            for item, meter in meters.items():
                row = meter_row(listed, region, item, meter, now.date())
                rows += [row] if row else []
        with _explained("ec2", region):
            spot += spot_rows(make("ec2", region), region, names, now, spot_days)
    if not rows:
        raise UserError(
            f"the Price List answered no price for {', '.join(asked)}; check --region and --endpoint."
        )
    before = {
        key: row
        for key, row in price_data.table().items()
        if row.region in asked and ("/" in row.item or row.item in names)
    }
    changes = diff(_same_scope(before, rows), {row.key: row for row in rows})
    kept = [row for row in price_data.snapshot().values() if row.region not in asked]
    kept_spot = [row for row in spot_data.refreshed().history if row.region not in asked]
    files = [
        write_prices(price_data.snapshot_file(), [*kept, *rows]),
        write_spot(spot_data.snapshot_file(), [*kept_spot, *spot]),
    ]
    return Refreshed(rows, spot, files, changes)


def snapshot_changes() -> list[Change]:
    """What moved from the packaged prices to the refreshed snapshot, in the regions and kinds that it covers.

    Raises UserError where nothing was refreshed yet.
    """
    newer = price_data.snapshot()
    if not newer:
        raise UserError(
            f"there is no {price_data.snapshot_file()}; run `smml prices refresh` first."
        )
    return diff(_same_scope(price_data.packaged(), newer.values()), newer)


def diff(
    old: Mapping[tuple[str, str, str], PriceRow], new: Mapping[tuple[str, str, str], PriceRow]
) -> list[Change]:
    """What moved, appeared and went from `old` to `new`, the largest moves first. Raises UserError: units differ."""
    changes = []
    for key in old.keys() | new.keys():
        was, now = old.get(key), new.get(key)
        if was and now and was.price.unit != now.price.unit:
            raise UserError(
                f"{' '.join(key)}: was in {was.price.unit}, is in {now.price.unit}; remove the snapshot and refresh."
            )
        if was is None or now is None or was.price.value != now.price.value:
            unit = (was or now).price.unit
            change = Change(
                *key, unit, was.price.value if was else None, now.price.value if now else None
            )
            changes.append(change)
    return sorted(
        changes,
        key=lambda c: (c.by is None, -abs(c.by or 0), c.was is None, c.item, c.region, c.kind),
    )


def staleness(
    today: datetime.date | None = None, limit_days: int = STALE_DAYS, offers: Iterable[Offer] = ()
) -> list[Age]:
    """Age of every source that a price, a spot price or an interruption band rests on, the oldest first.

    `offers`: zone offerings to be counted too. A source is stale when it is more than `limit_days` old.
    """
    today = today or datetime.datetime.now(datetime.UTC).date()
    figures: dict[tuple[str, datetime.date], int] = {}
    cited = [row.price for row in price_data.table().values()]
    cited += [row.price for row in spot_data.spot_history()]
    for quantity in [*cited, *spot_data.interruptions(), *offers]:
        key = quantity.source, quantity.date
        figures[key] = figures.get(key, 0) + 1
    ages = [
        Age(source, date, (today - date).days, count, (today - date).days > limit_days)
        for (source, date), count in figures.items()
    ]
    return sorted(ages, key=lambda age: (-age.days, age.source))


def _same_scope(
    before: Mapping[tuple[str, str, str], PriceRow], rows: Iterable[PriceRow]
) -> dict[tuple[str, str, str], PriceRow]:
    # A capacity block that the Price List never answers has not "gone": only what was asked for can go.
    covered = {(row.region, row.kind, "/" in row.item) for row in rows}
    answered = set(METERS) | {row.item for row in rows}
    return {
        key: row
        for key, row in before.items()
        if (row.region, row.kind, "/" in row.item) in covered
        and ("/" not in row.item or row.item in answered)
    }


def _once(rows: Iterable[PriceRow]) -> list[PriceRow]:
    found: dict[tuple[str, str, str], PriceRow] = {}
    for row in rows:
        held = found.setdefault(row.key, row)
        if held.price.value != row.price.value:
            raise UserError(
                f"{row.item} in {row.region}, {row.kind}: the Price List answers {held.price.value} and {row.price.value} "
                "USD/h; narrow EC2_FILTERS in smml/aws/price_list.py."
            )
    return list(found.values())


def _regions(asked: list[str]) -> None:
    import botocore.session

    known = botocore.session.get_session().get_available_regions("ec2")
    for region in asked:
        if region not in known:
            raise UserError(
                f"unknown region {region!r}; AWS has {', '.join(known)}; give one of these."
            )
    if not asked:
        raise UserError(f"no region was given; give one such as {REGIONS[0]}.")


def _client(endpoint: str | None) -> Client:
    import boto3
    from botocore.config import Config

    def make(service: str, region: str) -> Any:
        config = Config(retries={"mode": "standard", "max_attempts": 8}, connect_timeout=10)
        return boto3.client(service, region_name=region, endpoint_url=endpoint, config=config)

    return make


@contextmanager
def _explained(service: str, region: str):
    from botocore import exceptions

    where = f"prices of {region} ({service})"
    try:
        yield
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise UserError(
            f"{where}: {error}; run `aws configure`, set AWS_PROFILE, or give --endpoint of a stand-in."
        ) from error
    except (exceptions.ProfileNotFound, exceptions.TokenRetrievalError) as error:
        raise UserError(
            f"{where}: {error}; set AWS_PROFILE to one that `aws configure list-profiles` shows."
        ) from error
    except (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.ConnectionClosedError,
    ) as error:
        raise UserError(
            f"{where}: no network: {error}; connect, or go on with the packaged prices."
        ) from error
    except exceptions.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if "Throttl" in code or code in ("RequestLimitExceeded", "TooManyRequestsException"):
            remedy = "AWS asks to slow down: try again in a minute, or with one --region at a time"
        elif "Denied" in code or "Unauthorized" in code or "NotAuthorized" in code:
            remedy = "the account needs pricing:GetProducts, ec2:DescribeSpotPriceHistory, ec2:DescribeAvailabilityZones"
        else:
            remedy = "mend what it says, or go on with the packaged prices"
        raise UserError(f"{where}: {error}; {remedy}.") from error
    except (exceptions.ParamValidationError, exceptions.EndpointProviderError, ValueError) as error:
        raise UserError(f"{where}: {error}; give another --region or --endpoint.") from error
