"""A profile read back from its Chrome trace file: spans of time with nesting, phase, step and launch."""

import json
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from smml.errors import UserError

# Names of torch.profiler's categories in the file (Kineto's output_json.cpp); what is not named here is left out.
HOST = {
    "cpu_op": "operator",
    "user_annotation": "range",
    "cuda_runtime": "runtime",
    "cuda_driver": "runtime",
}
DEVICE = {"kernel": "kernel", "gpu_memcpy": "copy", "gpu_memset": "copy"}
STEP = re.compile(r"ProfilerStep#\d+")
BETWEEN = "between phases"


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took `seconds` from `start_s` (the first step begins at 0).

    `self_s` leaves out what nested operators took; `leaf` says that there were none. `phase` is the range of the step
    around it, for a kernel around its launch. `dtypes` are those of an operator's tensors, as torch writes them.
    """

    name: str
    kind: str
    start_s: float
    seconds: float
    self_s: float
    leaf: bool
    top: bool
    phase: str
    step: int
    correlation: int | None
    dtypes: frozenset[str]

    @property
    def end_s(self) -> float:
        """When it ended, in seconds."""
        return self.start_s + self.seconds


@dataclass(frozen=True)
class Trace:
    """Spans of some steps, in the order of their starts; `path` is the file, which Perfetto opens.

    `steps` are (start, end) in seconds of each step; a GPU's step ends with the last kernel that it launched.
    """

    path: Path
    spans: tuple[Span, ...]
    steps: tuple[tuple[float, float], ...]

    @property
    def step_s(self) -> float:
        """Seconds of a step under the profiler, on average."""
        return sum(end - start for start, end in self.steps) / len(self.steps)

    def only(self, steps: Iterable[int]) -> "Trace":
        """The trace of some of its steps, numbered anew in their order."""
        place = {step: number for number, step in enumerate(steps)}
        spans = (replace(span, step=place[span.step]) for span in self.spans if span.step in place)
        return Trace(self.path, tuple(spans), tuple(self.steps[step] for step in place))

    def fastest(self) -> "Trace":
        """The fastest step alone: the one in which other programs disturbed least."""
        return self.only(
            [min(range(len(self.steps)), key=lambda i: self.steps[i][1] - self.steps[i][0])]
        )

    @property
    def events(self) -> float:
        """Operators and ranges that the profiler wrote down on the host in a step, on average."""
        return (len(self.of("operator")) + len(self.of("range"))) / len(self.steps)

    @property
    def on_gpu(self) -> bool:
        """Whether kernels of a GPU were seen."""
        return bool(self.of("kernel"))

    @cached_property
    def _by_kind(self) -> dict[str, list[Span]]:
        kinds: dict[str, list[Span]] = defaultdict(list)
        for span in self.spans:
            kinds[span.kind].append(span)
        return kinds

    def of(self, kind: str) -> list[Span]:
        """Spans of a kind: operator, range, runtime (calls of CUDA), kernel or copy (on a GPU)."""
        return self._by_kind.get(kind, [])

    @cached_property
    def phases(self) -> list[Span]:
        """The outermost ranges inside the steps, in order: data, forward, …"""
        return [s for s in self.of("range") if s.top]


def read(path: Path | str) -> Trace:
    """The trace in a JSON file of torch.profiler; UserError where it is none or holds no step."""
    path = Path(path)
    try:
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
        events = [e for e in events if e.get("ph") == "X" and e.get("cat") in HOST | DEVICE]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no trace of torch.profiler: {error}. Write one with smml.profiling.trace."
        ) from error
    steps = sorted((e for e in events if _is_step(e)), key=lambda e: e["ts"])
    if not steps:
        raise UserError(
            f"{path} holds no step (a range called ProfilerStep#0): write it with smml.profiling.trace, "
            "or call the profiler's step() after each one."
        )
    return _parsed(path, events, steps)


def _is_step(event: dict[str, Any]) -> bool:
    return event["cat"] == "user_annotation" and bool(STEP.fullmatch(event["name"]))


def _parsed(path: Path, events: list[dict[str, Any]], steps: list[dict[str, Any]]) -> Trace:
    zero = steps[0]["ts"]
    bounds = [((e["ts"] - zero) * 1e-6, (e["ts"] + e["dur"] - zero) * 1e-6) for e in steps]
    host = [e for e in events if e["cat"] in HOST and not _is_step(e)]
    nested = list(_nested(host))
    # Phases are told by time, not by thread: on a GPU backward runs in a thread of its own.
    ranges = sorted(
        (
            ((e["ts"] - zero) * 1e-6, (e["ts"] + e["dur"] - zero) * 1e-6, e["name"])
            for e, _, _, top in nested
            if HOST[e["cat"]] == "range" and top
        ),
    )
    starts, step_starts = [r[0] for r in ranges], [b[0] for b in bounds]

    def place(start: float) -> tuple[str, int]:
        step = bisect_right(step_starts, start) - 1
        if step >= 0 and start > bounds[step][1]:
            step = -1
        index = bisect_right(starts, start) - 1
        inside = index >= 0 and start <= ranges[index][1]
        return (ranges[index][2] if inside else BETWEEN), step

    spans, launched = [], {}
    for event, self_us, leaf, top in nested:
        start = (event["ts"] - zero) * 1e-6
        phase, step = place(start)
        span = _span(event, HOST, start, self_us, leaf, top, phase, step)
        spans.append(span)
        if span.kind == "runtime" and span.correlation is not None:
            launched[span.correlation] = (phase, step)
    for event in (e for e in events if e["cat"] in DEVICE):
        start = (event["ts"] - zero) * 1e-6
        phase, step = launched.get(event.get("args", {}).get("correlation"), place(start))
        spans.append(_span(event, DEVICE, start, event["dur"], True, True, phase, step))
    kept = sorted((s for s in spans if s.step >= 0), key=lambda s: s.start_s)
    for span in kept:
        if span.kind in DEVICE.values():
            start, end = bounds[span.step]
            bounds[span.step] = (start, max(end, span.end_s))
    return Trace(path, tuple(kept), tuple(bounds))


def _span(
    event: dict[str, Any],
    kinds: dict[str, str],
    start: float,
    self_us: float,
    leaf: bool,
    top: bool,
    phase: str,
    step: int,
) -> Span:
    arguments = event.get("args", {})
    return Span(
        event["name"],
        kinds[event["cat"]],
        start,
        event["dur"] * 1e-6,
        self_us * 1e-6,
        leaf,
        top,
        phase,
        step,
        arguments.get("correlation"),
        # A number without dimensions is Python's own, which is always a double.
        frozenset(
            kind
            for kind, dims in zip(
                arguments.get("Input type", ()), arguments.get("Input Dims", ()), strict=False
            )
            if isinstance(kind, str) and kind and dims
        ),
    )


def _nested(
    events: Iterable[dict[str, Any]],
) -> Iterable[tuple[dict[str, Any], float, bool, bool]]:
    """(event, its own microseconds, whether it is a leaf, whether none of its kind is around it), thread by thread."""
    threads = defaultdict(list)
    for event in events:
        threads[event["tid"]].append(event)
    for thread in threads.values():
        thread.sort(key=lambda e: (e["ts"], -e["dur"]))
        stack: list[list[Any]] = []  # [event, own time, leaf, top]
        for event in thread:
            while stack and event["ts"] >= stack[-1][0]["ts"] + stack[-1][0]["dur"]:
                yield tuple(stack.pop())
            kind = HOST[event["cat"]]
            around = [level for level in stack if HOST[level[0]["cat"]] == kind]
            if around:
                around[-1][1] -= event["dur"]
                around[-1][2] = False
            stack.append([event, event["dur"], True, not around])
        while stack:
            yield tuple(stack.pop())
