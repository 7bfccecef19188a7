"""An audit as a table, in plain text or Markdown, and as JSON."""

import json
from collections.abc import Collection, Sequence
from textwrap import fill

from smml.cost.audit.case import Case
from smml.cost.audit.judge import VERDICTS, Judgement

SIGNS = {"agrees": "✔", "contradicts": "✘", "physically impossible": "✘✘", "not checkable": "?"}


def counts(judgements: Sequence[Judgement]) -> dict[str, int]:
    """How many claims have each verdict."""
    return {verdict: sum(one.verdict == verdict for one in judgements) for verdict in VERDICTS}


def says(one: Judgement) -> str:
    """The verdict in words: it names the claims that are contradicted."""
    if one.verdict == "contradicts" and one.against:
        return f"contradicts {', '.join(one.against)}"
    return one.verdict


def reason(one: Judgement) -> str:
    """The arithmetic that decided, or what would make the claim checkable."""
    if one.verdict == "not checkable":
        return f"needs {one.needs}"
    return "; ".join(finding.arithmetic for finding in one.deciding)


def text(case: Case, judgements: Sequence[Judgement]) -> str:
    """The report for a terminal: a paragraph a claim, worst first, then the counts."""
    lines = [case.title, *([case.source] if case.source else []), ""]
    for verdict in VERDICTS:
        for one in judgements:
            if one.verdict != verdict:
                continue
            line = f", line {one.claim.line}" if one.claim.line else ""
            lines.append(f"{SIGNS[verdict]} {one.claim.id}{line}: {says(one)}")
            lines.append(
                fill(f'"{one.claim.says}"', 100, initial_indent="    ", subsequent_indent="    ")
            )
            lines.append(fill(reason(one), 100, initial_indent="    ", subsequent_indent="    "))
    return "\n".join([*lines, "", summary(judgements)])


def markdown(
    case: Case, judgements: Sequence[Judgement], verdicts: Collection[str] = VERDICTS
) -> str:
    """The report as a Markdown table of the claims with one of `verdicts`, worst first, and the counts of all.

    Dollar signs are escaped, which else begin mathematics.
    """
    rows = ["| claim | the case says | verdict | arithmetic |", "|---|---|---|---|"]
    shown = [one for one in judgements if one.verdict in verdicts]
    for one in sorted(shown, key=lambda one: VERDICTS.index(one.verdict)):
        cells = (one.claim.id, one.claim.says, f"{SIGNS[one.verdict]} {says(one)}", reason(one))
        rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join([*rows, "", f"**{_cell(case.title)}**: {summary(judgements)}"])


def summary(judgements: Sequence[Judgement]) -> str:
    """The counts in one line."""
    found = counts(judgements)
    listed = ", ".join(f"{number} {verdict}" for verdict, number in found.items())
    return f"{len(judgements)} claims: {listed}."


def as_json(case: Case, judgements: Sequence[Judgement]) -> str:
    """The report as JSON: counts, and of each claim its verdict, figures and findings."""
    rows = [
        {
            "id": one.claim.id,
            "says": one.claim.says,
            "line": one.claim.line,
            "verdict": one.verdict,
            "against": one.against,
            "unit": one.claim.unit,
            "claimed": None if one.claim.amount is None else one.claim.amount.to(one.claim.unit),
            "recomputed": one.recomputed,
            "arithmetic": [finding.arithmetic for finding in one.findings],
            "needs": one.needs,
        }
        for one in judgements
    ]
    facts = {name: {"value": str(f.amount), "source": f.source} for name, f in case.facts.items()}
    whole = {"case": case.title, "counts": counts(judgements), "claims": rows, "facts": facts}
    return json.dumps(whole, indent=1, ensure_ascii=False)


def _cell(text: str) -> str:
    for sign, written in (("|", r"\|"), ("$", r"\$"), ("*", r"\*"), ("<", "&lt;"), ("\n", " ")):
        text = text.replace(sign, written)
    return text
