"""Ways to buy that notebooks show: a month's cost over its hours, the cheapest by use and horizon, bills as records."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from IPython.display import Markdown

from smml import plot
from smml.cost.buying.break_even import Line, lower_envelope
from smml.cost.buying.owned import Owned
from smml.cost.decisions.decision import HOURS_PER_MONTH
from smml.course.show import table
from smml.data import owned_hardware
from smml.errors import UserError

if TYPE_CHECKING:  # matplotlib takes a second to import: only for a figure that is really drawn
    from matplotlib.figure import Figure

HATCHES = ("", "//", "..", "xx", "\\\\", "++")


def owned_figures(name: str, server: Owned) -> Markdown:
    """What a server of one's own was reckoned with: figure, value, unit and the day of its source; the rest is the reader's."""
    held = owned_hardware.server(name)
    figures = {f"price of one {held.name}": held.price, "its most power": held.power}
    for key in (
        "electricity_us_commercial",
        "power_usage_effectiveness",
        "colocation",
        "gpu_failures",
    ):
        figures[key.replace("_", " ")] = owned_hardware.figure(key)
    rows = [(what, f"{q.value:,g}", q.unit, str(q.date)) for what, q in figures.items()]
    yours = {
        "idle power": (f"{server.idle_power_share:g}", "share of its power"),
        "people": (f"{server.people_usd_per_month:,g}", "USD a month"),
        "life": (f"{server.life_months:g}", "months"),
        "all standing costs, before any work": (
            f"{server.standing_usd_per_month(1):,.0f}",
            "USD a month",
        ),
    }
    rows += [(what, *value, "yours") for what, value in yours.items()]
    return table(("figure", "value", "unit", "of"), rows)


def over_hours(lines: Sequence[Line], title: str) -> "Figure":
    """USD of a month over used hours, a line an option; the cheapest one thick, and where it changes marked."""
    figure, axis = plot.axes(title)
    styles = {}
    for number, one in enumerate(lines):
        style = {"color": plot.COLORS[number % len(plot.COLORS)], "label": one.name}
        styles[one.name] = style, plot.LINES[number % len(plot.LINES)]
        ends = (0, HOURS_PER_MONTH)
        axis.plot(ends, [one.usd(hours) for hours in ends], styles[one.name][1], lw=1.5, **style)
    by_name = {one.name: one for one in lines}
    segments = lower_envelope(lines)
    for segment in segments:
        ends, style = (segment.start, segment.end), styles[segment.name][0]
        usd = [by_name[segment.name].usd(hours) for hours in ends]
        axis.plot(ends, usd, lw=6, alpha=0.35, color=style["color"])
        if segment is not segments[-1]:
            axis.plot(ends[1], usd[1], "o", ms=9, color="black")
            where = f"{ends[1]:,.0f} h"
            axis.annotate(
                where, (ends[1], usd[1]), (8, -16), textcoords="offset points", fontsize=11
            )
    axis.set(xlim=(0, HOURS_PER_MONTH), ylim=(0, None))
    axis.set_xlabel("used hours of a month of one instance (h)", fontsize=12)
    axis.set_ylabel("USD a month", fontsize=12)
    axis.legend(fontsize=11)
    return figure


def cheapest(
    costs: Mapping[str, Callable[[float, float], float]],
    hours: Sequence[float],
    months: Sequence[float],
    title: str,
) -> "Figure":
    """Which option costs least at (hours a month, months of horizon): a field a point, colour and hatch by option.

    A cost may raise UserError where the option cannot be had; it is then left out at that point.
    """
    from matplotlib.patches import Patch, Rectangle

    figure, axis = plot.axes(title)
    names = list(costs)
    wide, tall = hours[1] - hours[0], months[1] - months[0]
    seen = set()
    for horizon in months:
        for used in hours:
            usd = {name: _usd(costs[name], used, horizon) for name in names}
            best = min(names, key=lambda name: usd[name])
            number = names.index(best)
            seen.add(best)
            corner = (used - wide / 2, horizon - tall / 2)
            axis.add_patch(
                Rectangle(
                    corner,
                    wide,
                    tall,
                    facecolor=plot.COLORS[number % len(plot.COLORS)],
                    hatch=HATCHES[number % len(HATCHES)],
                    edgecolor="white",
                    linewidth=0,
                )
            )
    axis.set(xlim=(max(0, hours[0] - wide / 2), min(HOURS_PER_MONTH, hours[-1] + wide / 2)))
    axis.set(ylim=(months[0] - tall / 2, months[-1] + tall / 2))
    axis.grid(False)
    axis.set_xlabel("used hours of a month (h)", fontsize=12)
    axis.set_ylabel("horizon (months)", fontsize=12)
    keys = [
        Patch(
            facecolor=plot.COLORS[number % len(plot.COLORS)],
            hatch=HATCHES[number % len(HATCHES)],
            edgecolor="white",
            label=name,
        )
        for number, name in enumerate(names)
        if name in seen
    ]
    axis.legend(handles=keys, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=11)
    return figure


def by_commitment(
    sizes: Sequence[int],
    predicted: Mapping[str, Sequence[float]],
    measured: Mapping[str, Sequence[float]],
    title: str,
) -> "Figure":
    """USD a month over the instances committed to: the closed form as a line, made demands as markers, least in black."""
    figure, axis = plot.axes(title)
    for number, (name, line) in enumerate(predicted.items()):
        color = plot.COLORS[number % len(plot.COLORS)]
        axis.plot(
            sizes,
            line,
            plot.LINES[number % len(plot.LINES)],
            color=color,
            lw=2,
            label=f"{name}, predicted",
        )
        marker = plot.MARKERS[number % len(plot.MARKERS)]
        axis.plot(
            sizes,
            measured[name],
            marker,
            color=color,
            ms=8,
            mfc="none",
            label=f"{name}, made demand",
        )
        least = min(range(len(sizes)), key=lambda index, line=line: line[index])
        axis.plot(sizes[least], line[least], marker, color="black", ms=11)
    axis.set(ylim=(0, None), xticks=list(sizes))
    axis.set_xlabel("instances committed to", fontsize=12)
    axis.set_ylabel("USD a month, overflow on demand included", fontsize=12)
    axis.legend(fontsize=11)
    return figure


def _usd(cost: Callable[[float, float], float], hours: float, months: float) -> float:
    try:
        return cost(hours, months)
    except UserError:
        return float("inf")
