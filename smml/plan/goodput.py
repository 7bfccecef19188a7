"""Failures: what share of the time trains, at which checkpoint interval the most of it, and the same simulated. Pure.

J. W. Young, CACM 17(9), 1974; J. T. Daly, Future Generation Computer Systems 22(3), 2006. Failures come at random with
a mean time between them that shrinks as 1 ÷ devices; each costs detection, restart and the work since the last
checkpoint, and may strike during a restart too.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from smml.errors import UserError

# 419 unexpected interruptions in 54 days on 16,384 H100 (arXiv:2407.21783, section 3.3.4).
LLAMA_3_GPU_HOURS_BETWEEN_FAILURES = 16_384 * 54 * 24 / 419


@dataclass(frozen=True)
class Reliability:
    """Seconds: mean time between failures of the whole job, a checkpoint's pause, detection, restart.

    `durable_s`: how long after its pause an asynchronous checkpoint can be restored. Raises UserError naming the field.
    """

    mean_time_between_failures_s: float
    checkpoint_s: float
    detection_s: float = 0.0
    restart_s: float = 0.0
    durable_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mean_time_between_failures_s", "checkpoint_s"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise UserError(f"{name} is {value!r}: give a number of seconds above 0.")
        for name in ("detection_s", "restart_s", "durable_s"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise UserError(f"{name} is {value!r}: give a number of seconds, 0 or more.")

    @property
    def recovery_s(self) -> float:
        """From the failure to the first new step, if nothing else fails."""
        return self.detection_s + self.restart_s


def mean_time_between_failures_s(
    gpus: int, gpu_hours: float = LLAMA_3_GPU_HOURS_BETWEEN_FAILURES
) -> float:
    """Seconds between failures of a job on `gpus` devices that each fail once in `gpu_hours`; raises UserError."""
    if not gpus >= 1:
        raise UserError(f"gpus is {gpus!r}: give a whole number of 1 or more.")
    if not gpu_hours > 0:
        raise UserError(f"gpu_hours is {gpu_hours!r}: give a number above 0.")
    return gpu_hours * 3600 / gpus


def checkpoint_seconds(parameters: float, storage_bytes_per_s: float) -> float:
    """Seconds to write weights in float32 and two moments, 12 bytes a parameter; raises UserError naming the field."""
    for name, value in {
        "parameters": parameters,
        "storage_bytes_per_s": storage_bytes_per_s,
    }.items():
        if not value > 0:
            raise UserError(f"{name} is {value!r}: give a number above 0.")
    return 12 * parameters / storage_bytes_per_s


def young_interval_s(reliability: Reliability) -> float:
    """Seconds of work between checkpoints, sqrt(2·δ·M): where δ is far below M."""
    r = reliability
    return math.sqrt(2 * r.checkpoint_s * r.mean_time_between_failures_s)


def daly_interval_s(reliability: Reliability) -> float:
    """Daly's interval of higher order (equation 37); M where a checkpoint takes 2·M or more."""
    delta, mean = reliability.checkpoint_s, reliability.mean_time_between_failures_s
    if delta >= 2 * mean:
        return mean
    x = delta / (2 * mean)
    return math.sqrt(2 * delta * mean) * (1 + math.sqrt(x) / 3 + x / 9) - delta


def expected_goodput(reliability: Reliability, interval_s: float) -> float:
    """Share of the time that is work which counts, by Daly's complete model (equation 20), failures exponential.

    T = M·e^(R/M)·(e^((τ+δ)/M) − 1) for each τ of work; an asynchronous checkpoint's lag adds to what is lost.
    """
    _positive(interval_s)
    mean = reliability.mean_time_between_failures_s
    exponent = (interval_s + reliability.checkpoint_s) / mean
    recovery = (reliability.recovery_s + reliability.durable_s) / mean
    if exponent + recovery > 700:
        return 0.0
    return interval_s / (mean * math.exp(recovery) * math.expm1(exponent))


def most_failures(reliability: Reliability, seconds: float, confidence: float) -> int:
    """The fewest failures that are not exceeded in `confidence` of all spans of `seconds` (Poisson); raises UserError.

    Above a thousand expected ones by the normal distribution of the same mean and variance.
    """
    if not 0 < confidence < 1:
        raise UserError(f"confidence is {confidence!r}: give a number above 0 and below 1.")
    expected = seconds / reliability.mean_time_between_failures_s
    if expected > 1000:
        return math.ceil(expected + NormalDist().inv_cdf(confidence) * math.sqrt(expected))
    count, chance = 0, math.exp(-expected)
    below = chance
    while below < confidence:
        count += 1
        chance *= expected / count
        below += chance
    return count


@dataclass(frozen=True)
class Simulated:
    """Share of the time by what it went into; `goodput` is work that counts."""

    goodput: float
    checkpoints: float
    lost_work: float
    recovery: float
    failures: int


def simulate(
    reliability: Reliability,
    interval_s: float,
    *,
    failures: int = 20_000,
    shape: float = 1.0,
    seed: int = 0,
) -> Simulated:
    """Run a job through `failures` failures, event by event: work, checkpoint, failure, detection, restart.

    `shape` is the Weibull shape of the times between failures: 1 exponential, below 1 failures that come in bursts,
    where Young and Daly no longer hold. Raises UserError naming the field.
    """
    _positive(interval_s)
    if not shape > 0:
        raise UserError(f"shape is {shape!r}: give a number above 0.")
    if not isinstance(failures, int) or failures < 1:
        raise UserError(f"failures is {failures!r}: give a whole number of 1 or more.")
    r = reliability
    scale = r.mean_time_between_failures_s / math.gamma(1 + 1 / shape)
    gaps = scale * np.random.default_rng(seed).weibull(shape, failures)
    # A failure during recovery starts the recovery anew; else the rest of the gap is work and checkpoints.
    recovering = np.minimum(gaps, r.recovery_s)
    recovering[0] = 0.0  # the job starts whole
    running = gaps - recovering
    cycle = interval_s + r.checkpoint_s
    begun = np.floor(running / cycle)
    kept = np.clip(np.floor((running - r.durable_s) / cycle), 0, begun)
    total = gaps.sum()
    work, pauses = kept.sum() * interval_s, kept.sum() * r.checkpoint_s
    lost = running.sum() - work - pauses
    return Simulated(
        float(work / total),
        float(pauses / total),
        float(lost / total),
        float(recovering.sum() / total),
        failures,
    )


def _positive(interval_s: float) -> None:
    if not (interval_s > 0 and math.isfinite(interval_s)):
        raise UserError(f"interval_s is {interval_s!r}: give a number of seconds above 0.")
