"""The verdict of each claim: it agrees, it contradicts others, it is physically impossible, or nothing checks it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from smml.cost.audit import formula as formulas
from smml.cost.audit.case import Bound, Case, Claim
from smml.cost.audit.checks import Finding, Verdict, run
from smml.cost.audit.units import Amount, amount_of, number
from smml.errors import UserError

# From the worst: a claim has the worst verdict of its findings.
VERDICTS: tuple[Verdict, ...] = ("physically impossible", "contradicts", "agrees", "not checkable")
_NEEDS = "a formula from other claims, a price, or a check"


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict with what it rests on. `needs` says what would make it checkable, where it is not."""

    claim: Claim
    verdict: Verdict
    findings: tuple[Finding, ...]
    needs: str | None = None

    @property
    def against(self) -> list[str]:
        """Names that the deciding findings used, each once."""
        used = [name for one in self.deciding for name in one.against]
        return [name for name in dict.fromkeys(used) if name != self.claim.id]

    @property
    def deciding(self) -> list[Finding]:
        """Findings whose verdict became the claim's."""
        return [one for one in self.findings if one.verdict == self.verdict]

    @property
    def recomputed(self) -> float | None:
        """What the claim should state, in its unit; None where no finding says so."""
        return next((one.recomputed for one in self.deciding if one.recomputed is not None), None)

    @property
    def failed(self) -> bool:
        """Whether the case cannot stand with this claim."""
        return self.verdict in VERDICTS[:2]


def audit(case: Case) -> list[Judgement]:
    """A judgement for each claim, in the case's order. Raises UserError naming file, claim and field."""
    values = case.values
    return [_judge(case, claim, values) for claim in case.claims.values()]


def agrees(claimed: float, found: float, bound: Bound, tolerance: float) -> bool:
    """Whether `found` bears the claim out, within a share of it."""
    slack = tolerance * abs(found)
    if bound == "at most":
        return found <= claimed + slack
    if bound == "at least":
        return found >= claimed - slack
    return abs(claimed - found) <= slack


def would_hold_with(claim: Claim, values: Mapping[str, Amount]) -> dict[str, Amount]:
    """For each figure in the claim's formula: what it would have to be, alone, for the claim to hold exactly.

    Found by one secant step, kept where the formula then yields the claim: formulas that are linear in that figure.
    """
    found = {}
    wanted = claim.amount.converted(formulas.evaluate(claim.formula, values), "compared with")
    for name in formulas.names(claim.formula):
        old = values[name]

        def yields(value: float, name: str = name, old: Amount = old) -> float:
            return formulas.evaluate(
                claim.formula, {**values, name: Amount(value, old.units)}
            ).value

        try:
            here, step = yields(old.value), 1e-3 * abs(old.value) or 1e-3
            slope = (yields(old.value + step) - here) / step
            needed = old.value + (wanted - here) / slope
            # A price or a count of the other sign would be no answer.
            if needed * old.value >= 0 and abs(yields(needed) - wanted) <= 1e-6 * abs(wanted):
                found[name] = Amount(needed, old.units)
        except (UserError, ZeroDivisionError):
            continue  # no such figure: the formula does not depend on it, or has no value there
    return found


def _judge(case: Case, claim: Claim, values: Mapping[str, Amount]) -> Judgement:
    findings = []
    if claim.formula is not None:
        findings.append(_by_formula(case, claim, values))
    for name, arguments in claim.checks:
        try:
            found = run(name, arguments, claim.amount, claim.unit, values)
        except UserError as error:
            raise _error(case, claim, "check", error) from error
        findings.append(_decided(claim, found))
    verdict = next(
        (one for one in VERDICTS if any(f.verdict == one for f in findings)), "not checkable"
    )
    needs = None
    if verdict == "not checkable":
        unknown = "; ".join(one.arithmetic for one in findings)
        needs = claim.needs or unknown or _NEEDS
    return Judgement(claim, verdict, tuple(findings), needs)


def _by_formula(case: Case, claim: Claim, values: Mapping[str, Amount]) -> Finding:
    try:
        found = formulas.evaluate(claim.formula, values).to(claim.unit)
        used = tuple(formulas.names(claim.formula))
        text = formulas.substituted(claim.formula, values)
        if formulas.is_question(claim.formula):
            said = f"{text}: {_yes(found)}, the claim says {_yes(claim.amount.value)}"
            return Finding(
                "agrees" if found == claim.amount.value else "contradicts", said, found, used
            )
    except UserError as error:
        raise _error(case, claim, "formula", error) from error
    decided = _decided(claim, Finding(None, f"{text} = {_figure(found, claim.unit)}", found, used))
    if decided.verdict == "agrees":
        return decided
    others = would_hold_with(claim, values)
    would = ", or ".join(
        f"{name} = {value}" for name, value in others.items() if name in case.claims
    )
    return replace(
        decided, arithmetic=decided.arithmetic + (f". It would hold with {would}" if would else "")
    )


def _decided(claim: Claim, found: Finding) -> Finding:
    """The finding with a verdict: where it has none, the recomputed figure is held against the claimed one."""
    if found.verdict is not None or found.recomputed is None:
        return found
    claimed = claim.amount.to(claim.unit)
    right = agrees(claimed, found.recomputed, claim.bound, claim.tolerance)
    said = found.arithmetic
    if claim.bound != "exactly":
        said += f"; {claim.bound} {_figure(claimed, claim.unit)} is claimed"
    elif claimed != found.recomputed:
        off = f" ({claimed / found.recomputed - 1:+.2%})" if found.recomputed else ""
        said += f"; {_figure(claimed, claim.unit)} is claimed{off}"
    return replace(found, verdict="agrees" if right else "contradicts", arithmetic=said)


def _figure(value: float, unit: str) -> str:
    return number(value) if unit == "1" else f"{number(value)} {unit}"


def _yes(value: float) -> str:
    return "yes" if value else "no"


def _error(case: Case, claim: Claim, field: str, error: UserError) -> UserError:
    return UserError(
        f"{case.file}, claim {claim.id}, field {field}: {str(error).rstrip('.')}. Correct it there."
    )


def replaced(case: Case, name: str, value: float) -> Case:
    """The case with another value of one claim, in that claim's unit. Raises UserError for a claim without a value."""
    claim = case.claims.get(name)
    if claim is None or claim.amount is None:
        raise UserError(f"{name!r} is no claim with a value; there are {', '.join(case.claims)}.")
    changed = replace(claim, amount=amount_of(value, claim.unit))
    return replace(case, claims={**case.claims, name: changed})
