"""How much is used when: instance-hours in each hour of a period that repeats, such as a week or a month."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smml.cost.decisions.decision import HOURS_PER_MONTH
from smml.errors import UserError


@dataclass(frozen=True, eq=False)
class Demand:
    """`load`: [hours of the period] instance-hours used in each of them, 2.5 where two run and one half of the time.

    The period repeats without a gap. Raises UserError for an empty load and for one that is negative or not finite.
    """

    load: np.ndarray

    def __post_init__(self) -> None:
        load = np.asarray(self.load, dtype=float)
        if load.ndim != 1 or not load.size:
            raise UserError(
                f"load has shape {load.shape}; give one number of instance-hours for each hour of the period."
            )
        if not (np.isfinite(load).all() and (load >= 0).all()):
            wrong = float(load[~(np.isfinite(load) & (load >= 0))][0])
            raise UserError(f"load holds {wrong!r}; give 0 or more instance-hours for each hour.")
        object.__setattr__(self, "load", load)

    @property
    def peak(self) -> float:
        """Most instance-hours of an hour: the instances that must be there."""
        return float(self.load.max())

    @property
    def hours_per_month(self) -> float:
        """Instance-hours of a mean month."""
        return float(self.load.mean()) * HOURS_PER_MONTH

    @property
    def utilization(self) -> float:
        """Used share of the peak's instances, all the time; 0 where nothing is used."""
        return float(self.load.mean()) / self.peak if self.peak else 0.0

    def over(self, months: float) -> np.ndarray:
        """[hours of the horizon] instance-hours; a last hour that the horizon cuts counts by its share."""
        hours = horizon_hours(months)
        whole = math.ceil(hours - 1e-9)
        load = np.resize(self.load, whole)
        load[-1] *= 1 - max(0.0, whole - hours)
        return load

    def covered(self, instances: float) -> float:
        """Share of the time that `instances` are at work, when they take the load first; 0 for no instance."""
        if not instances > 0:
            return 0.0
        return float(np.minimum(self.load, instances).mean()) / instances


def monthly(hours: float, instances: int = 1) -> Demand:
    """`instances` that each run `hours` of every month of 730 hours, all together from the month's first hour on.

    Raises UserError for more hours than a month has, and for less than one instance.
    """
    if not 0 <= hours <= HOURS_PER_MONTH:
        raise UserError(
            f"hours a month are {hours!r}; a month has {HOURS_PER_MONTH:g}: give 0 to {HOURS_PER_MONTH:g} of one instance."
        )
    if not instances >= 1:
        raise UserError(f"instances is {instances!r}; give a whole number of 1 or more.")
    return Demand(instances * np.clip(hours - np.arange(int(HOURS_PER_MONTH)), 0.0, 1.0))


def weekly(hours_by_day: Sequence[float], instances: int = 1, starts_at: int = 0) -> Demand:
    """A week of seven days, Monday first: `instances` run that many hours of each day, from hour `starts_at` on.

    Raises UserError naming the day.
    """
    if len(hours_by_day) != 7:
        raise UserError(f"hours_by_day has {len(hours_by_day)} entries; give seven, Monday first.")
    week = np.zeros((7, 24))
    for day, hours in enumerate(hours_by_day):
        if not 0 <= starts_at + hours <= 24 or hours < 0:
            raise UserError(
                f"hours_by_day[{day}] is {hours!r} from {starts_at} o'clock; a day has 24 hours: give fewer."
            )
        week[day] = np.clip(hours - (np.arange(24) - starts_at), 0.0, 1.0)
        week[day, :starts_at] = 0.0
    return Demand(instances * week.ravel())


def horizon_hours(months: float) -> float:
    """Hours of `months` months of 730 hours; raises UserError for a horizon of 0 or less."""
    if not (months > 0 and math.isfinite(months)):
        raise UserError(f"months is {months!r}; give a horizon above 0.")
    return months * HOURS_PER_MONTH
