"""Audits that notebooks show: claims to guess at, verdicts, claimed against recomputed; and their records."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from IPython.display import Markdown

from smml import plot
from smml.cost.audit import SIGNS, VERDICTS, Case, Judgement, markdown
from smml.cost.audit.report import says
from smml.cost.audit.units import number
from smml.course.decisions import literal
from smml.course.show import table
from smml.errors import UserError
from smml.hardware.machine import Machine
from smml.measure import MIN_SAMPLES, MachineId, Record
from smml.measure.record import git_commit

if TYPE_CHECKING:  # matplotlib takes a second to import: only for a figure that is really drawn
    from matplotlib.figure import Figure


def sentences(case: Case) -> Markdown:
    """The case's claims as it states them, by name: what a reader guesses at."""
    rows = [(name, literal(claim.says), claim.kind) for name, claim in case.claims.items()]
    return table(("claim", "the case says", "kind"), rows)


def report(case: Case, judgements: Sequence[Judgement], verdicts: Collection[str]) -> Markdown:
    """The claims that have one of `verdicts`, with the arithmetic."""
    return Markdown(markdown(case, judgements, verdicts))


def guesses(judgements: Sequence[Judgement], guessed: Collection[str] | None) -> Markdown:
    """Which claims fail, which the reader named, and what both agree on. UserError for a name that is no claim."""
    named = set(guessed or ())
    if unknown := sorted(named - {one.claim.id for one in judgements}):
        raise UserError(
            f"the guess names {unknown[0]!r}, which is no claim of the case; see the table above."
        )
    rows = [
        (
            one.claim.id,
            "yes" if one.claim.id in named else "no",
            f"{SIGNS[one.verdict]} {says(one)}",
        )
        for one in judgements
        if one.failed or one.claim.id in named
    ]
    return table(("claim", "you named it", "found"), rows)


def changes(before: Sequence[Judgement], after: Sequence[Judgement]) -> Markdown:
    """Claims whose verdict or recomputed figure a change of the case moved."""
    rows = []
    for old, new in zip(before, after, strict=True):
        if (old.verdict, old.recomputed) != (new.verdict, new.recomputed):
            unit = new.claim.unit
            figure = "—" if new.recomputed is None else f"{number(new.recomputed)} {unit}"
            rows.append((new.claim.id, old.verdict, new.verdict, figure))
    return table(("claim", "before", "after", "recomputed after"), rows)


def records(audits: Sequence[Sequence[Judgement]], machine: Machine, source: str) -> list[Record]:
    """A record for each figure that was recomputed, in all `audits` alike; `predicted` is what the case claims.

    Raises UserError where two audits of one case differ, or are fewer than a record needs.
    """
    first, *others = audits
    if len(audits) < MIN_SAMPLES or any(other != first for other in others):
        raise UserError(
            f"{len(audits)} audits that agree are needed, {MIN_SAMPLES} at least; audit the same case."
        )
    found = []
    for one in first:
        if one.recomputed is None or one.recomputed <= 0 or one.claim.amount is None:
            continue
        claimed = one.claim.amount.to(one.claim.unit)
        found.append(
            Record(
                name=f"audit/{one.claim.id}",
                unit=one.claim.unit,
                better="higher" if one.claim.bound == "at least" else "lower",
                value=one.recomputed,
                p20=one.recomputed,
                p80=one.recomputed,
                n=len(audits),
                inputs={"verdict": one.verdict, "against": one.against},
                predicted=claimed if claimed > 0 else None,
                machine=MachineId(fingerprint=machine.fingerprint, device=machine.device_name),
                commit=git_commit(),
                date=datetime.now(UTC).replace(microsecond=0),
                source=source,
            )
        )
    return found


def claimed_over_recomputed(items: Sequence[Record], title: str) -> "Figure":
    """Of each record claimed ÷ recomputed, on a log axis, the largest gap on top; marker and colour say the verdict."""
    ratios = [(item, item.predicted / item.value) for item in items if item.predicted]
    ratios.sort(key=lambda pair: max(pair[1], 1 / pair[1]))
    figure, axis = plot.axes(title, (plot.INCHES[0], 1.5 + 0.32 * len(ratios)))
    axis.axvline(1, color="black", linewidth=1)
    for index, verdict in enumerate(VERDICTS[:3]):
        rows = [row for row, (item, _) in enumerate(ratios) if item.inputs["verdict"] == verdict]
        values = [ratios[row][1] for row in rows]
        color = plot.COLORS[index % len(plot.COLORS)]
        axis.hlines(rows, 1, values, color=color, linewidth=2)
        axis.plot(values, rows, plot.MARKERS[index], color=color, markersize=9, label=verdict)
        for row, value in zip(rows, values, strict=True):
            axis.annotate(
                f"{value:.3g} ×",
                (value, row),
                xytext=(10 if value >= 1 else -10, 0),
                textcoords="offset points",
                ha="left" if value >= 1 else "right",
                va="center",
                fontsize=10,
            )
    names = [item.name.removeprefix("audit/") for item, _ in ratios]
    span = [ratio for _, ratio in ratios]
    axis.set_yticks(range(len(names)), names)
    axis.set_xscale("log")
    axis.set_xlim(min(*span, 0.5) / 3, max(*span, 2) * 4)
    axis.set_xlabel("claimed ÷ recomputed (1: they agree)", fontsize=12)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(loc="lower right", fontsize=11)
    return figure
