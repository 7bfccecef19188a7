"""One job on interruptible instances: when it ends and what it costs, in closed form and simulated. Pure.

Interruptions are a Poisson process while instances run. The job checkpoints at fixed marks of its own progress and at
its end; every start, the first too, pays `startup_s` until the first step. Without the two-minute notice an
interruption loses the work since the last mark. With it the job stops `checkpoint_s` before the instance goes and
writes a checkpoint, so that no finished step is lost. Waiting for capacity is time that nobody bills.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from smml.data.limits import limit
from smml.errors import UserError
from smml.plan.goodput import Reliability, daly_interval_s, young_interval_s

HOUR_S = 3600.0
# Beyond this many interruptions a run is as good as never done; e^700 is the largest that a float holds.
_MOST_INTERRUPTIONS = 100_000
_LARGEST_EXPONENT = 700.0
# Interruptions in a job so few that floats no longer tell them from none.
_NEVER = 1e-12


@dataclass(frozen=True)
class SpotJob:
    """`work_hours` of steps, `interval_hours` of work between checkpoints, seconds of each overhead.

    startup_s       from a new instance to its first step: boot, image, weights
    wait_s          until new capacity comes, not billed
    use_notice      whether the notice makes the job checkpoint; raises UserError where that takes longer than the notice
    Raises UserError naming the field.
    """

    work_hours: float
    interval_hours: float
    checkpoint_s: float
    startup_s: float = 0.0
    wait_s: float = 0.0
    use_notice: bool = False

    def __post_init__(self) -> None:
        for name in ("work_hours", "interval_hours"):
            _number(name, getattr(self, name), above=True)
        for name in ("checkpoint_s", "startup_s", "wait_s"):
            _number(name, getattr(self, name))
        notice = limit("spot_notice")
        if self.use_notice and self.checkpoint_s > notice.value:
            raise UserError(
                f"checkpoint_s is {self.checkpoint_s!r} and the notice comes {notice.value:g} s ahead: "
                "make checkpoints shorter, or set use_notice = False."
            )

    @property
    def checkpoints(self) -> int:
        """Checkpoints that a run without interruptions writes, the one at its end included."""
        return math.ceil(self.work_hours / self.interval_hours * (1 - 1e-12))

    @property
    def running_hours(self) -> float:
        """Work and the checkpoints between: what must run after a start, if nothing interrupts it."""
        return self.work_hours + self.checkpoints * self.checkpoint_s / HOUR_S

    @property
    def uninterrupted_hours(self) -> float:
        """Start-up, work and checkpoints: billed hours where nothing is interrupted."""
        return self.startup_s / HOUR_S + self.running_hours


@dataclass(frozen=True)
class Market:
    """What the instances of one job cost together an hour, and how often the job is interrupted in an hour of running.

    A job on several instances stops when one goes: its rate is the sum of theirs. Raises UserError naming the field.
    """

    usd_per_hour: float
    interruptions_per_hour: float

    def __post_init__(self) -> None:
        _number("usd_per_hour", self.usd_per_hour)
        _number("interruptions_per_hour", self.interruptions_per_hour)


@dataclass(frozen=True)
class Expected:
    """Means over all runs of the job, in closed form."""

    billed_hours: float
    finish_hours: float
    interruptions: float
    usd: float


@dataclass(frozen=True)
class Spread:
    """Mean and quantiles of simulated runs."""

    mean: float
    p20: float
    p50: float
    p80: float

    @classmethod
    def of(cls, values: np.ndarray) -> Self:
        """Of an array of one figure a run, [runs]."""
        return cls(float(values.mean()), *map(float, np.quantile(values, (0.2, 0.5, 0.8))))


@dataclass(frozen=True)
class Simulated:
    """Simulated runs: hours billed, hours until the job is done, interruptions, hours of work done twice, USD."""

    runs: int
    billed_hours: Spread
    finish_hours: Spread
    interruptions: Spread
    redone_hours: Spread
    usd: Spread


def expected(job: SpotJob, market: Market) -> Expected:
    """Closed form, exact for this model.

    Without notice each stretch between checkpoints takes M·e^(R/M)·(e^((τ+δ)/M) − 1), J. T. Daly, Future Generation
    Computer Systems 22(3), 2006, equation 20, and the first start M·(e^(R/M) − 1). With it, of W hours of running,
    W/M interruptions each cost s = R + δ, and each start M·(e^(s/M) − 1 − s/M) more for starts that were interrupted
    themselves. Interruptions are those of a Poisson process over the billed hours. Infinite beyond e^700.
    """
    rate, hours = market.interruptions_per_hour, job.uninterrupted_hours
    if rate * hours > _NEVER:
        hours = _billed_hours(job, 1 / rate)
    interruptions = hours * rate
    waited = (
        interruptions * job.wait_s / HOUR_S if job.wait_s else 0.0
    )  # none of infinitely many is none
    usd = hours * market.usd_per_hour if market.usd_per_hour else 0.0
    return Expected(hours, hours + waited, interruptions, usd)


def _billed_hours(job: SpotJob, mean: float) -> float:
    startup, pause = job.startup_s / HOUR_S, job.checkpoint_s / HOUR_S
    if job.use_notice:
        overhead = startup + pause
        if overhead / mean > _LARGEST_EXPONENT:
            return math.inf
        done = job.running_hours / mean  # interruptions of starts that came to work
        again = mean * math.expm1(overhead / mean) - overhead
        return job.running_hours + done * overhead + startup + (done + 1) * again
    whole = job.checkpoints - 1
    last = job.work_hours - whole * job.interval_hours + pause
    stretches = [(1, last)] + [(whole, job.interval_hours + pause)] * (whole > 0)
    if (startup + max(hours for _, hours in stretches)) / mean > _LARGEST_EXPONENT:
        return math.inf
    times = sum(number * math.expm1(hours / mean) for number, hours in stretches)
    return mean * (math.expm1(startup / mean) + math.exp(startup / mean) * times)


def simulate(job: SpotJob, market: Market, *, runs: int = 10_000, seed: int = 0) -> Simulated:
    """Run the job `runs` times, interruption by interruption; the same seed draws the same times for every job.

    Raises UserError for a job that is interrupted so often that it does not come to its end.
    """
    if not isinstance(runs, int) or runs < 1:
        raise UserError(f"runs is {runs!r}: give a whole number of 1 or more.")
    mean = HOUR_S / market.interruptions_per_hour if market.interruptions_per_hour else math.inf
    generator = np.random.default_rng(seed)
    billed, redone = np.zeros(runs), np.zeros(runs)  # [runs], s
    count = np.zeros(runs, dtype=np.int64)
    position = np.zeros(runs)  # [runs], s of running that need not be done again
    total, cycle = job.running_hours * HOUR_S, job.interval_hours * HOUR_S + job.checkpoint_s
    active = np.arange(runs)
    for _ in range(_MOST_INTERRUPTIONS):
        gap = generator.standard_exponential(runs)[active]
        gap = gap * mean if math.isfinite(mean) else np.full(len(active), math.inf)
        ran = np.maximum(gap - job.startup_s, 0.0)
        left = total - position[active]
        # With the notice the job stops a checkpoint's time early, unless it is at its end by then.
        usable = ran - job.checkpoint_s if job.use_notice else ran
        done = usable >= left
        billed[active] += np.where(done, job.startup_s + left, gap)
        stopped, usable = active[~done], np.maximum(usable[~done], 0.0)
        count[stopped] += 1
        reached = position[stopped] + usable
        if job.use_notice:
            position[stopped] = reached
        else:
            position[stopped] = _marks(reached, cycle, job.checkpoints)
            redone[stopped] += reached - position[stopped]
        active = stopped
        if not len(active):
            hours = billed / HOUR_S
            finish = hours + count * job.wait_s / HOUR_S
            parts = (hours, finish, count, redone / HOUR_S, hours * market.usd_per_hour)
            return Simulated(runs, *map(Spread.of, parts))
    raise UserError(
        f"{len(active)} of {runs} runs are not done after {_MOST_INTERRUPTIONS:,} interruptions: shorten interval_hours "
        f"({job.interval_hours:g}) or startup_s ({job.startup_s:g}), or choose a pool with fewer interruptions."
    )


def _marks(reached_s: np.ndarray, cycle_s: float, checkpoints: int) -> np.ndarray:
    """Where the last checkpoint stands; the one at the end of the job is not there before the job is done."""
    return np.minimum(np.floor(reached_s / cycle_s), checkpoints - 1) * cycle_s


def best_interval_hours(job: SpotJob, market: Market) -> float:
    """Hours of work between checkpoints, among W, W/2, W/3 …, at which the job costs least without notice; closed form.

    Raises UserError where nothing interrupts the job or a checkpoint costs nothing: then no interval is the best.
    """
    rate = market.interruptions_per_hour
    if not (rate > 0 and job.checkpoint_s > 0):
        raise UserError(
            f"interruptions_per_hour is {rate!r} and checkpoint_s is {job.checkpoint_s!r}: both must be above 0 for "
            "an interval to be the best."
        )
    pause = job.checkpoint_s / HOUR_S

    def hours(parts: int) -> float:
        stretch = (job.work_hours / parts + pause) * rate
        return parts * math.expm1(stretch) if stretch < _LARGEST_EXPONENT else math.inf

    # Convex in the number of parts, so walk down from where Young's interval would put it.
    parts = max(1, round(job.work_hours / intervals(job, market)["Young"]))
    while hours(parts + 1) < hours(parts):
        parts += 1
    while parts > 1 and hours(parts - 1) <= hours(parts):
        parts -= 1
    return job.work_hours / parts


def intervals(job: SpotJob, market: Market) -> dict[str, float]:
    """Hours of work between checkpoints by Young's and by Daly's formula (smml.plan.goodput); raises UserError."""
    rate = market.interruptions_per_hour
    mean_s = HOUR_S / rate if rate else math.inf
    reliability = Reliability(mean_s, job.checkpoint_s, restart_s=job.startup_s)
    return {
        "Young": young_interval_s(reliability) / HOUR_S,
        "Daly": daly_interval_s(reliability) / HOUR_S,
    }


def _number(name: str, value: float, *, above: bool = False) -> None:
    if not (math.isfinite(value) and (value > 0 if above else value >= 0)):
        raise UserError(
            f"{name} is {value!r}: give a number {'above 0' if above else 'of 0 or more'}."
        )
