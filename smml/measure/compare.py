"""Hold a run against the baselines of the same hardware, within bands."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from smml import paths
from smml.errors import UserError
from smml.measure.record import Record, load_folder

# How much slower than the baseline's median the faster fifth of a run may be. Neighbours on a shared machine
# move medians by tens of percent, its best fifth far less; a true 2× slowdown stays far outside.
DEFAULT_BAND = 0.35

Verdict = Literal["ok", "slower", "faster", "no baseline", "not measured"]


@dataclass(frozen=True)
class Comparison:
    """One quantity: `ratio` is speed against the baseline (1 = same, 0.5 = half as fast); None if one is absent."""

    name: str
    unit: str
    baseline: float | None
    measured: float | None
    ratio: float | None
    band: float
    verdict: Verdict


def compare(measured: Iterable[Record], baselines: Iterable[Record]) -> list[Comparison]:
    """Compare by name; of several records of one name the latest counts. UserError when machines are mixed."""
    new, old = _latest(measured), _latest(baselines)
    machines = {r.machine.fingerprint for r in (*new.values(), *old.values())}
    if len(machines) > 1:
        raise UserError(
            f"records of different machines cannot be compared: {', '.join(sorted(machines))}. "
            "Compare a run with the baselines of its own fingerprint."
        )
    return [_judge(name, new.get(name), old.get(name)) for name in sorted(new.keys() | old.keys())]


def _judge(name: str, new: Record | None, old: Record | None) -> Comparison:
    band = (old.band if old else None) or DEFAULT_BAND
    if new is None or old is None:
        known = new or old
        return Comparison(
            name,
            known.unit,
            old.value if old else None,
            new.value if new else None,
            None,
            band,
            "no baseline" if new else "not measured",
        )
    if (new.unit, new.better) != (old.unit, old.better):
        raise UserError(
            f"{name}: measured in {new.unit} ({new.better} is better), baseline in {old.unit} ({old.better} is "
            "better). Store a new baseline with smml compare --accept."
        )
    if old.better == "higher":
        ratio, best_fifth, worst_fifth = (
            new.value / old.value,
            new.p80 / old.value,
            new.p20 / old.value,
        )
    else:
        ratio, best_fifth, worst_fifth = (
            old.value / new.value,
            old.value / new.p20,
            old.value / new.p80,
        )
    verdict: Verdict = "ok"
    if best_fifth < 1 / (1 + band):
        verdict = "slower"
    elif worst_fifth > 1 + band:
        verdict = "faster"
    return Comparison(name, old.unit, old.value, new.value, ratio, band, verdict)


def regressions(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """The comparisons that fail a run."""
    return [c for c in comparisons if c.verdict == "slower"]


def baseline_folder(fingerprint: str) -> Path:
    """Where the baselines of one machine are kept in the repository."""
    return paths.results() / fingerprint


def baselines(fingerprint: str) -> list[Record]:
    """Baselines of one machine; empty where none are stored."""
    return load_folder(baseline_folder(fingerprint))


def elsewhere(fingerprint: str) -> list[Record]:
    """Every record in the repository that another machine made: shown, labelled, beside what runs here."""
    folders = sorted(f for f in paths.results().glob("*") if f.is_dir() and f.name != fingerprint)
    return [r for folder in folders for r in load_folder(folder)]


def accept(measured: Iterable[Record]) -> list[Path]:
    """Store records as the baselines of their machine, each over the older one of its name.

    Those of interpreted kernels and their peers are left out: they prove a path, at sizes that say nothing.
    """
    kept = [r for r in measured if not r.inputs.get("interpreted")]
    return [r.save(baseline_folder(r.machine.fingerprint)) for r in _latest(kept).values()]


def _latest(records: Iterable[Record]) -> dict[str, Record]:
    latest: dict[str, Record] = {}
    for item in records:
        if item.name not in latest or item.date >= latest[item.name].date:
            latest[item.name] = item
    return latest
