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
    """Records as rows: prediction, median, spread, error, share of the measured and of the physical ceiling."""
    return table(
        (
            "quantity",
            "bound",
            "predicted",
            "measured",
            "p20 … p80",
            "n",
            "error",
            "of measured",
            "of datasheet",
        ),
        (
            (
                item.name,
                item.inputs.get("bound", ""),
                si(item.predicted, item.unit) if item.predicted else "—",
                si(item.value, item.unit),
                f"{si(item.p20, item.unit)} … {si(item.p80, item.unit)}",
                item.n,
                percent(item.error),
                percent(item.share_of_measured),
                percent(item.share_of_physical),
            )
            for item in items
        ),
    )


def percent(share: float | None) -> str:
    """A share as a percentage; "unknown" where there is none."""
    return "unknown" if share is None else f"{share:.0%}"


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells) + " |"
