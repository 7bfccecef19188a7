"""Checks that a claim may name: each a function with typed arguments, which a case gives as names, formulas or words."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from smml.cost.audit import formula as formulas
from smml.cost.audit.units import Amount, amount_of, parse_unit
from smml.errors import UserError

Verdict = Literal["agrees", "contradicts", "physically impossible", "not checkable"]
WORDS = "words"


class Given(float):
    """An argument in the check's unit, and the text that gave it: a claim's name, where it was one."""

    text: str = ""

    @classmethod
    def of(cls, value: float, text: str) -> "Given":
        """The number with its text."""
        found = cls(value)
        found.text = text
        return found


@dataclass(frozen=True)
class Finding:
    """What one check or formula says of a claim.

    `recomputed` is what the claim should state, in its unit, and where `verdict` is None it alone decides.
    `against` names the claims and facts that it rests on; empty: all that the arguments name.
    """

    verdict: Verdict | None
    arithmetic: str
    recomputed: float | None = None
    against: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """A registered check: the unit of the claim that it judges (None: any), the unit of each argument, or `WORDS`."""

    name: str
    function: Callable[..., Finding]
    claims: str | None
    units: Mapping[str, str]

    @property
    def required(self) -> list[str]:
        """Arguments without a default."""
        known = inspect.signature(self.function).parameters
        return [name for name in self.units if known[name].default is inspect.Parameter.empty]


_CHECKS: dict[str, Check] = {}


def check(
    claims: str | None, **units: str
) -> Callable[[Callable[..., Finding]], Callable[..., Finding]]:
    """Register a function as a check. `units` gives each argument's unit, with [] behind it for a list, or WORDS.

    A function of claims in a unit takes the claimed figure in it as its first argument.
    """

    def register(function: Callable[..., Finding]) -> Callable[..., Finding]:
        _CHECKS[function.__name__] = Check(function.__name__, function, claims, units)
        return function

    return register


def known() -> dict[str, Check]:
    """All checks by name."""
    # The files that hold them register them when they are imported.
    from smml.cost.audit import physics, services, spending  # noqa: F401

    return dict(_CHECKS)


def run(
    name: str,
    given: Mapping[str, Any],
    claimed: Amount | None,
    unit: str,
    values: Mapping[str, Amount],
) -> Finding:
    """Run a check with the arguments of a case; strings are formulas over `values` except where words are wanted.

    `recomputed` of the finding is in the claim's `unit`. Raises UserError naming the argument.
    """
    found = known().get(name)
    if found is None:
        raise UserError(f"check is {name!r}; there are {', '.join(sorted(known()))}")
    if unknown := [key for key in given if key not in found.units]:
        raise UserError(f"check.{name}.{unknown[0]} is unknown; it takes {', '.join(found.units)}")
    if missing := [key for key in found.required if key not in given]:
        raise UserError(f"check.{name}.{missing[0]} is missing; it takes {', '.join(found.units)}")
    used: list[str] = []
    arguments = {}
    for key, value in given.items():
        try:
            arguments[key] = _argument(value, found.units[key], values, used)
        except UserError as error:
            raise UserError(f"check.{name}.{key}: {error}") from error
    first = []
    if found.claims is not None:
        if claimed is None:
            raise UserError(f"check.{name} needs a value in {found.claims}: give value and unit")
        first = [claimed.to(found.claims)]
    finding = found.function(*first, **arguments)
    right = finding.recomputed
    if right is not None and found.claims is not None:
        right = amount_of(right, found.claims).to(unit)
    return replace(finding, recomputed=right, against=finding.against or tuple(used))


def _argument(value: Any, unit: str, values: Mapping[str, Amount], used: list[str]) -> Any:
    if unit == WORDS:
        if not isinstance(value, str):
            raise UserError(f"{value!r}; words are needed")
        return value
    if unit.endswith("[]"):
        if not isinstance(value, list) or not value:
            raise UserError(f"{value!r}; a list is needed")
        return [_argument(one, unit[:-2], values, used) for one in value]
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UserError(f"{value!r}; a number, a claim's name or a formula is needed")
    if isinstance(value, str):
        used += [name for name in formulas.names(value) if name not in used]
        number = formulas.evaluate(value, values).to(unit)
    else:
        if parse_unit(unit)[1]:
            raise UserError(
                f'{value!r} has no unit; {unit} is needed, such as "{value} * {unit.split("/")[0]}"'
            )
        number = float(value)
    if number < 0:
        raise UserError(f"{number:g} is negative; give 0 or more")
    return Given.of(number, value if isinstance(value, str) else "")
