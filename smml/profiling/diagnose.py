"""Which phase and which operator of a slow step exceed those of a healthy one, and by how much."""

from collections import Counter
from dataclasses import dataclass

from smml.profiling.account import by_operator, by_phase, host_syncs
from smml.profiling.spans import Trace

PYTHON = "no operator (Python)"  # host time in which torch does nothing


@dataclass(frozen=True)
class Excess:
    """What a phase spends beyond the healthy step on one operator: seconds and calls a step."""

    phase: str
    operator: str
    seconds: float
    calls: float


@dataclass(frozen=True)
class Diagnosis:
    """The phase with the most excess and the operators in it, the worst first.

    `seconds` is the excess of all phases together in a step, `share` its share of the slow step; `new_dtypes` are number
    formats that the healthy step does not compute with, `syncs` values read back and waits beyond its own.
    """

    phase: str
    operator: str
    seconds: float
    share: float
    phases: dict[str, float]
    excesses: tuple[Excess, ...]
    new_dtypes: frozenset[str]
    syncs: float


def diagnose(trace: Trace, healthy: Trace, event_s: float = 0.0) -> Diagnosis:
    """Compare the fastest steps of two traces on the host's clock.

    `event_s` (see `event_cost`) is taken off for each operator, since the profiler makes small ones look slow. The time
    in which a GPU is waited for shows as the operator that waits.
    """
    trace, healthy = trace.fastest(), healthy.fastest()
    phases, usual = _phases(trace, event_s), _phases(healthy, event_s)
    excess = {phase: seconds - usual.get(phase, 0.0) for phase, seconds in phases.items()}
    phase = max(excess, key=excess.__getitem__)
    here, there = _table(trace, phase), _table(healthy, phase)
    rows = []
    for name, (seconds, calls) in here.items():
        before_s, before = there.get(name, (0.0, 0.0))
        extra = calls - before
        rows.append(Excess(phase, name, seconds - before_s - extra * event_s, extra))
    rows.sort(key=lambda row: -row.seconds)
    # Phases that happened to run faster this time are noise: they must not hide what another one lost.
    total = sum(max(seconds, 0.0) for seconds in excess.values())
    return Diagnosis(
        phase,
        rows[0].operator,
        total,
        total / sum(phases.values()),
        excess,
        tuple(rows),
        _dtypes(trace) - _dtypes(healthy),
        sum(host_syncs(trace).values()) - sum(host_syncs(healthy).values()),
    )


def _phases(trace: Trace, event_s: float) -> dict[str, float]:
    """Seconds of each phase in a step, without the profiler's own."""
    events = Counter(span.phase for span in trace.of("operator"))
    return {
        phase: seconds - event_s * events[phase] / len(trace.steps)
        for phase, seconds in by_phase(trace).items()
    }


def _table(trace: Trace, phase: str) -> dict[str, tuple[float, float]]:
    """Operator → its own seconds and calls in one phase of a step, and Python's time there."""
    rows = {o.name: (o.self_s, o.calls) for o in by_operator(trace, phase)}
    whole = by_phase(trace).get(phase, 0.0)
    python = max(whole - sum(seconds for seconds, _ in rows.values()), 0.0)
    return rows | {PYTHON: (python, 0.0)}


def _dtypes(trace: Trace) -> frozenset[str]:
    return frozenset().union(*(span.dtypes for span in trace.of("operator")))
