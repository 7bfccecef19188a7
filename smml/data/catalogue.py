"""Look up what makers state of accelerators and EC2 instances; every figure carries unit, source and date.

The facts stand in accelerators.toml and instances.toml, with the rules that the loader checks.
"""

import datetime
import tomllib
import warnings
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from smml.data.packaged import text_of
from smml.data.schema import Accelerator, Instance, Quantity, Source, dtype_key
from smml.errors import UserError

__all__ = [
    "Accelerator",
    "Instance",
    "Quantity",
    "accelerator",
    "accelerators",
    "age_days",
    "dtype_key",
    "instance",
    "instances",
    "match_accelerator",
    "read_accelerators",
    "read_instances",
]

ACCELERATORS_FILE = "accelerators.toml"
INSTANCES_FILE = "instances.toml"
# The code that reads the figures counts on these units; a file that declares others is rejected.
_FLOP_RATE = {"dense_peak_flops": "FLOP/s", "sparse_peak_flops": "FLOP/s"}
ACCELERATOR_UNITS = {
    "memory": "B",
    "bandwidth": "B/s",
    "interconnect": "B/s",
    "power": "W",
} | _FLOP_RATE
_NETWORK = {"network": "Gbit/s", "network_baseline": "Gbit/s"}
INSTANCE_UNITS = {"memory": "GiB", "local_nvme": "GB", "price": "USD/h"} | _NETWORK
# Drivers report 0.98 to 1.08 of the marketed memory; a MIG slice or another board of the same name lies far outside.
MEMORY_TOLERANCE = 0.15


def read_accelerators(text: str, file: str = ACCELERATORS_FILE) -> dict[str, Accelerator]:
    """Parse and check the accelerators of a TOML text. Raises UserError naming `file`, row and field."""
    document = _Document(text, file, "accelerators", ACCELERATOR_UNITS)
    found: dict[str, Accelerator] = {}
    row_of_name: dict[str, str] = {}
    for key, row in document.rows.items():
        fields = document.table(row, key, "row")
        source = fields.pop("source", None)
        for field in ("memory", "bandwidth", "interconnect", "power"):
            if field in fields:
                fields[field] = document.quantity(key, field, fields[field], source)
        for table in ("dense_peak_flops", "sparse_peak_flops"):
            peaks = document.table(fields.get(table, {}), key, table)
            fields[table] = {
                dtype: document.quantity(key, table, value, source, f"{table}.{dtype}")
                for dtype, value in peaks.items()
            }
        device = document.build(Accelerator, key, {"key": key, **fields})
        for name in map(_normalised, device.match):
            if row_of_name.setdefault(name, key) != key:
                raise document.error(
                    key, "match", f"{name!r} is claimed by row {row_of_name[name]} too"
                )
        found[key] = device
    return found


def read_instances(text: str, file: str = INSTANCES_FILE) -> dict[str, Instance]:
    """Parse and check the EC2 instance types of a TOML text. Raises UserError naming `file`, row and field."""
    document = _Document(text, file, "families", INSTANCE_UNITS)
    found: dict[str, Instance] = {}
    for family, raw in document.rows.items():
        shared = document.table(raw, family, "row")
        sizes = document.table(shared.pop("sizes", None), family, "sizes")
        source, price_source = shared.pop("source", None), shared.pop("price_source", None)
        for size, row in sizes.items():
            name = f"{family}.{size}"
            fields = {"name": name, "family": family, **shared, **document.table(row, name, "row")}
            fields.setdefault("network_baseline", fields.get("network"))
            for field in ("memory", "network", "network_baseline", "local_nvme"):
                if field in fields:
                    fields[field] = document.quantity(name, field, fields[field], source)
            if "price" in fields:
                price = fields.pop("price")
                fields["price_usd_per_hour"] = document.quantity(name, "price", price, price_source)
            if "accelerators" in fields:
                fields["accelerator_count"] = fields.pop("accelerators")
            found[name] = document.build(Instance, name, fields)
    return found


@lru_cache
def accelerators() -> dict[str, Accelerator]:
    """All accelerators by key. Raises UserError when the file is corrupt."""
    return read_accelerators(text_of(ACCELERATORS_FILE))


@lru_cache
def instances() -> dict[str, Instance]:
    """All EC2 instance types by name. Raises UserError when a file is corrupt or names an unknown accelerator."""
    found = read_instances(text_of(INSTANCES_FILE))
    for name, entry in found.items():
        if entry.accelerator is not None and entry.accelerator not in accelerators():
            raise UserError(
                f"{INSTANCES_FILE}, row {name}, field accelerator: {entry.accelerator!r} is not in "
                f"{ACCELERATORS_FILE}; allowed are {', '.join(accelerators())}; correct the key or add that row."
            )
    return found


def accelerator(key: str) -> Accelerator | None:
    """The accelerator of that key, such as "h100-sxm"; None if the catalogue does not hold it."""
    return accelerators().get(key)


def instance(name: str) -> Instance | None:
    """The EC2 instance type of that name, such as "p5.48xlarge"; None if the catalogue does not hold it."""
    return instances().get(name)


def match_accelerator(device_name: str, memory_bytes: int | None = None) -> Accelerator | None:
    """The accelerator whose `match` holds the whole device name as NVML or torch reports it; else None and a warning.

    Case, hyphens and the leading vendor are ignored; nothing else is, for L40 is not L40S and a MIG slice not a GPU.
    `memory_bytes`, where known, must agree with the catalogue's within 15 %.
    """
    name = _normalised(device_name)
    found = next(
        (device for device in accelerators().values() if name in map(_normalised, device.match)),
        None,
    )
    remedy = f"add its name and figures, with their source, to smml/data/{ACCELERATORS_FILE}"
    if found is None:
        warnings.warn(
            f"the catalogue does not hold {device_name!r}, so no peak, no bandwidth limit and no MFU will be shown; {remedy}.",
            stacklevel=2,
        )
        return None
    if memory_bytes is not None and abs(memory_bytes / found.memory.value - 1) > MEMORY_TOLERANCE:
        warnings.warn(
            f"{device_name!r} reports {memory_bytes / 1e9:.1f} GB, the catalogue's {found.name} has "
            f"{found.memory.value / 1e9:.1f} GB (a slice, or another board?), so no peak and no MFU will be shown; {remedy}.",
            stacklevel=2,
        )
        return None
    return found


def age_days(quantity: Quantity, today: datetime.date) -> int:
    """Days from the date for which the figure was read to `today`."""
    return (today - quantity.date).days


def _normalised(device_name: str) -> str:
    words = device_name.casefold().replace("-", " ").split()
    while len(words) > 1 and words[0] in ("nvidia", "tesla", "amd", "aws"):
        words = words[1:]
    return " ".join(words)


class _Document:
    """One TOML file: its sources, the unit of each column, its rows; and errors that say where."""

    def __init__(self, text: str, file: str, rows: str, units: dict[str, str]) -> None:
        self.file = file
        try:
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{file} is not TOML: {error}; correct that line.") from error
        if unknown := set(content) - {"columns", "sources", rows}:
            raise self.error(
                "(file)", sorted(unknown)[0], f"unknown table; allowed are columns, sources, {rows}"
            )
        self.columns = self.table(content.get("columns"), "(file)", "columns")
        for column in self.columns.keys() | units.keys():
            if self.columns.get(column) != units.get(column):
                given, needed = self.columns.get(column), units.get(column, "no such column")
                raise self.error("columns", column, f"{given!r}; needed is {needed!r}")
        self.rows = self.table(content.get(rows), "(file)", rows)
        sources = self.table(content.get("sources"), "(file)", "sources")
        self.sources = {
            key: self.build(Source, f"sources.{key}", value) for key, value in sources.items()
        }

    def error(self, row: str, field: str, reason: str) -> UserError:
        return UserError(f"{self.file}, row {row}, field {field}: {reason}. Correct it there.")

    def table(self, value: Any, row: str, field: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.error(
                row, field, f"{'missing' if value is None else repr(value)}; a table is needed"
            )
        return dict(value)

    def quantity(
        self, row: str, column: str, value: Any, source: Any, field: str | None = None
    ) -> Quantity:
        field = field or column
        if isinstance(value, dict):
            if set(value) != {"value", "source"}:
                raise self.error(
                    row, field, f"{value!r}; a figure or {{ value = …, source = … }} is needed"
                )
            value, source = value["value"], value["source"]
        if not isinstance(source, str) or source not in self.sources:
            raise self.error(row, field, f"source {source!r} is not among [sources]")
        cited = self.sources[source]
        parts = {"url": cited.url, "date": cited.date, "checked": cited.checked}
        # TOML tells 80 from 80.0; to a figure they are the same, while true and "80" are mistakes.
        value = float(value) if type(value) is int else value
        whole = {"value": value, "unit": self.columns[column], "source": cited.title, **parts}
        return self.build(Quantity, row, whole, field)

    def build(self, model: type, row: str, value: Any, field: str | None = None) -> Any:
        try:
            return model.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = field or ".".join(str(part) for part in first["loc"]) or "(row)"
            given = "" if first["type"] in ("missing", "value_error") else f"{first['input']!r}: "
            raise self.error(
                row, where, given + first["msg"].removeprefix("Value error, ")
            ) from error
