"""Look up what AWS asks: USD an hour, a GB, a request, by item, region and kind; each price with source and date.

The figures stand in prices.toml; EC2 types in their region of instances.toml and what limits.toml holds are taken from
there. A snapshot that the reader refreshed (in the cache folder) goes before a packaged figure of an earlier date.
"""

import tomllib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smml import paths
from smml.data.catalogue import instances
from smml.data.limits import limit
from smml.data.packaged import text_of
from smml.data.schema import Quantity, Source, Text
from smml.errors import UserError

PRICES_FILE = "prices.toml"
KINDS = (
    "on-demand",
    "spot",
    "capacity-block",
    "savings-plan-compute-1y",
    "savings-plan-compute-3y",
    "savings-plan-instance-1y",
    "savings-plan-instance-3y",
    "savings-plan-sagemaker-1y",
    "savings-plan-sagemaker-3y",
    "reserved-1y",
    "reserved-3y",
)
UNITS = (
    "USD/h",
    "USD/GB-month",
    "USD/GB",
    "USD/GB-s",
    "USD/request",
    "USD/vCPU-h",
    "USD/GB-h",
    "USD/IOPS-month",
    "USD/MBps-month",
    "USD/object-month",
    "USD/metric-month",
    "USD/alarm-month",
    "USD/month",
)
_INSTANCE_KINDS = {"on-demand": "on-demand", "capacity block": "capacity-block"}
_ORIGINS = Literal["prices.toml", "instances.toml", "limits.toml", "refreshed snapshot"]


class PriceRow(BaseModel):
    """One price: what (EC2 type or service/class/measure), where, under which offer, how much, and which file said so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.\-/]*$")]
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]
    kind: Literal[KINDS]
    price: Quantity
    origin: _ORIGINS

    @property
    def key(self) -> tuple[str, str, str]:
        """Item, region and kind, which together name a price."""
        return self.item, self.region, self.kind


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    region: Text
    kind: Text = "on-demand"
    unit: Text
    source: Text | None = None
    prices: Annotated[dict[Text, Any], Field(min_length=1)]


def read_prices(
    text: str, file: str = PRICES_FILE, origin: str = PRICES_FILE
) -> dict[tuple[str, str, str], PriceRow]:
    """Parse and check a TOML text of [sources] and [[tables]]; rows by (item, region, kind).

    Raises UserError naming `file`, the row and the field: negative or missing price, another currency, a price twice.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not TOML: {error}; correct that line.") from error
    found: dict[tuple[str, str, str], PriceRow] = {}
    row = "sources"
    try:
        sources = {key: Source.model_validate(value) for key, value in content["sources"].items()}
        for number, raw in enumerate(content["tables"], 1):
            row = f"table {number}"
            table = _Table.model_validate(raw)
            for item, value in table.prices.items():
                row = f"{item} in {table.region}, {table.kind}"
                entry = _row(item, value, table, sources, origin)
                if entry.key in found:
                    raise ValueError("stands twice")
                found[entry.key] = entry
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file}, row {row}: {_reason(error)}. Correct it there.") from error
    return found


def _row(item: str, value: Any, table: _Table, sources: dict[str, Source], origin: str) -> PriceRow:
    if table.unit not in UNITS:
        currency = table.unit.split("/")[0]
        if currency != "USD":
            raise ValueError(f"unit: {table.unit!r} is in {currency}; every price is in USD")
        raise ValueError(f"unit: {table.unit!r}; allowed are {', '.join(UNITS)}")
    if isinstance(value, dict) and set(value) == {"limit"}:
        # limits.toml holds this figure already; a fact stands once.
        held = limit(value["limit"])
        price = held.model_copy(update={"unit": table.unit})
        origin = "limits.toml"
    else:
        source = table.source
        if isinstance(value, dict):
            value, source = value["value"], value["source"]
        if source not in sources:
            raise ValueError(f"source: {source!r} is not among [sources]")
        cited = sources[source]
        value = float(value) if type(value) is int else value
        price = Quantity(
            value=value,
            unit=table.unit,
            source=cited.title,
            url=cited.url,
            date=cited.date,
            checked=cited.checked,
        )
    return PriceRow(item=item, region=table.region, kind=table.kind, price=price, origin=origin)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])).replace("value", "price")
        given = "" if first["type"] == "missing" else f"{first['input']!r}: "
        return f"{where}: {given}{first['msg']}"
    return f"missing {error}" if isinstance(error, KeyError) else str(error)


@lru_cache
def packaged() -> dict[tuple[str, str, str], PriceRow]:
    """What the package knows: prices.toml, and instances.toml for its own region. Raises UserError on a corrupt file."""
    text = text_of(PRICES_FILE)
    found = read_prices(text)
    for name, entry in instances().items():
        if entry.price_usd_per_hour is not None:
            row = PriceRow(
                item=name,
                region=entry.region,
                kind=_INSTANCE_KINDS[entry.price_kind],
                price=entry.price_usd_per_hour,
                origin="instances.toml",
            )
            if row.key in found:
                raise UserError(
                    f"{PRICES_FILE}, row {name} in {row.region}: instances.toml holds that price; remove it there."
                )
            found[row.key] = row
    return found


def snapshot_file() -> Path:
    """Where `smml prices refresh` writes and this look-up reads: prices.toml in the per-user cache folder."""
    return paths.cache() / PRICES_FILE


@lru_cache(maxsize=4)
def _snapshot(path: Path, changed_ns: int) -> dict[tuple[str, str, str], PriceRow]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; remove it or refresh it.") from error
    return read_prices(text, str(path), "refreshed snapshot")


def snapshot() -> dict[tuple[str, str, str], PriceRow]:
    """What the reader refreshed; empty if nothing. Raises UserError when the file is corrupt."""
    path = snapshot_file()
    return _snapshot(path, path.stat().st_mtime_ns) if path.is_file() else {}


def table() -> dict[tuple[str, str, str], PriceRow]:
    """Every price by (item, region, kind): the refreshed one where its date is not before the packaged one's."""
    found = dict(packaged())
    for key, row in snapshot().items():
        if key not in found or row.price.date >= found[key].price.date:
            found[key] = row
    return found


def price(item: str, region: str = "us-east-1", kind: str = "on-demand") -> Quantity:
    """The price of `item` ("g5.xlarge", "s3/standard/storage") in its unit; its `source` says where it was read.

    Raises UserError that names what is known where item, region, kind or the three together are not.
    """
    held = table()
    if (item, region, kind) in held:
        return held[item, region, kind].price
    _known("kind", kind, KINDS)
    _known("region", region, regions())
    _known("item", item, {row.item for row in held.values()})
    offers = sorted(f"{row.kind} in {row.region}" for row in held.values() if row.item == item)
    raise UserError(
        f"no {kind} price of {item} in {region} was found in any source; known are {', '.join(offers)}; "
        "take one of these or run `smml prices refresh`."
    )


def prices(
    item: str | None = None, region: str | None = None, kind: str | None = None
) -> list[PriceRow]:
    """The rows that agree with what is given, by item, region and kind; empty if no such row has a source.

    An `item` that ends in "/" stands for all that begin so ("s3/"). Raises UserError for an unknown item, region or kind.
    """
    held = table().values()
    if item is not None and not item.endswith("/"):
        _known("item", item, {row.item for row in held})
    if region is not None:
        _known("region", region, regions())
    if kind is not None:
        _known("kind", kind, KINDS)
    found = [
        row
        for row in held
        if (item is None or row.item == item or (item.endswith("/") and row.item.startswith(item)))
        and region in (None, row.region)
        and kind in (None, row.kind)
    ]
    return sorted(found, key=lambda row: row.key)


def regions(item: str | None = None) -> list[str]:
    """Regions with at least one price (of `item`), in alphabetical order."""
    return sorted({row.region for row in table().values() if item in (None, row.item)})


def _known(what: str, given: str, allowed: Iterable[str]) -> None:
    names = sorted(allowed)
    if given not in names:
        shown = _nearest(given, names) if what == "item" else names
        raise UserError(
            f"no price is known of {what} {given!r}; known are {', '.join(shown)}; give one of these."
        )


def _nearest(given: str, names: list[str]) -> list[str]:
    from difflib import get_close_matches

    head = given.replace(".", "/").split("/")[0]
    family = [name for name in names if name.replace(".", "/").split("/")[0] == head]
    return family or get_close_matches(given, names, n=12, cutoff=0.3) or names[:12]
