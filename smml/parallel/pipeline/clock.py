"""When a rank computes: the monotonic clock on a CPU, CUDA events on a GPU, whose work ends later than its calls."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from smml.parallel.pipeline.schedules import Action
from smml.parallel.pipeline.simulate import Span


class Clock:
    """Pass it to a Pipeline; `start` before a step, `stop` behind it."""

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"
        self._marks: list[tuple[Action, object, object]] = []
        self._start = self._now()

    @contextmanager
    def __call__(self, action: Action) -> Iterator[None]:
        """Around an action."""
        before = self._now()
        yield
        self._marks.append((action, before, self._now()))

    def start(self) -> None:
        """Forget what was, and begin at 0."""
        self._marks.clear()
        self._start = self._now()

    def stop(self) -> tuple[list[Span], float]:
        """The actions since `start`, and the seconds until now."""
        end = self._now()
        if self._on_gpu:
            torch.cuda.synchronize()
        spans = [Span(a, self._since(x), self._since(y)) for a, x, y in self._marks]
        return spans, self._since(end)

    def _now(self) -> float | torch.cuda.Event:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _since(self, moment: float | torch.cuda.Event) -> float:
        if self._on_gpu:
            return self._start.elapsed_time(moment) * 1e-3
        return moment - self._start
