"""Steps of pipelines as pictures: a row a rank, forward plain and backward hatched, each with its micro-batch's number."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from smml import plot
from smml.errors import UserError
from smml.measure import Record
from smml.parallel.pipeline.schedules import BACKWARD, FORWARD
from smml.parallel.pipeline.simulate import Timeline

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_PX = 780  # of all bars together
DIGIT_PX = 8
PALE = 0.45
NAMES = {FORWARD: "forward", BACKWARD: "backward"}
COLORS = {FORWARD: plot.COLORS[4], BACKWARD: plot.COLORS[5]}


def draw(timelines: Mapping[str, Timeline], unit: str = "ms") -> "Figure":
    """A panel for each timeline, all on one scale of time; what is white is bubble, and the end of the step a line.

    A rank's second, third … stage is paler than its first. `unit` is ms, or another word where seconds are units
    of time. Raises UserError where there is nothing to draw.
    """
    if not timelines:
        raise UserError("no timeline to draw: give at least one, by its title.")
    from matplotlib import pyplot
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.patches import Patch

    figure, panels = pyplot.subplots(
        len(timelines),
        1,
        figsize=(plot.INCHES[0], 0.9 + sum(0.6 + 0.34 * len(t.spans) for t in timelines.values())),
        dpi=100,
        sharex=True,
        squeeze=False,
        layout="constrained",
        height_ratios=[1.2 + len(t.spans) for t in timelines.values()],
    )
    pyplot.close(figure)  # else a notebook shows it twice
    scale = 1e3 if unit == "ms" else 1.0
    longest = scale * max(timeline.step_s for timeline in timelines.values())
    for (title, timeline), (axis,) in zip(timelines.items(), panels, strict=True):
        axis.set_title(f"{title}: bubble {timeline.bubble:.1%}", loc="left", fontsize=11)
        _panel(axis, timeline, scale, longest)
    panels[-1][0].set_xlabel(f"time in the step ({unit})", fontsize=12)
    handles = [
        Patch(facecolor=COLORS[kind], edgecolor="black", hatch=_hatch(kind), label=name)
        for kind, name in NAMES.items()
    ]
    if any(s.action.stage >= len(t.spans) for t in timelines.values() for s in t.spans[0]):
        pale = [Patch(facecolor=COLORS[kind], alpha=PALE, edgecolor="black") for kind in NAMES]
        handles.append(tuple(pale))
    labels = [*NAMES.values(), "a rank's next stage, paler"]
    figure.legend(
        handles,
        labels[: len(handles)],
        loc="outside lower right",
        ncols=3,
        fontsize=10,
        handler_map={tuple: HandlerTuple(ndivide=None)},
    )
    return figure


def bubbles(records: Sequence[Record]) -> "Figure":
    """Bubbles over micro-batches: records in % of pipelines, a line through what was predicted, points for what was found."""
    figure, axis = plot.axes("Bubble over micro-batches")
    for number, name in enumerate(dict.fromkeys(r.inputs["schedule"] for r in records)):
        some = sorted(
            (r for r in records if r.inputs["schedule"] == name), key=lambda r: r.inputs["micro"]
        )
        x, color = [r.inputs["micro"] for r in some], plot.COLORS[number]
        axis.plot(
            x,
            [r.predicted for r in some],
            plot.LINES[number],
            color=color,
            label=f"{name}, predicted",
        )
        axis.errorbar(
            [m * 1.03**number for m in x],  # beside each other
            [r.value for r in some],
            [[r.value - r.p20 for r in some], [r.p80 - r.value for r in some]],
            fmt=plot.MARKERS[number],
            color=color,
            markersize=8,
            capsize=4,
            label=f"{name}, measured",
        )
    axis.set_xscale("log", base=2)
    axis.set_xticks(x, map(str, x))
    axis.set_ylim(0, None)
    axis.set_xlabel("micro-batches", fontsize=12)
    axis.set_ylabel("bubble (% of all ranks' time)", fontsize=12)
    axis.legend(fontsize=10)
    return figure


def _panel(axis: "Axes", timeline: Timeline, scale: float, longest: float) -> None:
    ranks = len(timeline.spans)
    for rank, spans in enumerate(timeline.spans):
        for span in spans:
            kind, stage, micro = span.action
            start, width = span.start_s * scale, (span.end_s - span.start_s) * scale
            axis.broken_barh(
                [(start, width)],
                (rank - 0.42, 0.84),
                facecolor=COLORS[kind],
                alpha=1.0 if stage < ranks else PALE,
                hatch=_hatch(kind),
                edgecolor="black",
                linewidth=0.6,
            )
            if DIGIT_PX * len(str(micro)) + 3 < width / longest * WIDTH_PX:
                axis.text(
                    start + width / 2,
                    rank,
                    str(micro),
                    ha="center",
                    va="center",
                    fontsize=9,
                    bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "linewidth": 0},
                )
    axis.axvline(timeline.step_s * scale, color="black", linewidth=1.5)
    axis.set_xlim(0, longest * 1.01)
    axis.set_ylim(ranks - 0.5, -0.5)
    axis.set_yticks(range(ranks), [f"rank {rank}" for rank in range(ranks)])
    axis.spines[["top", "right"]].set_visible(False)


def _hatch(kind: str) -> str | None:
    return "////" if kind == BACKWARD else None
