"""The planner's constants: each stands once, in smml/data/plan_constants.toml, with unit, range, reason and origin."""

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from smml.errors import UserError

FILE = "plan_constants.toml"


@dataclass(frozen=True)
class Constant:
    """A figure, the range that physics or published measurements allow it, why it is there and what fixed it."""

    value: float
    unit: str
    low: float
    high: float
    why: str
    fixed_by: str


def read_constants(text: str, file: str = FILE) -> dict[str, Constant]:
    """Parse and check a TOML text. Raises UserError naming file, row and field."""
    try:
        rows = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not TOML: {error}; correct that line.") from error
    found = {}
    for name, row in rows.items():
        fields = {"value": float, "unit": str, "low": float, "high": float}
        for field, kind in (fields | {"why": str, "fixed_by": str}).items():
            value = row.get(field) if isinstance(row, dict) else None
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise UserError(
                    f"{file}, row {name}, field {field}: {value!r}; a {kind.__name__} is needed. Correct it there."
                )
        constant = Constant(**row)
        if not constant.low <= constant.value <= constant.high:
            raise UserError(
                f"{file}, row {name}, field value: {constant.value} is outside {constant.low}…{constant.high}, "
                "what its reason allows. Correct one of them there."
            )
        found[name] = constant
    return found


@lru_cache
def constants() -> dict[str, Constant]:
    """All constants by name. Raises UserError when the file is corrupt."""
    try:
        text = resources.files("smml.data").joinpath(FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read {FILE} of smml.data: {error}; install the package again."
        ) from error
    return read_constants(text)


def constant(name: str) -> float:
    """The value of that name, such as "memory_bandwidth_share"; raises UserError that lists the names."""
    known = constants()
    if name not in known:
        raise UserError(
            f"{FILE} holds no {name!r}; it holds {', '.join(known)}; give one of these."
        )
    return known[name].value


def constant_of(name: str, variant: str) -> float:
    """`name.variant` where that stands, such as one architecture's, else `name` itself."""
    known = constants()
    return (known.get(f"{name}_{variant.lower()}") or known[name]).value
