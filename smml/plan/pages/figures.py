"""Two pictures of a plan: memory of a rank by kind, a step by part; horizontal bars to scale."""

from dataclasses import fields
from textwrap import fill
from typing import TYPE_CHECKING

from smml.plan.amounts import GIB
from smml.plan.memory import Memory
from smml.plan.step import Step

if TYPE_CHECKING:  # matplotlib takes a second to import: only for a figure that is really drawn
    from matplotlib.figure import Figure

HATCHES = ("", "//", "..", "xx", "--", "\\\\", "++")


def memory_figure(memories: dict[str, Memory], limit_bytes: float) -> "Figure":
    """GiB of a rank, one bar a layout, by kind; the limit as a line."""
    from smml import plot

    figure, axis = plot.axes("Memory of the fullest rank", (9.0, 1.8 + 0.7 * len(memories)))
    names = [fill(name, 24) for name in memories]
    for number, field in enumerate(fields(Memory)):
        sizes = [getattr(held, field.name) / GIB for held in memories.values()]
        done = [
            sum(getattr(held, before.name) for before in fields(Memory)[:number]) / GIB
            for held in memories.values()
        ]
        axis.barh(
            names,
            sizes,
            left=done,
            color=plot.COLORS[number % len(plot.COLORS)],
            hatch=HATCHES[number],
            edgecolor="white",
            label=field.name,
        )
    axis.axvline(limit_bytes / GIB, color="#000000", linestyle="--", linewidth=2, label="limit")
    axis.invert_yaxis()
    axis.set_xlabel("GiB", fontsize=12)
    figure.legend(loc="outside lower center", ncols=4, fontsize=10)
    return figure


def step_figure(step: Step, least: float = 0.001) -> "Figure":
    """Seconds of a step by part, the longest first; parts below `least` of it are left out."""
    from smml import plot

    parts = [
        item
        for item in sorted(step.parts.items(), key=lambda item: -item[1])
        if item[1] > least * step.seconds
    ]
    figure, axis = plot.axes("One step, by part", (9.0, 1.4 + 0.34 * len(parts)))
    bars = axis.barh(*zip(*parts, strict=True), color=plot.COLORS[0])
    axis.bar_label(bars, [f"{s / step.seconds:.1%}" for _, s in parts], padding=4, fontsize=10)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_xlabel("seconds", fontsize=12)
    return figure
