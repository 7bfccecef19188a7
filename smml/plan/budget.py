"""A whole training: tokens, days, accelerator-hours, dollars. Pure."""

import math
from dataclasses import dataclass

from smml.errors import UserError
from smml.plan.step import Step

DAY_S, HOUR_S = 86_400, 3600


@dataclass(frozen=True)
class Budget:
    """What `tokens` tokens take: steps, seconds of training, of the wall clock with failures, hours, USD (or None).

    `gpu_hours` are those of the accelerators that work, `billed_gpu_hours` of the whole lots that are paid for.
    """

    tokens: float
    steps: int
    training_s: float
    wall_s: float
    gpu_hours: float
    billed_gpu_hours: float
    usd: float | None

    @property
    def days(self) -> float:
        """Days of the wall clock."""
        return self.wall_s / DAY_S

    @property
    def usd_per_million_tokens(self) -> float | None:
        """Of training, failures included; None without a price."""
        return None if self.usd is None else self.usd / self.tokens * 1e6


def budget(step: Step, tokens: float, goodput: float = 1.0) -> Budget:
    """What training on `tokens` tokens takes in whole steps; `goodput` is the share of time that trains.

    Raises UserError naming the field.
    """
    if not (tokens > 0 and math.isfinite(tokens)):
        raise UserError(f"tokens is {tokens!r}: give a number above 0.")
    if not 0 < goodput <= 1:
        raise UserError(f"goodput is {goodput!r}: give a share above 0 and at most 1.")
    steps = math.ceil(tokens / step.job.tokens_per_step)
    training = steps * step.seconds
    wall = training / goodput
    hours, billed = (wall * n / HOUR_S for n in (step.cluster.gpus, step.cluster.billed_gpus))
    price = step.cluster.price_usd_per_gpu_hour
    usd = None if price is None else billed * price
    return Budget(tokens, steps, training, wall, hours, billed, usd)
