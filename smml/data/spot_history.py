"""Look up what spot capacity cost and how often it was taken back: recorded prices by type, zone and day, and bands.

The figures stand in spot_history.toml; a history that the reader refreshed (in the cache folder) is added to them.
Zones are named by their ID (use1-az1), which is the same in every account, unlike us-east-1a.
"""

import datetime
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from smml import paths
from smml.data.packaged import text_of
from smml.data.schema import Quantity, Source, Text
from smml.errors import UserError

SPOT_FILE = "spot_history.toml"
Region = Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SpotPrice(_Row):
    """USD an hour that one type cost in one zone from `at` on (UTC), for Linux."""

    instance_type: Text
    region: Region
    zone_id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*-az\d+$")]
    at: datetime.datetime
    price: Quantity


class Interruption(_Row):
    """Share of a type's spot instances in a region that were taken back in the month before: from `low` to `high`.

    `savings`: share of the on-demand price saved on average in that month, where the source states it.
    """

    instance_type: Text
    region: Region
    low: Annotated[float, Field(ge=0, le=1)]
    high: Annotated[float, Field(ge=0, le=1)]
    savings: Annotated[float, Field(ge=0, le=1)] | None = None
    source: Text
    url: str
    date: datetime.date
    checked: bool

    @model_validator(mode="after")
    def _in_order(self) -> "Interruption":
        if self.low >= self.high:
            raise ValueError("low must be below high")
        return self


class SpotData(_Row):
    """Everything that a spot_history.toml holds."""

    history: list[SpotPrice]
    interruptions: dict[tuple[str, str], Interruption]


def read_spot(text: str, file: str = SPOT_FILE) -> SpotData:
    """Parse and check a TOML text of [sources], [bands], [[samples]] and [[interruptions]].

    Raises UserError naming `file`, row and field: a price that is negative or missing, an unknown band or source.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not TOML: {error}; correct that line.") from error
    row = "sources"
    history: list[SpotPrice] = []
    interruptions: dict[tuple[str, str], Interruption] = {}
    try:
        sources = {key: Source.model_validate(value) for key, value in content["sources"].items()}
        seen: set[tuple[str, str, datetime.datetime]] = set()
        for sample in content.get("samples", []):
            row = f"samples, {sample['instance_type']} in {sample['region']}"
            for zone_id, value in sample["prices"].items():
                row = f"samples, {sample['instance_type']} in {zone_id}"
                entry = _sample(sample, zone_id, value, sources[sample["source"]])
                key = (entry.instance_type, zone_id, entry.at)
                if key in seen:
                    raise ValueError(f"a price at {entry.at} stands twice")
                seen.add(key)
                history.append(entry)
        bands = content.get("bands", {})
        for block in content.get("interruptions", []):
            cited = sources[block["source"]]
            for name, value in block["types"].items():
                row = f"interruptions, {name} in {block['region']}"
                low, high = bands[value["band"]]
                entry = Interruption(
                    instance_type=name,
                    region=block["region"],
                    low=float(low),
                    high=float(high),
                    savings=value.get("savings"),
                    **_cited(cited),
                )
                if (name, block["region"]) in interruptions:
                    raise ValueError("stands twice")
                interruptions[name, block["region"]] = entry
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file}, row {row}: {_reason(error)}. Correct it there.") from error
    return SpotData(history=history, interruptions=interruptions)


def _sample(sample: dict[str, Any], zone_id: str, value: Any, cited: Source) -> SpotPrice:
    at = sample["at"]
    if not isinstance(at, datetime.datetime):
        at = datetime.datetime(at.year, at.month, at.day)
    at = at if at.tzinfo else at.replace(tzinfo=datetime.UTC)
    value = float(value) if type(value) is int else value
    price = Quantity(value=value, unit="USD/h", **_cited(cited))
    return SpotPrice(
        instance_type=sample["instance_type"],
        region=sample["region"],
        zone_id=zone_id,
        at=at,
        price=price,
    )


def _cited(cited: Source) -> dict[str, Any]:
    return {
        "source": cited.title,
        "url": cited.url,
        "date": cited.date,
        "checked": cited.checked,
    }


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])).replace("value", "price")
        return f"{where}: {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"
    return f"missing {error}" if isinstance(error, KeyError) else str(error)


@lru_cache
def _packaged() -> SpotData:
    return read_spot(text_of(SPOT_FILE))


def snapshot_file() -> Path:
    """Where `smml prices refresh` writes spot prices and this look-up reads them: in the per-user cache folder."""
    return paths.cache() / SPOT_FILE


@lru_cache(maxsize=4)
def _refreshed(path: Path, changed_ns: int) -> SpotData:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; remove it or refresh it.") from error
    return read_spot(text, str(path))


def refreshed() -> SpotData:
    """What the reader refreshed; empty if nothing. Raises UserError when the file is corrupt."""
    path = snapshot_file()
    if not path.is_file():
        return SpotData(history=[], interruptions={})
    return _refreshed(path, path.stat().st_mtime_ns)


def spot_history(instance_type: str | None = None, region: str | None = None) -> list[SpotPrice]:
    """Recorded spot prices of a type in a region (all where None), by type, zone and time.

    Raises UserError naming what is known where no price of that type or region is held.
    """
    rows = [*_packaged().history, *refreshed().history]
    _known("type", instance_type, {row.instance_type for row in rows})
    _known("region", region, {row.region for row in rows})
    found = [
        row
        for row in rows
        if instance_type in (None, row.instance_type) and region in (None, row.region)
    ]
    return sorted(found, key=lambda row: (row.instance_type, row.zone_id, row.at))


def interruption_rate(instance_type: str, region: str) -> Interruption:
    """How often that type's spot instances were taken back a month in that region, as a band.

    Raises UserError naming the types known in the region, or the regions known.
    """
    held = {**_packaged().interruptions, **refreshed().interruptions}
    _known("region", region, {place for _, place in held})
    _known("type", instance_type, {name for name, place in held if place == region})
    return held[instance_type, region]


def interruptions() -> list[Interruption]:
    """Every band that is held, by region and type."""
    held = {**_packaged().interruptions, **refreshed().interruptions}
    return sorted(held.values(), key=lambda row: (row.region, row.instance_type))


def _known(what: str, given: str | None, allowed: set[str]) -> None:
    if given is not None and given not in allowed:
        raise UserError(
            f"no spot figure is known of {what} {given!r}; known are {', '.join(sorted(allowed)) or 'none'}; "
            "give one of these or run `smml prices refresh`."
        )
