"""Writes refreshed prices as the TOML that the look-ups of smml.data read: sources, then what each of them says."""

import datetime
from collections import defaultdict
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

from smml.atomic import write_text
from smml.data.prices import PriceRow, read_prices
from smml.data.schema import Quantity
from smml.data.spot_history import SpotPrice, read_spot


def write_prices(path: Path, rows: Iterable[PriceRow]) -> Path:
    """The rows as a prices.toml, whole or not at all; what was written can be read back. Raises UserError otherwise."""
    rows = sorted(rows, key=lambda row: row.key)
    keys, parts = _sources(row.price for row in rows)
    tables: dict[Hashable, list[PriceRow]] = defaultdict(list)
    for row in rows:
        tables[row.region, row.kind, row.price.unit, keys[_origin(row.price)]].append(row)
    for (region, kind, unit, source), members in tables.items():
        lines = [
            "[[tables]]",
            f"region = {_text(region)}",
            f"kind = {_text(kind)}",
            f"unit = {_text(unit)}",
            f"source = {_text(source)}",
            "[tables.prices]",
        ]
        lines += [f"{_text(row.item)} = {row.price.value!r}" for row in members]
        parts.append("\n".join(lines))
    text = "\n\n".join(["# Written by `smml prices refresh`.", *parts]) + "\n"
    read_prices(text, str(path))
    return write_text(path, text)


def write_spot(path: Path, rows: Iterable[SpotPrice]) -> Path:
    """The rows as a spot_history.toml, whole or not at all; what was written can be read back. Raises UserError otherwise."""
    rows = sorted(rows, key=lambda row: (row.instance_type, row.region, row.at, row.zone_id))
    keys, parts = _sources(row.price for row in rows)
    samples: dict[Hashable, list[SpotPrice]] = defaultdict(list)
    for row in rows:
        samples[row.instance_type, row.region, row.at, keys[_origin(row.price)]].append(row)
    for (name, region, at, source), members in samples.items():
        prices = ", ".join(f"{_text(row.zone_id)} = {row.price.value!r}" for row in members)
        lines = [
            "[[samples]]",
            f"instance_type = {_text(name)}",
            f"region = {_text(region)}",
            f"at = {at.astimezone(datetime.UTC).isoformat()}",
            f"source = {_text(source)}",
            f"prices = {{ {prices} }}",
        ]
        parts.append("\n".join(lines))
    text = "\n\n".join(["# Written by `smml prices refresh`.", *parts]) + "\n"
    read_spot(text, str(path))
    return write_text(path, text)


def _origin(price: Quantity) -> tuple[Any, ...]:
    return price.source, price.url, price.date, price.checked


def _sources(prices: Iterable[Quantity]) -> tuple[dict[tuple[Any, ...], str], list[str]]:
    keys = {
        origin: f"source_{number}"
        for number, origin in enumerate(sorted({_origin(price) for price in prices}), 1)
    }
    parts = [
        f"[sources.{key}]\ntitle = {_text(title)}\nurl = {_text(url)}\ndate = {date}\nchecked = {str(checked).lower()}"
        for (title, url, date, checked), key in keys.items()
    ]
    return keys, parts or ["[sources]"]


def _text(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
