"""A traced step as rows of bars over time; what is not covered is time in which nothing of that row ran."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from smml.errors import UserError
from smml.plot import COLORS, INCHES, axes

if TYPE_CHECKING:  # matplotlib takes a second to import: only for a figure that is really drawn
    from matplotlib.figure import Figure

Row = Sequence[tuple[str, float, float]]  # (name, start in seconds, seconds)
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "--")
LETTER_PX = 9  # of the labels below, with some air
PLOT_PX = 720  # what is left of the figure's width for the bars


def timeline(rows: Mapping[str, Row], named: Sequence[str], title: str) -> "Figure":
    """Rows from top to bottom, time in ms; bars of `named` rows carry name, colour and hatch, the others are one grey.

    A name has the same colour and hatch in every row; one that is too long for its bar stands in the legend alone.
    Raises UserError where there is nothing to draw.
    """
    last = max((start + seconds for row in rows.values() for _, start, seconds in row), default=0)
    if not last > 0:
        raise UserError(
            "nothing to draw: every row is empty. Give rows of a trace (profiling.lanes)."
        )
    figure, axis = axes(title, (INCHES[0], 1.6 + 0.62 * len(rows)))
    styles: dict[str, int] = {}
    for place, (label, row) in enumerate(rows.items()):
        if label not in named:
            bars = [(start * 1e3, seconds * 1e3) for _, start, seconds in row]
            axis.broken_barh(bars, (place - 0.38, 0.76), color="#555555", linewidth=0)
            continue
        for name, start, seconds in row:
            new = name not in styles
            number = styles.setdefault(name, len(styles))
            axis.broken_barh(
                [(start * 1e3, seconds * 1e3)],
                (place - 0.38, 0.76),
                facecolor=COLORS[number % len(COLORS)],
                hatch=HATCHES[number % len(HATCHES)],
                edgecolor="white",
                linewidth=0.5,
                label=name if new else None,
            )
            if len(name) * LETTER_PX < seconds / last * PLOT_PX:
                axis.annotate(
                    name,
                    ((start + seconds / 2) * 1e3, place),
                    ha="center",
                    va="center",
                    fontsize=11,
                    bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "linewidth": 0},
                )
    axis.set_yticks(range(len(rows)), list(rows))
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.set_xlim(0, last * 1e3 * 1.01)
    axis.set_xlabel("time in the step (ms)", fontsize=12)
    figure.legend(loc="outside lower center", ncols=min(max(len(styles), 1), 6), fontsize=10)
    return figure
