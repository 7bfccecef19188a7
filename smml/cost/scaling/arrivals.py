"""When requests arrive: a Poisson stream, a day with its peak, bursts; the same seed gives the same trace.

A trace is the sorted times of its requests in s, [N] float64. Load only packs the same draws closer: with one seed, more
traffic never means fewer requests.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smml.errors import UserError

DAY_S = 86_400.0
# Rates are taken as constant over so many seconds: a thousandth of a working hour.
_GRID_S = 4.0


@dataclass(frozen=True)
class Burst:
    """For `duration_s` from `start_s` on, the rate is `factor` times what it would be."""

    start_s: float
    duration_s: float
    factor: float


@dataclass(frozen=True)
class Traffic:
    """Requests a second: `mean_per_s` over a whole day, at most `peak_to_mean` times that, at `peak_hour`; and bursts.

    peak_to_mean = 1 is a Poisson stream. The shape of the day is exp(κ·cos), positive for every peak; bursts come on top
    of the mean. Raises UserError naming the field.
    """

    mean_per_s: float
    peak_to_mean: float = 1.0
    peak_hour: float = 14.0
    bursts: tuple[Burst, ...] = ()

    def __post_init__(self) -> None:
        if not self.mean_per_s > 0:
            raise UserError(f"mean_per_s is {self.mean_per_s!r}; give a number above 0.")
        if not 1 <= self.peak_to_mean <= 20:
            raise UserError(
                f"peak_to_mean is {self.peak_to_mean!r}; give 1 (no peak) to 20 times the mean."
            )
        if not 0 <= self.peak_hour < 24:
            raise UserError(f"peak_hour is {self.peak_hour!r}; give an hour from 0 to below 24.")
        for burst in self.bursts:
            if not (burst.start_s >= 0 and burst.duration_s > 0 and burst.factor > 0):
                raise UserError(f"{burst} needs start_s >= 0, duration_s > 0 and factor > 0.")

    def rate_per_s(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Requests a second at each time, [N] → [N]; time 0 is midnight."""
        kappa = _concentration(self.peak_to_mean)
        angle = 2 * np.pi * (np.asarray(time_s) / DAY_S - self.peak_hour / 24)
        rate = self.mean_per_s * np.exp(kappa * np.cos(angle)) / np.i0(kappa)
        for burst in self.bursts:
            within = (time_s >= burst.start_s) & (time_s < burst.start_s + burst.duration_s)
            rate = np.where(within, burst.factor * rate, rate)
        return rate


def arrivals(traffic: Traffic, duration_s: float = DAY_S, seed: int = 0) -> NDArray[np.float64]:
    """A trace of `traffic` from time 0 to `duration_s`, [N] in s, sorted.

    An inhomogeneous Poisson process by inversion: a unit-rate stream in expected requests is mapped back to time
    (Çınlar, Introduction to Stochastic Processes, 1975, chapter 4). Raises UserError for a duration that is not positive.
    """
    if not duration_s > 0:
        raise UserError(f"duration_s is {duration_s!r}; give a number above 0.")
    edges = np.linspace(0.0, duration_s, max(2, round(duration_s / _GRID_S) + 1))
    middles = (edges[1:] + edges[:-1]) / 2
    expected = np.concatenate(([0.0], np.cumsum(traffic.rate_per_s(middles) * np.diff(edges))))
    # Ten standard deviations more than expected: a shorter draw would cut the trace's end off.
    draws = int(expected[-1] + 10 * np.sqrt(expected[-1]) + 100)
    unit = np.cumsum(np.random.default_rng(seed).exponential(size=draws))
    return np.interp(unit[unit < expected[-1]], expected, edges)


def _concentration(peak_to_mean: float) -> float:
    """κ with exp(κ)/I₀(κ) = peak_to_mean: the mean of exp(κ·cos) over a turn is I₀(κ)."""
    low, high = 0.0, 600.0
    for _ in range(80):
        middle = (low + high) / 2
        # np.i0 overflows above 700; the ratio grows with κ.
        if np.exp(middle) / np.i0(middle) < peak_to_mean:
            low = middle
        else:
            high = middle
    return low
