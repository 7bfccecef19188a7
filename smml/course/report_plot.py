"""Predictions against measurements, drawn as SVG: one drawing a unit, both axes logarithmic."""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from smml.course import wording
from smml.course.report import GOOD_FACTOR, is_good, ratio
from smml.measure.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Shape and colour both tell the module, so that either is enough (Okabe–Ito colours).
_MARKS = (
    ("o", "#0072b2"),
    ("s", "#d55e00"),
    ("^", "#009e73"),
    ("D", "#cc79a7"),
    ("v", "#56b4e9"),
    ("P", "#e69f00"),
)
_MOST_LABELS = 4


def drawings(records: Sequence[Record]) -> dict[str, str]:
    """Unit -> SVG text, for every unit that has a record with a prediction.

    One drawing a unit, so that a page can set them side by side or, on a phone, one under the other.
    """
    predicted = [r for r in records if r.predicted]
    if not predicted:
        return {}
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    units: dict[str, list[Record]] = {}
    for record in predicted:
        units.setdefault(record.unit, []).append(record)
    modules = sorted({_module(r) for r in predicted})
    drawn = {}
    # The salt makes the same records give the same bytes, so that an unchanged report is not built again.
    with matplotlib.rc_context(
        {"svg.hashsalt": "smml", "font.size": 10, "font.family": "DejaVu Sans"}
    ):
        for unit, group in units.items():
            figure = Figure(figsize=(4.4, 4.6), layout="constrained", facecolor="white")
            FigureCanvasSVG(figure)
            axes = figure.subplots()
            _draw(axes, unit, group, modules)
            figure.legend(
                *axes.get_legend_handles_labels(),
                loc="outside lower center",
                ncols=2,
                frameon=False,
                fontsize=9,
            )
            out = io.StringIO()
            figure.savefig(out, format="svg", metadata={"Date": None})
            drawn[unit] = out.getvalue()
    return drawn


def _draw(axes: "Axes", unit: str, group: Sequence[Record], modules: Sequence[str]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    values = [v for r in group for v in (r.predicted, r.value)]
    factor, unit_shown = wording.scale(max(values), unit)
    low, high = min(values) / 2.5 / factor, max(values) * 2.5 / factor
    ends = [low, high]
    axes.fill_between(
        ends,
        [v / GOOD_FACTOR for v in ends],
        [v * GOOD_FACTOR for v in ends],
        color="#e8ecf1",
        linewidth=0,
        label=f"within {GOOD_FACTOR}×",
    )
    axes.plot(ends, ends, color="#8a94a0", linewidth=1, label="as predicted")
    for module in modules:
        marker, colour = _MARKS[modules.index(module) % len(_MARKS)]
        mine = [r for r in group if _module(r) == module]
        if not mine:
            continue
        x, y = (
            [v / factor for v in column]
            for column in ([r.predicted for r in mine], [r.value for r in mine])
        )
        spread = [
            [(r.value - r.p20) / factor for r in mine],
            [(r.p80 - r.value) / factor for r in mine],
        ]
        axes.errorbar(
            x,
            y,
            spread,
            fmt=marker,
            color=colour,
            markersize=6,
            capsize=2,
            linewidth=1,
            label=module,
            alpha=0.9,
        )
    for record in _labelled(group, low * factor, high * factor):
        # On the side where the panel has room.
        left = record.predicted / factor > (low * high) ** 0.5
        axes.annotate(
            record.name,
            (record.predicted / factor, record.value / factor),
            xytext=(-8 if left else 8, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=8.5,
            color="#333333",
        )
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set_xlabel(f"predicted ({unit_shown})")
    axes.set_ylabel(f"measured ({unit_shown})")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 300 else (1.0,)))
        axis.set_major_formatter(lambda value, _: f"{value:,.6g}")
        axis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#eef0f3", linewidth=0.8)
    axes.set_axisbelow(True)


def _labelled(group: Sequence[Record], low: float, high: float) -> list[Record]:
    """The records to name: those furthest from their prediction, none so near another that the names collide."""
    least = 0.06 * math.log(high / low)
    chosen: list[Record] = []
    for record in sorted(group, key=lambda r: -abs(math.log(ratio(r)))):
        clear = all(abs(math.log(record.value / other.value)) > least for other in chosen)
        if clear and not is_good(record):
            chosen.append(record)
    return chosen[:_MOST_LABELS]


def _module(record: Record) -> str:
    return record.source.split("/")[0] if "/" in record.source else record.source.split(" ")[0]
