"""Where a traced step's time went: by phase, by operator, idle, in launches, in waits for the device."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from smml.profiling.spans import BETWEEN, Span, Trace

# Calls of CUDA in which the host waits; an asynchronous copy to pageable memory waits too and shows one of these.
WAITS = {
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "cudaMemcpy",
    "cuStreamSynchronize",
    "cuCtxSynchronize",
}
READ_BACK = "aten::_local_scalar_dense"  # what .item(), float(tensor) and `if tensor:` come to


@dataclass(frozen=True)
class Operator:
    """Calls and seconds of one operator in a step, on average; `share` is of the step, without what it called."""

    name: str
    calls: float
    self_s: float
    share: float
    dtypes: frozenset[str]


@dataclass(frozen=True)
class Gap:
    """A time in which nothing ran: no kernel on a GPU, no operator on a CPU; between which two, and in which phase."""

    start_s: float
    seconds: float
    phase: str
    after: str
    before: str


@dataclass(frozen=True)
class Launches:
    """What a step asks the device to do: kernels that it launches on a GPU, operators that do the work on a CPU.

    `predicted_s` is the step's least time if nothing but launching counts; `kernel_s` if nothing but kernels does
    (on a CPU, where an operator is both, its time without the launches).
    """

    calls: float
    predicted_s: float
    kernel_s: float

    @property
    def bound(self) -> bool:
        """Whether launching takes longer than what is launched: then only fewer launches help."""
        return self.predicted_s > self.kernel_s


def by_phase(trace: Trace) -> dict[str, float]:
    """Seconds of each phase in a step on the host's clock, in the order of the step; the rest as `BETWEEN`."""
    steps = len(trace.steps)
    found: dict[str, float] = defaultdict(float)
    for phase in trace.phases:
        found[phase.name] += phase.seconds / steps
    return {**found, BETWEEN: max(trace.step_s - sum(found.values()), 0.0)}


def by_operator(trace: Trace, phase: str | None = None) -> list[Operator]:
    """Operators of a step (or of one phase), the one with the most time of its own first."""
    groups: dict[str, list[Span]] = defaultdict(list)
    for span in trace.of("operator"):
        if phase in (None, span.phase):
            groups[span.name].append(span)
    steps = len(trace.steps)
    operators = [
        Operator(
            name,
            len(spans) / steps,
            sum(s.self_s for s in spans) / steps,
            sum(s.self_s for s in spans) / steps / trace.step_s,
            frozenset().union(*(s.dtypes for s in spans)),
        )
        for name, spans in groups.items()
    ]
    return sorted(operators, key=lambda o: -o.self_s)


def gaps(trace: Trace) -> list[Gap]:
    """Every gap, the longest first; a gap over several phases is cut at their borders."""
    busy = [s for s in trace.spans if _works(trace, s)]
    found = []
    for number, (start, end) in enumerate(trace.steps):
        at, after = start, "the step's begin"
        for span in (s for s in busy if s.step == number):
            if span.start_s > at:
                found += _cut(trace, at, span.start_s, after, span.name)
            if span.end_s >= at:
                at, after = span.end_s, span.name
        if end > at:
            found += _cut(trace, at, end, after, "the step's end")
    return sorted(found, key=lambda g: -g.seconds)


def idle(trace: Trace) -> dict[str, float]:
    """Seconds of a step's gaps by phase: Python's on a CPU, the device's waiting time on a GPU."""
    found: dict[str, float] = defaultdict(float)
    for gap in gaps(trace):
        found[gap.phase] += gap.seconds / len(trace.steps)
    return dict(found)


def host_syncs(trace: Trace) -> dict[tuple[str, str], float]:
    """(phase, call) → how many times a step reads a value back or waits for the device, on average."""
    found = Counter(
        (span.phase, span.name)
        for span in trace.spans
        if span.name == READ_BACK or (span.kind == "runtime" and span.name in WAITS)
    )
    return {where: count / len(trace.steps) for where, count in found.items()}


def launches(trace: Trace, launch_s: float) -> Launches:
    """Launches of a step, and what they must cost at `launch_s` seconds each, beside the kernels' own time."""
    steps = len(trace.steps)
    if trace.on_gpu:
        calls = sum("Launch" in s.name for s in trace.of("runtime")) / steps
        return Launches(calls, calls * launch_s, sum(s.seconds for s in trace.of("kernel")) / steps)
    operators = trace.of("operator")
    calls = sum(s.leaf for s in operators) / steps
    busy = sum(s.seconds for s in operators if s.top) / steps
    return Launches(calls, calls * launch_s, max(busy - calls * launch_s, 0.0))


def lanes(trace: Trace, step: int = 0) -> dict[str, list[tuple[str, float, float]]]:
    """Rows of a timeline of one step, as (name, start, seconds), the step beginning at 0: phases, then what ran."""
    begin = trace.steps[step][0]

    def row(spans: Iterable[Span]) -> list[tuple[str, float, float]]:
        return [(s.name, s.start_s - begin, s.seconds) for s in spans if s.step == step]

    rows = {"phases": row(trace.phases), "operators": row(s for s in trace.of("operator") if s.top)}
    return rows | ({"kernels": row(trace.of("kernel"))} if trace.on_gpu else {})


def _works(trace: Trace, span: Span) -> bool:
    return span.kind in ("kernel", "copy") if trace.on_gpu else span.kind == "operator" and span.top


def _cut(trace: Trace, start: float, end: float, after: str, before: str) -> list[Gap]:
    """The gap from `start` to `end`, in pieces that each lie in one phase."""
    pieces, at = [], start
    for phase in trace.phases:
        if phase.end_s <= at:
            continue
        if phase.start_s >= end:
            break
        if phase.start_s > at:
            pieces.append(Gap(at, phase.start_s - at, BETWEEN, after, before))
            at = phase.start_s
        stop = min(phase.end_s, end)
        pieces.append(Gap(at, stop - at, phase.name, after, before))
        at = stop
    if end > at:
        pieces.append(Gap(at, end - at, BETWEEN, after, before))
    return pieces
