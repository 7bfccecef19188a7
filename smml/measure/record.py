"""A record: one measured quantity, its spread, its prediction and the hardware it came from, as one JSON file."""

import json
import re
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from smml import atomic, paths
from smml.errors import UserError
from smml.measure.timer import MIN_SAMPLES, Timing

SCHEMA = 1


class MachineId(BaseModel):
    """Which hardware: its fingerprint (a slug) and its name as people say it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    fingerprint: str
    device: str


class Record(BaseModel):
    """One quantity. `value` is the median; p20 and p80 are quantiles of the value itself (p20 ≤ value ≤ p80)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = Field(default=SCHEMA, alias="schema")
    name: str
    unit: str
    better: Literal["higher", "lower"]
    value: float = Field(gt=0, allow_inf_nan=False)
    p20: float = Field(gt=0, allow_inf_nan=False)
    p80: float = Field(gt=0, allow_inf_nan=False)
    n: int = Field(ge=MIN_SAMPLES)
    inputs: dict[str, Any] = {}
    flops: float | None = None
    bytes: float | None = None
    flop_convention: str = "2 FLOPs a multiply-add"
    predicted: float | None = Field(default=None, gt=0)
    share_of_measured: float | None = Field(default=None, gt=0)
    share_of_physical: float | None = Field(default=None, gt=0)
    band: float | None = Field(default=None, gt=0)
    machine: MachineId
    environment: dict[str, Any] = {}
    commit: str | None = None
    date: datetime
    source: str

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.p20 <= self.value <= self.p80:
            raise ValueError(f"p20 {self.p20} ≤ value {self.value} ≤ p80 {self.p80} does not hold")
        return self

    @property
    def p50(self) -> float:
        """The median, in `unit`."""
        return self.value

    @property
    def error(self) -> float | None:
        """|measured − predicted| time ÷ measured time, dimensionless; None without a prediction."""
        if self.predicted is None:
            return None
        # Rates are turned into times, so that a kernel that takes twice its prediction is 50 % off in any unit.
        ratio = self.predicted / self.value if self.unit == "s" else self.value / self.predicted
        return abs(1 - ratio)

    def to_json(self) -> str:
        """The record as indented JSON text with a fixed key order."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1) + "\n"

    def save(self, folder: Path | None = None) -> Path:
        """Write `<folder>/<name as a slug>.json` atomically; `folder` defaults to records/<source> of this run."""
        folder = folder or paths.records() / slug(self.source)
        return atomic.write_text(folder / f"{slug(self.name)}.json", self.to_json())

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Read one record; UserError names the file and the field of anything that is not a record."""
        try:
            return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"cannot read record {path}: {error.strerror}.") from error
        except (ValidationError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path} is not a record: {_first_problem(error)}. Delete it, or restore it with git checkout."
            ) from error


def record(
    name: str,
    timing: Timing,
    *,
    machine: MachineId,
    source: str,
    unit: str = "s",
    amount: float = 1.0,
    predicted_s: float | None = None,
    measured_ceiling: float | None = None,
    physical_ceiling: float | None = None,
    **fields: Any,
) -> Record:
    """A record from a timing: seconds for unit "s", else the rate amount / seconds (unit such as "FLOP/s").

    `amount` is the FLOPs or bytes of one call; ceilings are rates in the same unit; `fields` fill the rest of
    the record (inputs, flops, bytes, environment, band, …).
    """
    if unit == "s":
        value, low, high = timing.p50, timing.p20, timing.p80
        predicted = predicted_s
    else:
        value, low, high = (amount / t for t in (timing.p50, timing.p80, timing.p20))
        predicted = amount / predicted_s if predicted_s else None
    return Record(
        name=name,
        unit=unit,
        better="lower" if unit == "s" else "higher",
        value=value,
        p20=low,
        p80=high,
        n=timing.n,
        predicted=predicted,
        share_of_measured=value / measured_ceiling if measured_ceiling else None,
        share_of_physical=value / physical_ceiling if physical_ceiling else None,
        machine=machine,
        source=source,
        commit=git_commit(),
        date=datetime.now(UTC).replace(microsecond=0),
        **fields,
    )


def load_folder(folder: Path) -> list[Record]:
    """Every record under `folder`, by path; UserError names the first file that is not one."""
    return [Record.load(path) for path in sorted(Path(folder).rglob("*.json"))]


def slug(text: str) -> str:
    """`text` as a file name: letters, digits, dots and dashes only, slashes kept as folders."""
    return "/".join(
        re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-.") for part in text.split("/") if part
    )


@lru_cache
def git_commit() -> str | None:
    """Commit of the checkout, with "+" when it holds uncommitted changes; None where git or the history is absent."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=paths.checkout(),
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def _first_problem(error: ValidationError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    problem = error.errors()[0]
    where = ".".join(map(str, problem["loc"]))
    return f"{where + ': ' if where else ''}{problem['msg']}"
