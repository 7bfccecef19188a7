"""The report of a run: what ran, what was predicted and measured, how it stands to the baselines. Pure: data → Markdown."""

from collections.abc import Mapping, Sequence
from html import escape

from smml.course import wording
from smml.course.state import RunState
from smml.measure.compare import Comparison
from smml.measure.record import Record

# A prediction from two ceilings is good when it is within this factor of the measurement, either way.
GOOD_FACTOR = 1.5


def page(
    run: RunState | None,
    records: Sequence[Record],
    comparisons: Sequence[Comparison],
    titles: Mapping[str, str],
    plots: Mapping[str, str],
) -> str:
    """The report as Markdown for a page in the site's root.

    `titles` maps "<module>/<name>" to the title of every notebook that has a page; `plots` maps
    a unit to the path of its drawing of predictions against measurements.
    """
    sections = [
        "# Report of the last run",
        _summary(run, records, comparisons),
        _notebooks(run, titles),
        _predictions(records, titles, plots),
        _without_prediction(records, titles),
        _baselines(comparisons, records),
        _machine(run, records),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def ratio(record: Record) -> float:
    """Measured ÷ predicted, dimensionless; the record must hold a prediction."""
    return record.value / record.predicted


def is_good(record: Record) -> bool:
    """Is the prediction within GOOD_FACTOR of the measurement, either way?"""
    return 1 / GOOD_FACTOR <= ratio(record) <= GOOD_FACTOR


def _summary(
    run: RunState | None, records: Sequence[Record], comparisons: Sequence[Comparison]
) -> str:
    if run is None:
        return "No notebook has been run on this machine yet: `make run` runs all of them."
    count = len(run.notebooks)
    lines = [
        f"**{run.count('passed')} of {count} notebooks passed** on {wording.cell(run.device)}."
    ]
    predicted = [r for r in records if r.predicted]
    if predicted:
        good = sum(map(is_good, predicted))
        lines.append(
            f"**{good} of {len(predicted)} predictions** came within {GOOD_FACTOR}× of the measurement."
        )
    slower = sum(c.verdict == "slower" for c in comparisons)
    held = sum(c.ratio is not None for c in comparisons)
    if held:
        lines.append(
            f"**{slower or 'None'} of {held} quantities** fell below the band of their baseline."
        )
    return " ".join(lines)


def _notebooks(run: RunState | None, titles: Mapping[str, str]) -> str | None:
    if run is None:
        return None
    longest = max((outcome.seconds or 0.0 for outcome in run.notebooks.values()), default=0.0)
    rows = []
    for name, outcome in sorted(run.notebooks.items()):
        share = (outcome.seconds or 0.0) / longest if longest else 0.0
        time = f'<span class="bar" style="--share:{share:.3f}">{wording.duration(outcome.seconds)}</span>'
        error = f"<br><small>{wording.cell(outcome.error)}</small>" if outcome.error else ""
        rows.append(f"| {_link(name, titles)}{error} | {wording.status(outcome.status)} | {time} |")
    began = f"Started {wording.day(run.started)}, {run.started:%H:%M %Z}; profile `{run.profile}`"
    if run.finished is None:
        ended = "not finished"
    else:
        ended = f"took {wording.duration((run.finished - run.started).total_seconds())}"
    return "\n".join(
        [
            "## What ran",
            "",
            f"{began}; {ended}.",
            "",
            *_table(("Notebook", "Result", "Time"), "llr", rows, "runs"),
        ]
    )


def _predictions(
    records: Sequence[Record], titles: Mapping[str, str], plots: Mapping[str, str]
) -> str | None:
    predicted = [r for r in records if r.predicted]
    if not predicted:
        return None
    lines = [
        "## Predictions against measurements",
        "",
        "Measured is the median, with the 20th to 80th percentile under it. The ratio is measured ÷ predicted; ◆ "
        f"marks one that is off by more than {GOOD_FACTOR}×. The ceiling is the best that this machine was seen to "
        "reach, the peak is what its maker states.",
    ]
    if plots:
        images = (
            f"![Measured against predicted {unit}, on log–log axes]({path})"
            for unit, path in plots.items()
        )
        lines += ["", "```{container} panels", "", *images, "```"]
    shares = _shares(predicted)
    head = ("Quantity", "Predicted", "Measured", "Ratio", *shares)
    for source, group in _by_source(predicted).items():
        rows = []
        for r in group:
            mark = "" if is_good(r) else "◆ "
            cells = [_name(r), wording.quantity(r.predicted, r.unit), _measured(r)]
            cells += [
                f"{mark}{wording.significant(ratio(r))}×",
                *(_share(getattr(r, name)) for name in shares.values()),
            ]
            rows.append(f"| {' | '.join(cells)} |")
        lines += [
            "",
            f"### {_link(source, titles)}",
            "",
            *_table(head, "lrrr" + "r" * len(shares), rows),
        ]
    return "\n".join(lines)


def _without_prediction(records: Sequence[Record], titles: Mapping[str, str]) -> str | None:
    rest = [r for r in records if not r.predicted]
    if not rest:
        return None
    shares = _shares(rest)
    rows = []
    for r in rest:
        cells = [
            _name(r),
            _measured(r),
            *(_share(getattr(r, name)) for name in shares.values()),
            _link(r.source, titles),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    table = _table(
        ("Quantity", "Measured", *shares, "Source"), "lr" + "r" * len(shares) + "l", rows
    )
    return "\n".join(["## Measured without a prediction", "", *table])


def _baselines(comparisons: Sequence[Comparison], records: Sequence[Record]) -> str | None:
    if not comparisons:
        return None
    lines = ["## Against the baselines", ""]
    if all(c.baseline is None for c in comparisons):
        folder = records[0].machine.fingerprint if records else "<fingerprint>"
        lines.append(f"No baselines of this machine are kept yet (`results/{folder}/`).")
        return "\n".join(lines)
    order = list(wording.VERDICT_WORDS)
    rows = []
    for c in sorted(comparisons, key=lambda c: (order.index(c.verdict), c.name)):
        speed = "–" if c.ratio is None else f"{wording.significant(c.ratio)}×"
        rows.append(
            f"| {wording.cell(c.name)} | {wording.quantity(c.baseline, c.unit)} "
            f"| {wording.quantity(c.measured, c.unit)} | {speed} | ±{c.band:.0%} | {wording.verdict(c.verdict)} |"
        )
    lines += ["Speed is 1× where this run equals the baseline, 0.5× where it is half as fast.", ""]
    return "\n".join(
        lines
        + _table(("Quantity", "Baseline", "This run", "Speed", "Band", "Verdict"), "lrrrrl", rows)
    )


def _machine(run: RunState | None, records: Sequence[Record]) -> str | None:
    facts: dict[str, str] = {}
    if run is not None:
        facts |= {"Device": run.device, "Fingerprint": run.machine, "Profile": run.profile}
    if records:
        latest = max(records, key=lambda r: r.date)
        facts |= {"Device": latest.machine.device, "Fingerprint": latest.machine.fingerprint}
        facts |= {
            str(k).replace("_", " "): _fact(v)
            for k, v in latest.environment.items()
            if v not in (None, [], "")
        }
        facts |= {
            "Commit": latest.commit or "not in a git checkout",
            "FLOP convention": latest.flop_convention,
        }
    rows = [f"| {wording.cell(key)} | {wording.cell(value)} |" for key, value in facts.items()]
    return (
        "\n".join(["## The machine", "", *_table(("", ""), "ll", rows, "facts")]) if rows else None
    )


def _fact(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_fact, value))
    return wording.significant(value) if isinstance(value, float) else str(value)


def _by_source(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: (r.source, r.name)):
        groups.setdefault(record.source, []).append(record)
    return groups


def _link(source: str, titles: Mapping[str, str]) -> str:
    if source not in titles:
        return wording.cell(source)
    module, name = source.split("/")
    number = f"{module.split('_')[0]}/{name.split('_')[0]}"
    return f"[{number} {titles[source].replace('|', chr(92) + '|')}]({source}.ipynb)"


def _name(record: Record) -> str:
    inputs = ", ".join(f"{key} {value}" for key, value in record.inputs.items())
    return f'<span title="{escape(inputs)}">{wording.cell(record.name)}</span>'


def _shares(records: Sequence[Record]) -> dict[str, str]:
    """Heading -> field, of those shares that at least one record holds."""
    columns = {"Of ceiling": "share_of_measured", "Of peak": "share_of_physical"}
    return {
        head: name
        for head, name in columns.items()
        if any(getattr(r, name) is not None for r in records)
    }


def _measured(record: Record) -> str:
    interval = wording.spread(record.p20, record.p80, record.unit)
    return f"{wording.quantity(record.value, record.unit)}<br><small>{escape(interval)}, n = {record.n}</small>"


def _share(share: float | None) -> str:
    if share is None:
        return "–"
    return f'<span class="bar" style="--share:{min(share, 1):.3f}">{share:.0%}</span>'


def _table(
    head: Sequence[str], align: str, rows: Sequence[str], style: str = "figures"
) -> list[str]:
    rule = "|".join({"l": "---", "r": "--:"}[a] for a in align)
    return [f"```{{container}} {style}", "", f"| {' | '.join(head)} |", f"|{rule}|", *rows, "```"]
