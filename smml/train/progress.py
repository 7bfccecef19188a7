"""How fast a run goes: tokens per second, share of the peak, memory, time left."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

from smml.train.precision import Peak


@dataclass(frozen=True)
class Speed:
    """Since the last lap; `share` is of the peak's FLOP/s, None where no peak is known."""

    tokens_per_second: float
    share: float | None
    memory_bytes: int
    left_s: float


class Meter:
    """Times laps of whole steps, evaluations and checkpoints left out. `step_flops` are the model's, not recomputed."""

    def __init__(
        self,
        step_tokens: int,
        step_flops: int,
        steps: int,
        start: int,
        peak: Peak | None,
        device: torch.device,
    ) -> None:
        self.step_tokens, self.step_flops, self.steps = step_tokens, step_flops, steps
        self.peak, self.device = peak, device
        self._step, self._since = start, time.perf_counter()

    def lap(self, step: int) -> Speed:
        """Speed of the steps since the last lap, of which `step` was the last; the device must be done with it."""
        seconds = (time.perf_counter() - self._since) / (step - self._step)
        self._step, self._since = step, time.perf_counter()
        share = self.step_flops / seconds / self.peak.flops_per_s if self.peak else None
        return Speed(
            self.step_tokens / seconds, share, self._memory(), (self.steps - step) * seconds
        )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside the block belongs to no lap."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def text(self, step: int, loss: float, speed: Speed) -> str:
        """The progress line."""
        share = (
            f"{speed.share:.0%} {self.peak.label}" if self.peak else "MFU unknown (no peak known)"
        )
        kind = "GPU memory" if self.device.type == "cuda" else "memory"
        minutes, seconds = divmod(round(speed.left_s), 60)
        return (
            f"step {step}/{self.steps}  loss {loss:.4f}  {speed.tokens_per_second:,.0f} tok/s  {share}  "
            f"{kind} {speed.memory_bytes / 2**30:.2f} GiB  left {minutes}:{seconds:02d}"
        )

    def _memory(self) -> int:
        """Most bytes of GPU memory so far, or the bytes of main memory that the process holds now."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return psutil.Process().memory_info().rss


def show(text: str, *, stays: bool) -> None:
    """Print a progress line; on a terminal the next one takes its place unless it `stays`."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text}", end="\n" if stays else "", flush=True)
    else:
        print(text, flush=True)
