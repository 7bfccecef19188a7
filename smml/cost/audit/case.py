"""A business case as data: claims with their sentences, figures and formulas, facts that are looked up; all references checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from smml.cost.audit import formula as formulas
from smml.cost.audit.document import read_document
from smml.cost.audit.units import NAMES, Amount, amount_of, parse_unit
from smml.data import limits
from smml.data.prices import price
from smml.errors import UserError

Bound = Literal["exactly", "at most", "at least"]
Kind = Literal["figure", "target"]
# Half of the last digit of a two-digit percentage is about that much.
TOLERANCE = 0.01
MAX_ENTRIES = 200
_TOP = ("case", "source", "tolerance", "facts", "claims")
_CLAIM = (
    *("says", "value", "unit", "bound", "formula", "check", "needs", "line", "tolerance", "kind"),
)
_FACTS = {"price": ("item", "region", "kind"), "limit": (), "formula": ()}
_IDENTIFIER = re.compile(r"^[a-z][a-z0-9_]{0,39}$")


@dataclass(frozen=True)
class Claim:
    """One sentence and what it states. `checks` are (name, arguments); `line` stands in the audited document."""

    id: str
    says: str
    amount: Amount | None = None
    unit: str = "1"
    bound: Bound = "exactly"
    formula: str | None = None
    checks: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    needs: str | None = None
    line: int | None = None
    tolerance: float = TOLERANCE
    kind: Kind = "figure"


@dataclass(frozen=True)
class Fact:
    """A figure that the case does not claim: a price or limit of smml.data with its source, or computed from others."""

    id: str
    amount: Amount
    source: str


@dataclass(frozen=True)
class Case:
    """Claims and facts by name; `file` is what errors name."""

    title: str
    file: str
    source: str | None
    claims: Mapping[str, Claim]
    facts: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Amount]:
        """What a formula may name: every figure as the case claims it, and the facts."""
        claimed = {name: c.amount for name, c in self.claims.items() if c.amount is not None}
        return claimed | {name: fact.amount for name, fact in self.facts.items()}


def load_case(path: Path) -> Case:
    """The case in a YAML file; raises UserError naming file, claim and field."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; give the path of a YAML file.") from error
    return read_case(text, str(path))


def packaged_case(name: str) -> Case:
    """A case that the package holds, such as "llm_on_aws"; UserError lists them."""
    return read_case(packaged_text(name), f"{name}.yaml")


def packaged_text(name: str) -> str:
    """Its YAML text."""
    folder = resources.files("smml.cost").joinpath("cases")
    held = sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )
    if name not in held:
        raise UserError(
            f"no packaged case {name!r}; there are {', '.join(held)}; or give a file's path."
        )
    return folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def read_case(text: str, file: str = "case.yaml") -> Case:
    """Read and check a case. Raises UserError naming `file`, claim and field: unknown or missing fields, duplicate keys,
    references to nothing, circular formulas, values that are no numbers, units that are unknown.
    """
    content = read_document(text, file)
    reader = _Reader(file)
    reader.only("(file)", content, _TOP)
    title = reader.text("(file)", "case", content.get("case"))
    source = content.get("source")
    tolerance = reader.share("(file)", "tolerance", content.get("tolerance", TOLERANCE))
    for field_name in ("claims", "facts"):
        if len(content.get(field_name) or ()) > MAX_ENTRIES:
            raise reader.error("(file)", field_name, f"more than {MAX_ENTRIES}; split the case")
    claims = {
        name: reader.claim(name, entry, tolerance)
        for name, entry in reader.table("(file)", "claims", content.get("claims")).items()
    }
    entries = reader.table("(file)", "facts", content.get("facts") or {}, empty=True)
    for name in entries:
        if name in claims:
            raise reader.error(name, "(name)", "stands among claims and among facts; rename one")
    written = {name: c.formula for name, c in claims.items() if c.formula}
    for name, entry in entries.items():
        reader.fact(name, entry)
        if "formula" in entry:
            written[name] = reader.text(name, "formula", entry["formula"])
    known = {name for name, c in claims.items() if c.amount is not None} | set(entries)
    order = reader.ordered(written, known, set(claims))
    values = {name: c.amount for name, c in claims.items() if c.amount is not None}
    facts: dict[str, Fact] = {}
    for name in [n for n in entries if n not in written] + [n for n in order if n in entries]:
        facts[name] = reader.looked_up(name, entries[name], values)
        values[name] = facts[name].amount
    return Case(
        title, file, None if source is None else str(source), claims, {n: facts[n] for n in entries}
    )


class _Reader:
    """Fields of one file, and errors that say where."""

    def __init__(self, file: str) -> None:
        self.file = file

    def error(self, where: str, name: str, reason: object) -> UserError:
        return UserError(
            f"{self.file}, {where}, field {name}: {str(reason).rstrip('.')}. Correct it there."
        )

    def only(self, where: str, entry: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
        if unknown := [key for key in entry if key not in allowed]:
            raise self.error(where, unknown[0], f"unknown; allowed are {', '.join(allowed)}")

    def table(self, where: str, name: str, value: Any, empty: bool = False) -> dict[str, Any]:
        if not isinstance(value, dict) or not (value or empty):
            raise self.error(
                where, name, f"{'missing' if value is None else repr(value)}; a mapping is needed"
            )
        return value

    def text(self, where: str, name: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.error(
                where, name, f"{'missing' if value is None else repr(value)}; text is needed"
            )
        return value.strip()

    def number(self, where: str, name: str, value: Any) -> float:
        if isinstance(value, bool):
            return float(value)
        if not isinstance(value, int | float):
            raise self.error(
                where, name, f"{value!r} is no number; write it without commas and currency"
            )
        return float(value)

    def share(self, where: str, name: str, value: Any) -> float:
        found = self.number(where, name, value)
        if not 0 <= found < 1:
            raise self.error(where, name, f"{found:g}; give a share from 0 to below 1")
        return found

    def choice(self, where: str, name: str, value: Any, allowed: tuple[str, ...]) -> Any:
        if value not in allowed:
            raise self.error(where, name, f"{value!r}; allowed are {', '.join(allowed)}")
        return value

    def name(self, name: str) -> None:
        taken = "a unit" if name in NAMES else "a function" if name in formulas.FUNCTIONS else None
        if taken or not _IDENTIFIER.match(name):
            why = (
                f"is {taken} already" if taken else "is no name: letters a-z, digits and _ make one"
            )
            raise self.error(name[:40], "(name)", f"{name[:40]!r} {why}; take another")

    def claim(self, name: str, entry: Any, tolerance: float) -> Claim:
        self.name(name)
        entry = self.table(f"claim {name}", "(claim)", entry)
        where = f"claim {name}"
        self.only(where, entry, _CLAIM)
        unit = str(entry.get("unit", "1"))
        try:
            parse_unit(unit)
        except UserError as error:
            raise self.error(where, "unit", error) from error
        amount = None
        if "value" in entry:
            amount = amount_of(self.number(where, "value", entry["value"]), unit)
        elif "formula" in entry:
            raise self.error(
                where, "value", "missing; a claim with a formula states a value, a fact does not"
            )
        line = entry.get("line")
        if line is not None and (isinstance(line, bool) or not isinstance(line, int) or line < 1):
            raise self.error(where, "line", f"{line!r}; give the line's number")
        return Claim(
            name,
            self.text(where, "says", entry.get("says")),
            amount,
            unit,
            self.choice(
                where, "bound", entry.get("bound", "exactly"), ("exactly", "at most", "at least")
            ),
            self.text(where, "formula", entry["formula"]) if "formula" in entry else None,
            self.checks(where, entry.get("check", [])),
            self.text(where, "needs", entry["needs"]) if "needs" in entry else None,
            line,
            self.share(where, "tolerance", entry.get("tolerance", tolerance)),
            self.choice(where, "kind", entry.get("kind", "figure"), ("figure", "target")),
        )

    def checks(self, where: str, value: Any) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        found = []
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, dict) or len(one) != 1:
                raise self.error(
                    where, "check", f"{one!r}; give one check and its arguments, or a list of such"
                )
            ((name, arguments),) = one.items()
            found.append((name, self.table(where, f"check.{name}", arguments or {}, empty=True)))
        return tuple(found)

    def fact(self, name: str, entry: Any) -> None:
        self.name(name)
        where = f"fact {name}"
        if not isinstance(entry, dict) or len(entry) != 1 or next(iter(entry)) not in _FACTS:
            raise self.error(where, "(fact)", f"{entry!r}; give one of {', '.join(_FACTS)}")

    def looked_up(self, name: str, entry: dict[str, Any], values: Mapping[str, Amount]) -> Fact:
        ((what, value),) = entry.items()
        where = f"fact {name}"
        try:
            if what == "formula":
                return Fact(name, formulas.evaluate(value, values), f"computed: {value}")
            if what == "limit":
                held = limits.limit(self.text(where, "limit", value))
                # "share of peak" and the like are pure numbers, said in words.
                unit = held.unit if held.unit in ("s", "B", "vCPU", "USD") else "1"
            else:
                asked = (
                    {"item": value} if isinstance(value, str) else self.table(where, "price", value)
                )
                self.only(where, asked, _FACTS["price"])
                held = price(**{key: self.text(where, key, one) for key, one in asked.items()})
                unit = held.unit
            return Fact(name, amount_of(held.value, unit), f"{held.source}, {held.date}")
        except (UserError, TypeError) as error:
            raise self.error(where, what, error) from error

    def ordered(self, written: Mapping[str, str], known: set[str], claims: set[str]) -> list[str]:
        """Names with formulas, each after those that it uses; UserError for a name of nothing and for a cycle."""
        uses: dict[str, list[str]] = {}
        for name, formula in written.items():
            where = f"{'claim' if name in claims else 'fact'} {name}"
            try:
                uses[name] = formulas.names(formula)
            except UserError as error:
                raise self.error(where, "formula", error) from error
            for used in uses[name]:
                if used not in known:
                    what = "has no value" if used in claims else "is no claim, no fact and no unit"
                    raise self.error(
                        where, "formula", f"{used!r} {what}; there are {', '.join(sorted(known))}"
                    )
        done: list[str] = []

        def visit(name: str, path: list[str]) -> None:
            if name in path:
                cycle = " → ".join([*path[path.index(name) :], name])
                raise self.error(f"claim {name}", "formula", f"circular: {cycle}")
            if name in uses and name not in done:
                for used in uses[name]:
                    visit(used, [*path, name])
                done.append(name)

        for name in uses:
            visit(name, [])
        return done
