"""Pictures of what the planner says: its errors on published runs, speed-up over ranks, goodput over intervals, loss over sizes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from smml import plot
from smml.plan.amounts import count
from smml.plan.calibration import Error

if TYPE_CHECKING:  # matplotlib takes a second to import: only for a figure that is really drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def errors(rows: Sequence[Error], band: float) -> "Figure":
    """Predicted ÷ measured − 1 of each row in percent, marker and colour by kind; the asked band shaded."""
    figure, axis = plot.axes("The planner on published runs", (9.0, 1.5 + 0.27 * len(rows)))
    axis.axvspan(-100 * band, 100 * band, color="#eeeeee", label=f"within {band:.0%}")
    axis.axvline(0, color="#000000", linewidth=1)
    labels = [
        f"{row.run.job.shape.name}, {row.run.cluster.gpus} × {row.run.cluster.accelerator.name.split()[1]}, "
        f"{row.run.job.dtype}, {row.run.job.engine}, {row.run.layout.recompute}"
        for row in rows
    ]
    for number, kind in enumerate(dict.fromkeys(row.kind for row in rows)):
        mine = [(100 * r.error, at) for at, r in enumerate(rows) if r.kind == kind]
        axis.plot(
            *zip(*mine, strict=True),
            plot.MARKERS[number],
            color=plot.COLORS[number],
            markersize=8,
            label=kind,
        )
    axis.set_yticks(range(len(rows)), labels, fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(-100 * band * 1.2, 100 * band * 1.2)
    axis.set_xlabel("predicted ÷ measured − 1 (%)", fontsize=12)
    axis.legend(loc="lower right", fontsize=10)
    return figure


def lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    x: str,
    y: str,
    *,
    points: Sequence[str] = (),
    marks: Mapping[str, float] | None = None,
    base: int | None = None,
) -> "Figure":
    """One curve a name, told apart by dashes as well as colour; those in `points` as markers; `marks` are vertical lines.

    `base`: x is logarithmic, with ticks at the powers of it.
    """
    figure, axis = plot.axes(title)
    for number, (name, (xs, ys)) in enumerate(curves.items()):
        style = plot.MARKERS[number] if name in points else plot.LINES[number % len(plot.LINES)]
        color = plot.COLORS[number % len(plot.COLORS)]
        axis.plot(xs, ys, style, color=color, linewidth=2.2, markersize=8, label=name)
    for number, (name, at) in enumerate((marks or {}).items()):
        axis.axvline(at, color="#555555", linestyle=(0, (1, 2)), linewidth=1.5)
        _name(axis, name, at, 0.95 - 0.06 * number)
    if base is not None:
        axis.set_xscale("log", base=base)
        axis.xaxis.set_major_formatter(lambda value, _: count(value))
        axis.xaxis.set_minor_formatter("")
    if marks:
        axis.margins(y=0.2)
    axis.set_xlabel(x, fontsize=12)
    axis.set_ylabel(y, fontsize=12)
    if len(curves) > 1:
        axis.legend(fontsize=11)
    return figure


def _name(axis: "Axes", name: str, at: float, height: float) -> None:
    axis.annotate(
        name,
        (at, height),
        xycoords=("data", "axes fraction"),
        xytext=(5, 0),
        textcoords="offset points",
        fontsize=10,
        color="#333333",
    )
