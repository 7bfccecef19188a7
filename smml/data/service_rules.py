"""Look up the rules by which AWS services bill, store and scale; each with source and date.

The facts stand in service_rules.toml, with the rules that this loader checks.
"""

import tomllib
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smml.data.limits import Fact
from smml.data.packaged import text_of
from smml.data.schema import Quantity, Source
from smml.errors import UserError

RULES_FILE = "service_rules.toml"


class FargateSize(BaseModel):
    """One task size that Fargate takes, in vCPU and GiB."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    vcpu: Annotated[float, Field(gt=0)]
    memory_gib: Annotated[float, Field(gt=0)]


class ServiceRules(BaseModel):
    """Everything that service_rules.toml holds; `fargate_sizes` are sorted, smallest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rules: dict[str, Quantity]
    facts: dict[str, Fact]
    fargate_sizes: tuple[FargateSize, ...]
    fargate_source: Source


def read_service_rules(text: str, file: str = RULES_FILE) -> ServiceRules:
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

        rules, facts = {}, {}
        for row, entry in content["rules"].items():
            value = entry["value"]
            # TOML tells 30 from 30.0; true and "30" are mistakes, which Quantity rejects.
            value = float(value) if type(value) is int else value
            rules[row] = Quantity(value=value, unit=entry["unit"], **cited(entry["source"]))
        for row, entry in content["facts"].items():
            facts[row] = Fact(says=entry["says"], **cited(entry["source"]))
        row = "fargate"
        sizes = [
            FargateSize(vcpu=entry["vcpu"], memory_gib=memory)
            for entry in content["fargate"]["sizes"]
            for memory in _memories(entry)
        ]
        sizes.sort(key=lambda size: (size.vcpu, size.memory_gib))
        return ServiceRules(
            rules=rules,
            facts=facts,
            fargate_sizes=tuple(sizes),
            fargate_source=sources[content["fargate"]["source"]],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        else:
            reason = f"missing {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{file}, row {row}: {reason}. Correct it there.") from error


@lru_cache
def service_rules() -> ServiceRules:
    """The packaged rules. Raises UserError when the file is corrupt."""
    return read_service_rules(text_of(RULES_FILE))


def rule(name: str) -> Quantity:
    """The figure of that name, such as "scaling_cooldown"; raises UserError that lists the names."""
    return _named(service_rules().rules, name)


def service_fact(name: str) -> Fact:
    """The statement of that name, such as "from_zero"; raises UserError that lists the names."""
    return _named(service_rules().facts, name)


def fargate_size(vcpu: float, memory_gib: float) -> FargateSize | None:
    """The smallest task of Fargate with at least so many vCPU and GiB; None where it has none."""
    fitting = (
        size
        for size in service_rules().fargate_sizes
        if size.vcpu >= vcpu and size.memory_gib >= memory_gib
    )
    return next(fitting, None)


def _memories(entry: dict[str, Any]) -> list[float]:
    if "memory" in entry:
        return list(entry["memory"])
    steps = round((entry["most"] - entry["least"]) / entry["step"])
    return [entry["least"] + number * entry["step"] for number in range(steps + 1)]


def _named(table: dict[str, Any], name: str) -> Any:
    if name not in table:
        raise UserError(f"no rule {name!r}; there are: {', '.join(sorted(table))}.")
    return table[name]
