"""What the notebook on spot capacity draws: cost over the interval, strategies side by side, the curve of the drill."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from smml import plot
from smml.aws.spot_drill import Drill
from smml.cost.spot.allocation import Fleet
from smml.cost.spot.run import Spread

if TYPE_CHECKING:  # matplotlib takes a second to import: only for a figure that is really drawn
    from matplotlib.figure import Figure


def over_interval(
    hours: Sequence[float],
    usd: Mapping[str, Sequence[float]],
    simulated: Mapping[float, Spread],
    marks: Mapping[str, float],
    title: str,
) -> "Figure":
    """USD of the job over hours between checkpoints: closed forms as lines, simulated means with p20 to p80 as points.

    `marks` are intervals with a name, drawn as vertical lines.
    """
    figure, axis = plot.axes(title)
    for number, (name, values) in enumerate(usd.items()):
        color, line = plot.COLORS[number], plot.LINES[number]
        axis.plot(hours, values, line, color=color, linewidth=2, label=f"{name}, closed form")
    means = [spread.mean for spread in simulated.values()]
    below = [max(0.0, spread.mean - spread.p20) for spread in simulated.values()]
    above = [max(0.0, spread.p80 - spread.mean) for spread in simulated.values()]
    axis.errorbar(
        list(simulated),
        means,
        yerr=[below, above],
        fmt=plot.MARKERS[1],
        color=plot.COLORS[6],
        markerfacecolor="white",
        capsize=4,
        label=f"{next(iter(usd))}, simulated: mean, p20 to p80",
    )
    for number, (name, at) in enumerate(marks.items()):
        axis.axvline(at, color="#777777", linestyle=(0, (1, 2)), linewidth=1.4)
        axis.annotate(
            name,
            (at, 0.97 - 0.07 * number),
            xycoords=("data", "axes fraction"),
            xytext=(5, 0),
            textcoords="offset points",
            va="top",
            fontsize=11,
        )
    axis.set(xscale="log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("work between checkpoints (h)", fontsize=12)
    axis.set_ylabel("expected cost of the job (USD)", fontsize=12)
    axis.legend(loc="upper left", fontsize=11)
    return figure


def strategies(fleets: Sequence[Fleet], title: str) -> "Figure":
    """Price of an instance-hour against instances lost, a point a strategy; bars from p20 to p80 of its replays."""
    figure, axis = plot.axes(title)
    for number, fleet in enumerate(fleets):
        lost, usd = fleet.lost, fleet.usd_per_hour
        axis.errorbar(
            [lost.mean],
            [usd.mean],
            xerr=[[max(0.0, lost.mean - lost.p20)], [max(0.0, lost.p80 - lost.mean)]],
            yerr=[[max(0.0, usd.mean - usd.p20)], [max(0.0, usd.p80 - usd.mean)]],
            fmt=plot.MARKERS[number],
            color=plot.COLORS[number],
            markersize=11,
            capsize=4,
            label=fleet.strategy,
        )
    axis.set_ylim(bottom=0)
    axis.set_xlabel("instances lost in a replay (mean, p20 to p80)", fontsize=12)
    axis.set_ylabel("an instance-hour (USD)", fontsize=12)
    axis.legend(loc="best", fontsize=11)
    return figure


def drilled(run: Drill, title: str) -> "Figure":
    """Loss over steps: the uninterrupted run as a line, the interrupted one as markers, a line where it was stopped."""
    figure, axis = plot.axes(title)
    axis.plot(
        list(run.uninterrupted),
        list(run.uninterrupted.values()),
        color=plot.COLORS[0],
        linewidth=2,
        label="uninterrupted",
    )
    axis.plot(
        list(run.curve),
        list(run.curve.values()),
        plot.MARKERS[1],
        color=plot.COLORS[1],
        markerfacecolor="none",
        markersize=9,
        label="interrupted and resumed",
    )
    for stop in run.stops:
        axis.axvline(stop.at_step + 0.5, color="#000000", linestyle="--", linewidth=1.4)
        axis.annotate(
            f"{stop.how}: {stop.steps_lost} steps lost,\nback after {stop.recover_s:.1f} s",
            (stop.at_step + 0.5, 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(6, 0),
            textcoords="offset points",
            va="top",
            fontsize=11,
        )
    axis.set_xlabel("step", fontsize=12)
    axis.set_ylabel("training loss (nats per token)", fontsize=12)
    axis.legend(loc="lower left", fontsize=11)
    return figure
