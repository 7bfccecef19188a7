"""Tables that notebooks show: this machine, records, any rows; as Markdown that Jupyter and the site render."""

from collections.abc import Iterable, Sequence

from IPython.display import Markdown

from smml.bench import Setting
from smml.measure import Record
from smml.measure.compare import elsewhere
from smml.plot import si


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Markdown:
    """A table; numbers are shown with three digits."""
    lines = [_row(headers), _row(["---"] * len(headers)), *(_row(row) for row in rows)]
    return Markdown("\n".join(lines))


def machine(setting: Setting) -> Markdown:
    """What was detected, which profile runs, and which recorded machines stand in for what is not here."""
    rows = "\n".join(_row(row) for row in setting.machine.describe())
    others = sorted(
        {f"{r.machine.device} ({r.date:%Y-%m-%d})" for r in elsewhere(setting.machine.fingerprint)}
    )
    stand_in = (
        f"Recorded elsewhere and shown beside, hollow: {'; '.join(others)}."
        if others
        else "No other machine has left records in results/ yet: only what runs here is shown."
    )
    return Markdown(f"| this machine | |\n|---|---|\n{rows}\n\n{setting.profile.why} {stand_in}")


def records(items: Iterable[Record]) -> Markdown:
    """Records as rows: prediction, median, spread, error, share of the measured and of the physical ceiling.

    The spread is (p80 − p20) ÷ p50; the column of the physical ceiling stands only where one is known.
    """
    items = list(items)
    known = any(item.share_of_physical for item in items)
    headers = [
        "quantity",
        "bound by",
        "predicted",
        "measured",
        "spread",
        "samples",
        "error",
        "of measured roof",
    ]
    rows = [
        [
            item.name,
            item.inputs.get("bound", ""),
            si(item.predicted, item.unit) if item.predicted else "—",
            si(item.value, item.unit),
            percent((item.p80 - item.p20) / item.value),
            item.n,
            percent(item.error),
            percent(item.share_of_measured),
        ]
        + ([percent(item.share_of_physical)] if known else [])
        for item in items
    ]
    return table([*headers, "of datasheet"] if known else headers, rows)


def recorded(setting: Setting, prefix: str) -> Markdown:
    """What other machines have recorded under names that start with `prefix`, with device, date and shares.

    Says so where there is none: nothing is shown that no run has measured.
    """
    found = [r for r in elsewhere(setting.machine.fingerprint) if r.name.startswith(prefix)]
    if not found:
        return Markdown(
            f"*Not measured yet: no other machine has left a record of `{prefix}…` in results/. "
            "`smml bench` on one with a GPU, then `smml compare --accept`, puts it here.*"
        )
    headers = ["recorded elsewhere", "value", "of measured roof", "device", "torch", "date"]
    rows = [
        [
            r.name,
            si(r.value, r.unit),
            percent(r.share_of_measured),
            r.machine.device,
            r.environment.get("torch", "unknown"),
            f"{r.date:%Y-%m-%d}",
        ]
        for r in sorted(found, key=lambda r: r.name)
    ]
    return table(headers, rows)


def percent(share: float | None) -> str:
    """A share as a percentage; "unknown" where there is none."""
    return "unknown" if share is None else f"{share:.0%}"


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(cell: object) -> str:
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return str(cell)
    return f"{cell:,}" if isinstance(cell, int) and abs(cell) < 1e6 else f"{cell:.3g}"
