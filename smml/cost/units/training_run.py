"""What a training run costs in all: work that counts, checkpoints' pauses, failures, idle devices, storage, transfer."""

import math
from dataclasses import dataclass

from smml.cost.units.bill import Bill
from smml.cost.units.stored import Kept, StoragePrices, checkpoint_bytes_hours
from smml.cost.units.unit_economics import Job, run_cost
from smml.errors import UserError
from smml.plan.goodput import Reliability, daly_interval_s, expected_goodput


@dataclass(frozen=True)
class TrainingRun:
    """A run to the end: tokens, hours that count, hours of the wall clock, hours between checkpoints, the bill."""

    tokens: float
    training_hours: float
    wall_hours: float
    checkpoint_every_hours: float | None
    device_hours_used: float | None
    bill: Bill

    @property
    def usd(self) -> float:
        """Everything."""
        return self.bill.usd

    @property
    def goodput(self) -> float:
        """Share of the paid time that trains."""
        return self.training_hours / self.wall_hours

    @property
    def usd_per_million_tokens(self) -> float:
        """Everything ÷ the tokens trained on × 10⁶."""
        return self.usd / self.tokens * 1e6

    @property
    def usd_per_device_hour_used(self) -> float | None:
        """Everything ÷ the accelerator-hours that trained; None where the job has no known accelerators."""
        return self.usd / self.device_hours_used if self.device_hours_used else None


def training_run(
    job: Job,
    tokens: float,
    *,
    reliability: Reliability | None = None,
    interval_s: float | None = None,
    kept: Kept | None = None,
    prices: StoragePrices | None = None,
) -> TrainingRun:
    """The whole run of `job` over `tokens`, with `reliability` of its failures and checkpoints (None: it never fails).

    `interval_s` of work lie between checkpoints, Daly's optimum where None. `kept` and `prices` go together. Raises
    UserError naming the field, and where failures come faster than checkpoints, so that the run never ends.
    """
    if (kept is None) != (prices is None):
        raise UserError(
            "kept and prices go together: what is stored, and what it costs; give both or neither."
        )
    if reliability is None and interval_s is not None:
        raise UserError(
            "interval_s is given without reliability; give the seconds of a checkpoint in it."
        )
    plain = run_cost(job, tokens)
    wall, every, pauses = plain.hours, None, 0.0
    if reliability is not None:
        interval_s = daly_interval_s(reliability) if interval_s is None else interval_s
        goodput = expected_goodput(reliability, interval_s)
        if not goodput > 0:
            raise UserError(
                f"interval_s is {interval_s:,.0f} and a failure comes every "
                f"{reliability.mean_time_between_failures_s:,.0f} s: the run never ends; checkpoint more often."
            )
        wall = plain.hours / goodput
        pauses = plain.hours * reliability.checkpoint_s / interval_s
        every = interval_s / goodput / 3600
    parts = _compute(job, plain.hours, pauses, wall)
    if kept is not None and prices is not None:
        parts |= _storage(kept, prices, wall, every)
    used = plain.hours * job.world_size if job.accelerators else None
    return TrainingRun(tokens, plain.hours, wall, every, used, Bill(parts))


def _compute(job: Job, training: float, pauses: float, wall: float) -> dict[str, float]:
    """USD of the instances by what their time went into; devices that no rank uses are paid all the time."""
    busy = job.world_size / job.accelerators if job.accelerators else 1.0
    a_running_hour = job.usd_per_hour * busy
    return {
        "training": a_running_hour * training,
        "checkpoint pauses": a_running_hour * pauses,
        # Rounding may leave less than nothing where failures are rare.
        "failures": a_running_hour * max(0.0, wall - training - pauses),
        "idle devices": job.usd_per_hour * (1 - busy) * wall,
    }


def _storage(
    kept: Kept, prices: StoragePrices, wall: float, every: float | None
) -> dict[str, float]:
    """USD of what lies there and what is sent; without checkpoints in between, the last one is the result."""
    checkpoints = 0.0
    if every is not None and math.isfinite(every):
        checkpoints = checkpoint_bytes_hours(
            kept.checkpoint_bytes, kept.checkpoints_kept, every, wall
        )
    return {
        "checkpoint storage": prices.keeping(checkpoints),
        "data storage": prices.keeping(kept.data_bytes * (kept.data_hours_before + wall)),
        "weights storage": prices.keeping(kept.weights_bytes * kept.weights_hours_after),
        "transfer": prices.sending(kept.sent_bytes),
    }
