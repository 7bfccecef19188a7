"""Shardings as pictures: a matrix a pattern, cut into the pieces that exist, each with the ranks that hold it."""

from math import ceil
from typing import TYPE_CHECKING

from smml import plot
from smml.errors import UserError
from smml.parallel.sharding.pattern import Sharding

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4


def draw(*shardings: Sharding, titles: bool = True) -> "Figure":
    """A square for each sharding of a matrix, four side by side; with `titles` False numbered only, as for a quiz.

    Raises UserError for tensors of another rank than 2, and where no sharding is given.
    """
    from matplotlib import pyplot

    if not shardings or any(len(s.dimensions) != 2 for s in shardings):
        raise UserError(
            f"{', '.join(map(str, shardings)) or 'nothing'}: give matrices, such as Ix_Jy, to draw."
        )
    rows = ceil(len(shardings) / COLUMNS)
    figure = pyplot.figure(figsize=(9.0, 2.4 * rows), dpi=100, layout="constrained")
    pyplot.close(figure)  # else a notebook shows it twice
    for number, sharding in enumerate(shardings, 1):
        axis = figure.add_subplot(rows, COLUMNS, number)
        axis.set_title(str(sharding) if titles else f"{number}", fontsize=12, family="monospace")
        _matrix(axis, sharding)
    return figure


Span = tuple[int, int]


def holders(sharding: Sharding) -> dict[tuple[Span, ...], list[int]]:
    """Rows and columns (first, last + 1) of a square as large as the mesh → the ranks that hold this piece."""
    size = sharding.mesh.size
    found: dict[tuple[Span, ...], list[int]] = {}
    for rank, device in enumerate(sharding.mesh.devices()):
        key = tuple((s.start, s.stop) for s in sharding.slices((size, size), device))
        found.setdefault(key, []).append(rank)
    return found


def _matrix(axis: "Axes", sharding: Sharding) -> None:
    """The square, row 0 on top, every piece in a shade of its own, hatched where it is a partial sum."""
    from matplotlib.patches import Rectangle

    size = sharding.mesh.size
    axis.set_xlim(0, size)
    axis.set_ylim(size, 0)
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel(sharding.names[1], fontsize=10)
    axis.set_ylabel(sharding.names[0], fontsize=10, rotation=0, labelpad=8)
    for number, ((rows, columns), ranks) in enumerate(holders(sharding).items()):
        top, left = rows[0], columns[0]
        height, width = rows[1] - top, columns[1] - left
        axis.add_patch(
            Rectangle(
                (left, top),
                width,
                height,
                facecolor=plot.COLORS[number % len(plot.COLORS)],
                alpha=0.25,
                edgecolor="black",
                hatch="//" if sharding.partial else None,
            )
        )
        text = " ".join(map(str, ranks))
        axis.text(left + width / 2, top + height / 2, text, ha="center", va="center", fontsize=11)
