"""Look up limits of services, statements about software, and what the CPUs of EC2 instances reach; each with source and date.

The facts stand in limits.toml, with the rules that this loader checks.
"""

import datetime
import tomllib
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from smml.data.packaged import text_of
from smml.data.schema import Quantity, Source, Text
from smml.errors import UserError

LIMITS_FILE = "limits.toml"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fact(_Row):
    """A statement that is no number, where it was read, and the day for which it was read there."""

    says: Text
    source: Text
    url: str
    date: datetime.date
    checked: bool


class Processor(_Row):
    """What one vCPU of an instance family reaches at most: FLOP/s in fp32 and its share of the socket's bytes/s."""

    processor: Text
    architecture: Literal["x86", "arm"]
    peak_flops: Quantity
    bandwidth: Quantity


class Limits(_Row):
    """Everything that limits.toml holds."""

    limits: dict[str, Quantity]
    facts: dict[str, Fact]
    baselines: dict[str, Quantity]
    cpus: dict[str, Processor]


def read_limits(text: str, file: str = LIMITS_FILE) -> Limits:
    """Parse and check a TOML text. Raises UserError naming `file` and row."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not TOML: {error}; correct that line.") from error
    row = "sources"
    try:
        sources = {key: Source.model_validate(value) for key, value in content["sources"].items()}

        def cited(key: str) -> dict[str, Any]:
            origin = sources[key]
            return {
                "source": origin.title,
                "url": origin.url,
                "date": origin.date,
                "checked": origin.checked,
            }

        def quantity(value: Any, unit: str, source: str) -> Quantity:
            if isinstance(value, dict):
                value, source = value["value"], value["source"]
            # TOML tells 80 from 80.0; true and "80" are mistakes, which Quantity rejects.
            value = float(value) if type(value) is int else value
            return Quantity(value=value, unit=unit, **cited(source))

        limits, facts, baselines, cpus = {}, {}, {}, {}
        for row, entry in content["limits"].items():
            limits[row] = quantity(entry["value"], entry["unit"], entry["source"])
        for row, entry in content["facts"].items():
            facts[row] = Fact(says=entry["says"], **cited(entry["source"]))
        for row, entry in content["baselines"].items():
            for size, share in entry["sizes"].items():
                baselines[f"{row}.{size}"] = quantity(share, "share of a vCPU", entry["source"])
        for row, entry in content["cpus"].items():
            fields = dict(entry)
            source = fields.pop("source")
            fields["peak_flops"] = quantity(fields["peak_flops"], "FLOP/s per vCPU", source)
            fields["bandwidth"] = quantity(fields["bandwidth"], "B/s per vCPU", source)
            cpus[row] = Processor(**fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        else:
            reason = f"missing {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{file}, row {row}: {reason}. Correct it there.") from error
    return Limits(limits=limits, facts=facts, baselines=baselines, cpus=cpus)


@lru_cache
def _packaged() -> Limits:
    return read_limits(text_of(LIMITS_FILE))


def limit(name: str) -> Quantity:
    """The figure of that name, such as "lambda_timeout"; raises UserError that lists the names."""
    return _named(_packaged().limits, name)


def fact(name: str) -> Fact:
    """The statement of that name, such as "neuron_static_shapes"; raises UserError that lists the names."""
    return _named(_packaged().facts, name)


def burst_baseline(instance: str) -> Quantity | None:
    """Share of each vCPU that a burstable instance type may use on average without surcharge; None if not burstable."""
    return _packaged().baselines.get(instance)


def processor(family: str) -> Processor | None:
    """The CPU of an instance family such as "c5"; None where no figures are held, measure there."""
    return _packaged().cpus.get(family)


def _named(table: dict[str, Any], name: str) -> Any:
    if name not in table:
        raise UserError(
            f"{LIMITS_FILE} holds no {name!r}; it holds {', '.join(table)}; give one of these."
        )
    return table[name]
