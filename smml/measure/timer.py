"""Time a call: warm-up, adaptive repeats, quantiles; CUDA events on a GPU, the monotonic clock on a CPU."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from smml.errors import UserError

MIN_SAMPLES = 5  # below this a 20th and an 80th percentile are the same few numbers
SHORTEST_SAMPLE_S = (
    200e-6  # a sample this long keeps the clock's and the loop's own cost under about 1 %
)


@dataclass(frozen=True)
class Timing:
    """Samples of the seconds that ONE call took; at least MIN_SAMPLES of them, else UserError."""

    samples_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.samples_s) < MIN_SAMPLES:
            raise UserError(
                f"{len(self.samples_s)} samples are too few for p20/p50/p80: at least {MIN_SAMPLES} are needed; "
                "raise budget_s or max_samples."
            )
        if not all(math.isfinite(s) and s > 0 for s in self.samples_s):
            raise UserError(
                f"a sample is not a positive time: {min(self.samples_s)} s; time a longer call."
            )

    def quantile(self, q: float) -> float:
        """Seconds at quantile `q` in 0..1, linearly interpolated between the sorted samples."""
        ordered = sorted(self.samples_s)
        position = q * (len(ordered) - 1)
        low = math.floor(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (position - low) * (ordered[high] - ordered[low])

    @cached_property
    def p20(self) -> float:
        """Seconds: one call in five was faster."""
        return self.quantile(0.2)

    @cached_property
    def p50(self) -> float:
        """Seconds: the median call."""
        return self.quantile(0.5)

    @cached_property
    def p80(self) -> float:
        """Seconds: one call in five was slower."""
        return self.quantile(0.8)

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.samples_s)

    @property
    def spread(self) -> float:
        """(p80 − p20) / p50, dimensionless: how far repeats of the same call lie apart."""
        return (self.p80 - self.p20) / self.p50


def time_call(
    call: Callable[[], object],
    *,
    device: str = "cpu",
    budget_s: float = 0.5,
    max_samples: int = 200,
    target_spread: float = 0.02,
    flush_bytes: int = 0,
) -> Timing:
    """Time `call()`: repeats until its spread is under `target_spread`, or `budget_s` or `max_samples` is spent.

    A call shorter than SHORTEST_SAMPLE_S is looped inside one sample; with `flush_bytes` > 0 a buffer of that
    size is overwritten before every sample, so that the call starts with cold caches, and is never looped.
    """
    return time_interleaved(
        {"call": call},
        device=device,
        budget_s=budget_s,
        max_samples=max_samples,
        target_spread=target_spread,
        flush_bytes=flush_bytes,
    )["call"]


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    device: str = "cpu",
    budget_s: float = 0.5,
    max_samples: int = 200,
    target_spread: float = 0.02,
    flush_bytes: int = 0,
) -> dict[str, Timing]:
    """Time peers in one run: one sample of each in turn, so that a slow second of the machine hits all alike.

    `budget_s` is the time for each call; arguments otherwise as in `time_call`.
    """
    if max_samples < MIN_SAMPLES:
        raise UserError(f"max_samples={max_samples} is too few: give at least {MIN_SAMPLES}.")
    if not calls:
        raise UserError("nothing to time: give at least one call.")
    clock = _clock(device)
    flush = _flusher(device, flush_bytes)
    loops = {}
    for name, call in calls.items():
        first = clock(call, 1)  # compiles, allocates, fills caches: never counted
        estimate = min(first, clock(call, 1))
        loops[name] = 1 if flush_bytes else max(1, math.ceil(SHORTEST_SAMPLE_S / estimate))
        clock(call, loops[name])
    samples: dict[str, list[float]] = {name: [] for name in calls}
    deadline = time.perf_counter() + budget_s * len(calls)
    while True:
        for name, call in calls.items():
            flush()
            samples[name].append(clock(call, loops[name]))
        taken = len(next(iter(samples.values())))
        if taken < MIN_SAMPLES:
            continue
        timings = {name: Timing(tuple(values)) for name, values in samples.items()}
        settled = (
            taken >= 2 * MIN_SAMPLES and max(t.spread for t in timings.values()) <= target_spread
        )
        if settled or taken >= max_samples or time.perf_counter() >= deadline:
            return timings


def _clock(device: str) -> Callable[[Callable[[], object], int], float]:
    """A function (call, loops) → seconds of one call, for the kind of `device` ("cpu", "cuda", "cuda:1")."""
    if device.startswith("cuda"):
        import torch

        def on_gpu(call: Callable[[], object], loops: int) -> float:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(loops):
                call()
            end.record()
            end.synchronize()
            return start.elapsed_time(end) * 1e-3 / loops

        return on_gpu
    if device != "cpu":
        raise UserError(f"cannot time on device {device!r}: 'cpu' and 'cuda' are known.")

    def on_cpu(call: Callable[[], object], loops: int) -> float:
        start = time.perf_counter()
        for _ in range(loops):
            call()
        return (time.perf_counter() - start) / loops

    return on_cpu


def _flusher(device: str, flush_bytes: int) -> Callable[[], object]:
    """A function that evicts the caches by overwriting a buffer of `flush_bytes`, or does nothing for 0."""
    if not flush_bytes:
        return lambda: None
    import torch

    buffer = torch.empty(flush_bytes, dtype=torch.uint8, device=device)
    return buffer.zero_


def slowed(call: Callable[[], object], factor: int) -> Callable[[], object]:
    """`call` made `factor` times slower by doing it `factor` times: proves that a comparison can fail."""
    if factor < 1:
        raise UserError(
            f"a slowdown of {factor} is not possible: give a whole number of at least 1."
        )

    def repeated() -> None:
        for _ in range(factor):
            call()

    return repeated
