"""Fleets that notebooks show: what an answer takes by record, a day's load and capacity, cost against p99, cost curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smml import plot
from smml.bench import Setting, bench_model
from smml.cost.scaling.crossover import Curve, crossover
from smml.cost.scaling.queue_simulator import Outcome
from smml.llama import counts
from smml.measure import Record
from smml.measure.compare import baselines, elsewhere

if TYPE_CHECKING:  # matplotlib takes a second to import: only for a figure that is really drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# One answer at a time, with a few hundred tokens in its cache.
_STEP = ("decode/", "/batch-1/past-256/")
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Step:
    """One decode step of one sequence: its seconds, the model's parameters and their bytes, and where that is from."""

    seconds: float
    parameters: float
    bytes_per_parameter: int
    origin: str


def decode_step(setting: Setting) -> Step:
    """A decode step of the model of 00/05 by this machine's record, else another one's, else by the measured roof."""
    for records in (baselines(setting.machine.fingerprint), elsewhere(setting.machine.fingerprint)):
        found = [r for r in records if r.name.startswith(_STEP[0]) and _STEP[1] in r.name]
        if found:
            latest = max(found, key=lambda record: record.date)
            return Step(
                plot.seconds(latest, latest.value),
                latest.inputs["parameters"],
                _BYTES[latest.inputs["dtype"]],
                f"recorded {latest.date:%Y-%m-%d}, {latest.machine.device}",
            )
    parameters = counts.parameters(bench_model.config(setting)).active
    size = _BYTES[setting.profile.dtype]
    roof_s = parameters * size / setting.ceilings.bandwidth.value
    return Step(roof_s, parameters, size, "by the roof of this machine, for there is no record")


def day(load: NDArray[np.float64], fleets: Mapping[str, Outcome], title: str) -> "Figure":
    """Busy servers that the load needs over a day, [N] erlangs, and how many each fleet paid for."""
    figure, axis = plot.axes(title)
    hours = np.linspace(0, 24, len(load))
    axis.fill_between(hours, load, color="#999999", alpha=0.5, label="load: busy servers needed")
    for number, (name, outcome) in enumerate(fleets.items()):
        times, counts = np.array(outcome.capacity).T
        axis.step(
            times / 3600,
            counts,
            plot.LINES[number % len(plot.LINES)],
            where="post",
            color=plot.COLORS[number % len(plot.COLORS)],
            linewidth=2,
            label=name,
        )
    axis.set(xlim=(0, 24), ylim=(0, None), xticks=range(0, 25, 3))
    axis.set_xlabel("hour of the day (h)", fontsize=12)
    axis.set_ylabel("servers", fontsize=12)
    axis.legend(loc="upper left", fontsize=10)
    return figure


def cost_against_p99(
    records: Mapping[str, tuple[Record, Record]], target_s: float, title: str
) -> "Figure":
    """USD a day on x, p99 on y, a policy a marker with its spread, and the goal; `records` hold (USD, p99)."""
    figure, axis = plot.axes(title)
    for number, (name, (usd, p99)) in enumerate(records.items()):
        style = {
            "color": plot.COLORS[number % len(plot.COLORS)],
            "marker": plot.MARKERS[number % len(plot.MARKERS)],
        }
        axis.errorbar(
            usd.value,
            p99.value,
            xerr=[[usd.value - usd.p20], [usd.p80 - usd.value]],
            yerr=[[p99.value - p99.p20], [p99.p80 - p99.value]],
            markersize=11,
            capsize=4,
            linestyle="none",
            label=name,
            **style,
        )
        axis.plot(usd.predicted, p99.predicted, markerfacecolor="white", markersize=8, **style)
    axis.axhline(target_s, color="black", linestyle=":", label=f"promise: {target_s:.3g} s")
    axis.set(xlim=(0, None), ylim=(0, None))
    axis.set_xlabel("USD a day", fontsize=12)
    axis.set_ylabel("p99 of wait and service (s)", fontsize=12)
    axis.legend(loc="lower left", fontsize=10, title="filled: simulated, hollow: predicted")
    return figure


def crossovers(curves: Sequence[Curve], here: float, title: str) -> "Figure":
    """USD a month over requests a month, log–log, a line a service; the cheapest thick, its changes marked."""
    figure, axis = plot.axes(title)
    turns = [turn for a in curves for b in curves if (turn := crossover(a, b)) is not None]
    low, high = min([here, *turns]) / 30, max([here, *turns]) * 10
    requests = np.geomspace(low, high, 200)
    for number, curve in enumerate(curves):
        style = {"color": plot.COLORS[number % len(plot.COLORS)]}
        axis.plot(
            requests,
            [curve.usd(n) for n in requests],
            plot.LINES[number % len(plot.LINES)],
            linewidth=2,
            label=str(curve),
            **style,
        )
    cheapest = [min(curve.usd(n) for curve in curves) for n in requests]
    axis.plot(requests, cheapest, color="black", linewidth=7, alpha=0.2, label="cheapest")
    marked = 0
    for turn in sorted(set(turns)):
        usd = [curve.usd(turn) for curve in curves]
        crossing = [value for value in usd if abs(value / min(usd) - 1) < 1e-9]
        if len(crossing) > 1:
            _mark(axis, turn, min(usd), above=marked % 2 == 0)
            marked += 1
    axis.axvline(here, color="#777777", linestyle=(0, (1, 2)), label=f"here: {here:,.0f}")
    axis.set(xscale="log", yscale="log", xlim=(low, high))
    axis.set_xlabel("requests a month", fontsize=12)
    axis.set_ylabel("USD a month", fontsize=12)
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_formatter("{x:,.10g}")
    axis.legend(loc="upper left", fontsize=10)
    return figure


def over_cold_start(hours: Mapping[str, Mapping[float, float]], title: str) -> "Figure":
    """Server-hours of a day over the seconds that a server takes to start, a line a policy."""
    figure, axis = plot.axes(title)
    for number, (name, points) in enumerate(hours.items()):
        axis.plot(
            list(points),
            list(points.values()),
            plot.LINES[number % len(plot.LINES)] + plot.MARKERS[number % len(plot.MARKERS)],
            color=plot.COLORS[number % len(plot.COLORS)],
            linewidth=2,
            markersize=9,
            label=name,
        )
    axis.set(ylim=(0, None))
    axis.set_xlabel("cold start (s)", fontsize=12)
    axis.set_ylabel("server-hours of a day (h)", fontsize=12)
    axis.legend(fontsize=11)
    return figure


def _mark(axis: "Axes", requests: float, usd: float, above: bool) -> None:
    axis.plot(requests, usd, "o", color="black", markersize=9)
    axis.annotate(
        f"{requests:,.0f}",
        (requests, usd),
        (-8, 18) if above else (8, -16),
        textcoords="offset points",
        ha="right" if above else "left",
        fontsize=11,
    )
