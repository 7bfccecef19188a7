"""What a decision is: the choice, the sentences that explain it, what was rejected and why, the price."""

from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

Choice = TypeVar("Choice")
# 365 × 24 ÷ 12, the month that AWS's calculators count with.
HOURS_PER_MONTH = 730.0


@dataclass(frozen=True)
class Price:
    """USD for one job or for one month."""

    usd: float
    per: Literal["job", "month"]

    def __str__(self) -> str:
        return f"{dollars(self.usd)} a {self.per}"


@dataclass(frozen=True)
class Rejected:
    """An option that was not chosen; `feasible` says that it would do, at a higher price."""

    option: str
    why: str
    feasible: bool = False


@dataclass(frozen=True)
class Decision(Generic[Choice]):
    """A choice with its reasons. `choice` is None where nothing will do: the reasons then say what stands in the way."""

    choice: Choice | None
    reasons: list[str]
    rejected: list[Rejected] = field(default_factory=list)
    price: Price | None = None

    def why_not(self, option: str) -> str:
        """Why `option` (a family, an instance type, a service) was rejected; empty where it was not considered."""
        return " ".join(entry.why for entry in self.rejected if entry.option == option)

    def explain(self) -> str:
        """The whole decision as text: choice, price, reasons, rejected options, a line each."""
        lines = [f"choice: {'none' if self.choice is None else self.choice}"]
        if self.price is not None:
            lines.append(f"price: {self.price}")
        lines += [f"- {reason}" for reason in self.reasons]
        lines += [f"- not {entry.option}: {entry.why}" for entry in self.rejected]
        return "\n".join(lines)


def dollars(usd: float) -> str:
    """An amount with two decimals, with three significant digits below a dollar, or with thousands separated."""
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.3g}"


def hourly(usd: float) -> str:
    """A price per hour as the price list prints it, with up to four decimals."""
    whole, decimals = f"{usd:,.4f}".split(".")
    return f"${whole}.{decimals.rstrip('0').ljust(2, '0')}/h"


def amount(value: float, unit: str) -> str:
    """A quantity with an SI prefix and three digits: 8.03e9, "B" gives "8.03 GB"."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def seconds(value: float) -> str:
    """A duration in the unit that suits it: µs, ms, s, minutes or hours."""
    for below, factor, unit in (
        (1e-3, 1e6, "µs"),
        (1, 1e3, "ms"),
        (120, 1, "s"),
        (7200, 1 / 60, "min"),
    ):
        if value < below:
            return f"{value * factor:.3g} {unit}"
    return f"{value / 3600:,.1f} h"


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 device", "8 devices"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
