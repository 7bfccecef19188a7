"""Look up the terms under which EC2 capacity is bought: durations, payment, where Capacity Blocks are sold.

The facts stand in purchase_terms.toml, each with source and date.
"""

import datetime
import tomllib
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smml.data.limits import Fact
from smml.data.packaged import text_of
from smml.data.schema import Quantity, Source, Text
from smml.errors import UserError

TERMS_FILE = "purchase_terms.toml"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BlockOffer(_Row):
    """Regions that sell Capacity Blocks of one EC2 type, and where that was read."""

    regions: Annotated[
        list[Annotated[str, Field(pattern=r"^[a-z]{2}-[a-z]+-\d$")]], Field(min_length=1)
    ]
    source: Text
    url: str
    date: datetime.date
    checked: bool


class Terms(_Row):
    """Everything that purchase_terms.toml holds."""

    figures: dict[str, Quantity]
    facts: dict[str, Fact]
    capacity_blocks: dict[str, BlockOffer]


def read_terms(text: str, file: str = TERMS_FILE) -> Terms:
    """Parse and check a TOML text. Raises UserError naming `file` and row."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not TOML: {error}; correct that line.") from error
    row = "sources"
    found: dict[str, dict[str, Any]] = {"figures": {}, "facts": {}, "capacity_blocks": {}}
    try:
        sources = {key: Source.model_validate(raw) for key, raw in content["sources"].items()}
        for table, kind in (
            ("figures", Quantity),
            ("facts", Fact),
            ("capacity_blocks", BlockOffer),
        ):
            row = table
            for row, raw in content[table].items():
                fields = dict(raw)
                cited = sources[fields.pop("source")]
                if type(fields.get("value")) is int:
                    fields["value"] = float(fields["value"])
                found[table][row] = kind(
                    **fields,
                    source=cited.title,
                    url=cited.url,
                    date=cited.date,
                    checked=cited.checked,
                )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file}, row {row}: {reason(error)}. Correct it there.") from error
    return Terms(**found)


def reason(error: Exception) -> str:
    """What is wrong with a row, in words that name the field."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"missing {error}" if isinstance(error, KeyError) else str(error)


@lru_cache
def terms() -> Terms:
    """All terms. Raises UserError when the file is corrupt."""
    return read_terms(text_of(TERMS_FILE))


def term(name: str) -> Quantity:
    """The figure of that name, such as "capacity_block_longest"; raises UserError that lists the names."""
    figures = terms().figures
    if name not in figures:
        raise UserError(
            f"{TERMS_FILE} holds no {name!r}; it holds {', '.join(figures)}; give one of these."
        )
    return figures[name]


def rule(name: str) -> Fact:
    """The statement of that name, such as "commitment_kept"; raises UserError that lists the names."""
    facts = terms().facts
    if name not in facts:
        raise UserError(
            f"{TERMS_FILE} holds no {name!r}; it holds {', '.join(facts)}; give one of these."
        )
    return facts[name]


def block_offer(instance: str) -> BlockOffer | None:
    """Where Capacity Blocks of that EC2 type are sold; None for a type that has none."""
    return terms().capacity_blocks.get(instance)
