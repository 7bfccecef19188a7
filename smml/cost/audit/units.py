"""Numbers with units: what may be added, what a product is measured in, and how both are printed."""

import math
from dataclasses import dataclass
from functools import lru_cache

from smml.cost.decisions.decision import HOURS_PER_MONTH
from smml.errors import UserError

_HOUR = 3600.0
CURRENCIES = ("USD", "EUR", "GBP", "CHF", "JPY", "CNY", "INR")
_DECIMAL = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
_COUNTED = ("token", "request", "parameter")
# Unit: its dimension, and how many of the dimension's base unit it is.
UNITS: dict[str, tuple[str, float]] = {
    **{name: (name, 1.0) for name in CURRENCIES},
    "s": ("time", 1.0),
    "ms": ("time", 1e-3),
    "min": ("time", 60.0),
    "h": ("time", _HOUR),
    "day": ("time", 24 * _HOUR),
    "week": ("time", 7 * 24 * _HOUR),
    "month": ("time", HOURS_PER_MONTH * _HOUR),
    "year": ("time", 12 * HOURS_PER_MONTH * _HOUR),
    "B": ("bytes", 1.0),
    **{f"{prefix}B": ("bytes", factor) for prefix, factor in (_DECIMAL | _BINARY).items()},
    "FLOP": ("FLOP", 1.0),
    **{f"{prefix}FLOP": ("FLOP", factor) for prefix, factor in _DECIMAL.items()},
    **{name: (name, 1.0) for name in _COUNTED},
    **{f"{prefix}{name}": (name, f) for name in _COUNTED for prefix, f in _DECIMAL.items()},
    "vCPU": ("vCPU", 1.0),
}
_PLURALS = {
    f"{name}s": name
    for name, (dimension, _) in UNITS.items()
    if dimension in _COUNTED or name in ("day", "week", "month", "year")
} | {"hour": "h", "hours": "h"}
NAMES = (*UNITS, *_PLURALS)
_PURE = {"": 1.0, "1": 1.0, "%": 0.01}
Powers = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Amount:
    """A number and its units with their powers, one unit a dimension: (("USD", 1), ("month", -1))."""

    value: float
    units: Powers = ()

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.value + other.converted(self, "added to"), self.units)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.value - other.converted(self, "subtracted from"), self.units)

    def __mul__(self, other: "Amount") -> "Amount":
        value, powers = self.value * other.value, dict(self.units)
        for name, power in other.units:
            mine = next((held for held in powers if _dimension(held) == _dimension(name)), name)
            value *= (UNITS[name][1] / UNITS[mine][1]) ** power
            powers[mine] = powers.get(mine, 0) + power
        return Amount(value, tuple((name, power) for name, power in powers.items() if power))

    def __truediv__(self, other: "Amount") -> "Amount":
        return self * Amount(1 / other.value, tuple((n, -p) for n, p in other.units))

    def __str__(self) -> str:
        unit = unit_text(self.units)
        return f"{number(self.value)} {unit}".strip()

    def converted(self, like: "Amount", how: str) -> float:
        """This value in the units of `like`; UserError naming both units where the dimensions differ."""
        if _dimensions(self.units) != _dimensions(like.units):
            ours, theirs = (unit_text(one.units) or "1 (no unit)" for one in (self, like))
            if {ours, theirs} <= set(CURRENCIES):
                raise UserError(
                    f"mixed currencies: {ours} cannot be {how} {theirs}; convert one of them by a claim of unit "
                    f"{theirs}/{ours} that has a date"
                )
            raise UserError(
                f"{ours} cannot be {how} {theirs}; multiply or divide by what is missing"
            )
        mine = {_dimension(name): (name, power) for name, power in self.units}
        factor = 1.0
        for name, power in like.units:
            factor *= (UNITS[mine[_dimension(name)][0]][1] / UNITS[name][1]) ** power
        return self.value * factor

    def to(self, unit: str) -> float:
        """The value in `unit` ("USD/month", "%", "1"); UserError naming both where the dimensions differ."""
        factor, powers = parse_unit(unit)
        return self.converted(Amount(1.0, powers), "read as") / factor


def amount_of(value: float, unit: str) -> Amount:
    """`value` in `unit`; raises UserError for a unit that is not known."""
    factor, powers = parse_unit(unit)
    return Amount(value * factor, powers)


@lru_cache(maxsize=256)
def parse_unit(unit: str) -> tuple[float, Powers]:
    """Factor and powers of a unit such as "USD/month", "USD/GB-month", "1/month", "%" or "1".

    Raises UserError that lists the units.
    """
    if len(unit) > 64:
        raise UserError(f"unit has {len(unit)} characters: at most 64 are read")
    factor, found = 1.0, Amount(1.0)
    for place, part in enumerate(unit.strip().split("/")):
        for name in (
            piece.strip() for piece in part.replace("·", "-").replace("*", "-").split("-")
        ):
            if name in _PURE and (place == 0 or name):
                factor *= _PURE[name] ** (1 if place == 0 else -1)
                continue
            name = _PLURALS.get(name, name)
            if name not in UNITS:
                raise UserError(
                    f"unit is {unit!r}: {name!r} is not known; allowed are 1, %, {', '.join(UNITS)}, and their "
                    "products (GB-month) and quotients (USD/month)"
                )
            found = found * Amount(1.0, ((name, 1 if place == 0 else -1),))
    # Two units of one dimension in one text (GiB/GB) leave a factor behind.
    return factor * found.value, found.units


def unit_named(name: str) -> Amount:
    """One of the unit of that name in NAMES, for use in a formula: `36 * month`."""
    return Amount(1.0, ((_PLURALS.get(name, name), 1),))


def unit_text(powers: Powers) -> str:
    """Units as text: USD/month; empty for a pure number."""
    over = "·".join(_power(name, power) for name, power in powers if power > 0)
    under = "/".join(_power(name, -power) for name, power in powers if power < 0)
    return (over or ("1" if under else "")) + (f"/{under}" if under else "")


def number(value: float) -> str:
    """Thousands separated, cents below a thousand, three digits where it is small or very large."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 1e9:
        for factor, prefix in ((1e15, "e15"), (1e12, "e12"), (1e9, "e9")):
            if abs(value) >= factor:
                return f"{value / factor:,.4g}{prefix}"
    if abs(value) >= 1000 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3g}"


def _power(name: str, power: int) -> str:
    return name if power == 1 else f"{name}^{power}"


def _dimension(name: str) -> str:
    return UNITS[name][0]


def _dimensions(powers: Powers) -> dict[str, int]:
    return {_dimension(name): power for name, power in powers}
