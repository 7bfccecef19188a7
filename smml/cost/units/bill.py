"""A bill: named parts in USD that add up to it, so that nothing is paid twice and nothing is left out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from smml.data import Quantity
from smml.errors import UserError


@dataclass(frozen=True)
class Bill:
    """USD by part, each 0 or more, of one hour, one run or one month. Raises UserError naming the part."""

    parts: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, usd in self.parts.items():
            if not (usd >= 0 and math.isfinite(usd)):
                raise UserError(f"the part {name!r} of a bill is {usd!r} USD; give 0 or more.")

    @property
    def usd(self) -> float:
        """All parts together."""
        return math.fsum(self.parts.values())

    def share(self, part: str) -> float:
        """The part ÷ the whole; raises UserError for a part that the bill does not have, or a bill of nothing."""
        if part not in self.parts:
            raise UserError(f"the bill has no part {part!r}; it has {', '.join(self.parts)}.")
        if not self.usd:
            raise UserError("the bill is 0 USD; no part has a share of it.")
        return self.parts[part] / self.usd

    def per_million(self, tokens: float) -> "Bill":
        """The same bill for a million of the `tokens` that it paid for, part by part; raises UserError."""
        if not (tokens > 0 and math.isfinite(tokens)):
            raise UserError(f"tokens is {tokens!r}; give a number above 0.")
        return Bill({name: usd / tokens * 1e6 for name, usd in self.parts.items()})


def usd(price: Quantity, unit: str, field: str) -> float:
    """The price's figure, if it is in `unit` ("USD/h", "USD/GB-month", …); raises UserError naming `field`.

    Amounts of two currencies do not add up, nor do prices of an hour and of a month.
    """
    if price.unit == unit:
        return price.value
    currency, _, per = price.unit.partition("/")
    wanted, _, of = unit.partition("/")
    if currency != wanted:
        raise UserError(
            f"{field} is in {currency} ({price.value:g} {price.unit}) and the bill in {wanted}; "
            f"convert it at a dated rate and give {unit}."
        )
    raise UserError(
        f"{field} is a price per {per or 'nothing'} ({price.value:g} {price.unit}), not per {of}; give {unit}."
    )
