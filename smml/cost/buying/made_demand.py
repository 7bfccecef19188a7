"""Demands made from a seed: instances at work hour by hour, drawn around the mean of each hour of the week."""

import math
from collections.abc import Sequence

import numpy as np

from smml.cost.buying.demand import Demand
from smml.errors import UserError

WEEK_HOURS = 7 * 24


def office_week(day: float, night: float, *, begins: int = 9, ends: int = 18) -> np.ndarray:
    """[168] mean instances at work: `day` on weekdays from `begins` to `ends` o'clock, else `night`; Monday first.

    Raises UserError naming the field.
    """
    for name, mean in {"day": day, "night": night}.items():
        if not (mean >= 0 and math.isfinite(mean)):
            raise UserError(f"{name} is {mean!r}; give a mean number of instances, 0 or more.")
    if not 0 <= begins < ends <= 24:
        raise UserError(
            f"begins is {begins!r} and ends is {ends!r}; give 0 <= begins < ends <= 24."
        )
    week = np.full((7, 24), float(night))
    week[:5, begins:ends] = day
    return week.ravel()


def drawn(means: Sequence[float], weeks: int, seed: int) -> Demand:
    """A demand of `weeks` weeks: in each hour a Poisson number of instances around the mean of that hour of the week.

    Jobs that come independently and each hold an instance have that distribution (M/G/∞ queue).
    """
    if not weeks >= 1:
        raise UserError(f"weeks is {weeks!r}; give a whole number of 1 or more.")
    means = _means(means)
    return Demand(np.random.default_rng(seed).poisson(np.tile(means, weeks)).astype(float))


def expected_overflow(means: Sequence[float], instances: int) -> float:
    """Mean instances at work beyond `instances`, over all hours: E[(X − n)⁺] of a Poisson X with each mean.

    λ·P(X ≥ n) − n·P(X ≥ n + 1), the loss function of the newsvendor problem.
    """
    if not instances >= 0:
        raise UserError(f"instances is {instances!r}; give 0 or more.")
    return float(np.mean([_overflow(mean, instances) for mean in _means(means)]))


def expected_use(means: Sequence[float], number: int) -> float:
    """Share of all hours in which at least `number` instances are at work: how busy the last of them is."""
    return float(np.mean([_at_least(mean, number) for mean in _means(means)]))


def _overflow(mean: float, instances: int) -> float:
    return mean * _at_least(mean, instances) - instances * _at_least(mean, instances + 1)


def _at_least(mean: float, number: int) -> float:
    """P(X ≥ number) of a Poisson X."""
    term, below = math.exp(-mean), 0.0
    for count in range(number):
        below += term
        term *= mean / (count + 1)
    return max(0.0, 1 - below)


def _means(means: Sequence[float]) -> np.ndarray:
    found = np.asarray(means, dtype=float)
    if found.shape != (WEEK_HOURS,) or not ((found >= 0).all() and (found <= 500).all()):
        raise UserError(
            f"means has shape {found.shape}; give {WEEK_HOURS} means, one for each hour of the week, of 0 to 500 instances."
        )
    return found
