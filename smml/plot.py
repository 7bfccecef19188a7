"""Records to figures; never measures. Shape, line style and label say what colour says, so none depends on it alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from smml.errors import UserError
from smml.measure import Record
from smml.roofline import Roof, Work

if TYPE_CHECKING:  # matplotlib takes a second to import: only for a figure that is really drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with every common colour vision. Source: jfly.uni-koeln.de/color, 2002.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")  # one more than colours: pairs repeat late
LINES = ("-", "--", "-.", ":")
TIMED = ("s", "FLOP/s", "B/s")  # units that say how long one call took
INCHES = (9.0, 5.6)  # 900 px wide at 100 dpi


def axes(title: str, inches: tuple[float, float] = INCHES) -> "tuple[Figure, Axes]":
    """An empty figure of the house: 900 px wide, quiet frame, light grid."""
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=inches, dpi=100, layout="constrained")
    pyplot.close(
        figure
    )  # else a notebook shows it twice: as the cell's value and as an open figure
    axis.set_title(title, loc="left", fontsize=13, fontweight="bold")
    axis.grid(True, which="major", color="#d0d0d0", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=11)
    return figure, axis


def roofline(
    roofs: Sequence[Roof],
    here: Iterable[Record] = (),
    elsewhere: Iterable[Record] = (),
    *,
    expected: Mapping[str, Work] | None = None,
    title: str = "Roofline",
) -> "Figure":
    """Log–log roofline: roofs with their ridges, points measured here (filled) and recorded elsewhere (hollow).

    x is FLOPs per byte asked for, y FLOP/s. `expected` draws one vertical line a kernel: where on x it will
    land is counted, where on y is not known before it ran.
    """
    figure, axis = axes(title)
    here = list(here)
    intensities = [w.arithmetic_intensity for w in (expected or {}).values()]
    intensities += [r.flops / r.bytes for r in here if r.flops and r.bytes and r.unit in TIMED]
    intensities += [x for roof in roofs for x in (roof.ridge / 30, roof.ridge * 30)]
    low, high = min(intensities) / 2, max(intensities) * 2
    for number, roof in enumerate(roofs):
        _roof(axis, roof, low, high, number)
    for number, (name, work) in enumerate((expected or {}).items()):
        x = work.arithmetic_intensity
        axis.axvline(x, color="#777777", linestyle=(0, (1, 2)), linewidth=1.2)
        axis.annotate(
            name,
            (x, 0.03 + 0.09 * (number % 6)),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=10,
            color="#333333",
        )
    _points(axis, here, filled=True)
    _points(axis, elsewhere, filled=False)
    axis.set(xscale="log", yscale="log", xlim=(low, high))
    axis.set_xlabel("arithmetic intensity (FLOP per byte)", fontsize=12)
    axis.set_ylabel("performance (FLOP/s)", fontsize=12)
    _si_axis(axis.yaxis)
    axis.legend(loc="lower right", fontsize=10, framealpha=0.95)
    return figure


def _roof(axis: "Axes", roof: Roof, low: float, high: float, number: int) -> None:
    color = "#000000" if roof.kind == "measured" else COLORS[number % len(COLORS)]
    style = "-" if roof.kind == "measured" else LINES[1 + number % 3]
    xs = [low, roof.ridge, high]
    axis.plot(
        xs,
        [roof.attainable(x) for x in xs],
        style,
        color=color,
        linewidth=2.2,
        label=f"{roof.name} ({roof.kind})",
    )
    axis.plot(
        [roof.ridge], [roof.peak_flops], marker="|", markersize=14, color=color, linestyle="none"
    )
    axis.annotate(
        f"ridge {roof.ridge:.3g} FLOP/byte\n{si(roof.peak_flops, 'FLOP/s')}, {si(roof.bandwidth_bytes_per_s, 'B/s')}",
        (roof.ridge, roof.peak_flops),
        xytext=(0, 8),
        textcoords="offset points",
        ha="center",
        fontsize=10,
        color=color,
    )
    axis.margins(y=0.18)


def _points(axis: "Axes", records: Iterable[Record], *, filled: bool) -> None:
    for number, (family, group) in enumerate(_by_family(records).items()):
        color = COLORS[number % len(COLORS)]
        known = [r for r in group if r.flops and r.bytes and r.unit in TIMED]
        if not known:
            continue
        label = (
            family
            if filled
            else f"{family}, recorded: {known[0].machine.device}, {known[0].date:%Y-%m-%d}"
        )
        axis.errorbar(
            [r.flops / r.bytes for r in known],
            [flops_per_s(r) for r in known],
            yerr=[
                [flops_per_s(r) * (1 - r.p20 / r.value) for r in known],
                [flops_per_s(r) * (r.p80 / r.value - 1) for r in known],
            ],
            fmt=MARKERS[number % len(MARKERS)],
            color=color,
            markerfacecolor=color if filled else "white",
            markersize=8,
            capsize=3,
            linewidth=1.2,
            label=label,
            zorder=5,
        )


def predicted_against_measured(
    records: Iterable[Record], title: str = "Predicted against measured"
) -> "Figure":
    """Log–log scatter of seconds per call: predicted on x, measured on y, the diagonal is a perfect prediction."""
    figure, axis = axes(title)
    times: list[float] = []
    for number, (family, group) in enumerate(_by_family(records).items()):
        pairs = [(seconds(r, r.predicted), seconds(r, r.value)) for r in group if r.predicted]
        times += [t for pair in pairs for t in pair]
        axis.plot(
            *zip(*pairs, strict=True),
            MARKERS[number % len(MARKERS)],
            color=COLORS[number % len(COLORS)],
            markersize=8,
            label=family,
        )
    span = [min(times) / 1.5, max(times) * 1.5]
    axis.plot(span, span, "-", color="#000000", linewidth=1, label="measured = predicted")
    axis.fill_between(
        span,
        [t / 1.15 for t in span],
        [t * 1.15 for t in span],
        color="#999999",
        alpha=0.25,
        label="within 15 %",
    )
    axis.set(xscale="log", yscale="log", xlim=span, ylim=span)
    axis.set_xlabel("predicted time of one call (s)", fontsize=12)
    axis.set_ylabel("measured time of one call (s)", fontsize=12)
    _si_axis(axis.xaxis, "s")
    _si_axis(axis.yaxis, "s")
    axis.legend(loc="upper left", fontsize=10)
    return figure


def bars(
    values: Mapping[str, float], unit: str, title: str, reference: Mapping[str, float] | None = None
) -> "Figure":
    """Horizontal bars with their values written on them; `reference` marks a peak on each bar that has one."""
    figure, axis = axes(title, (INCHES[0], 1.2 + 0.55 * len(values)))
    names = list(values)
    axis.barh(names, [values[n] for n in names], color=COLORS[0], height=0.6)
    for row, name in enumerate(names):
        axis.annotate(
            si(values[name], unit),
            (values[name], row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=11,
        )
    marked = {n: p for n, p in (reference or {}).items() if n in values}
    if marked:
        axis.plot(
            list(marked.values()),
            list(marked),
            "D",
            color=COLORS[1],
            markersize=9,
            label="datasheet, dense",
        )
        axis.legend(fontsize=10)
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.margins(x=0.18)
    axis.set_xlabel(unit, fontsize=12)
    _si_axis(axis.xaxis)
    return figure


def landscape(roofs: Iterable[Roof], here: Roof, title: str) -> "Figure":
    """Devices as points, bandwidth on x and peak FLOP/s on y (log–log); `here` is the star."""
    figure, axis = axes(title)
    roofs = list(roofs)
    for roof in roofs:
        axis.plot(roof.bandwidth_bytes_per_s, roof.peak_flops, "o", color=COLORS[0], markersize=8)
    axis.plot(here.bandwidth_bytes_per_s, here.peak_flops, "*", color=COLORS[1], markersize=18)
    axis.annotate(
        f"this machine ({here.kind})",
        (here.bandwidth_bytes_per_s, here.peak_flops),
        xytext=(14, -4),
        textcoords="offset points",
        fontsize=11,
        fontweight="bold",
    )
    axis.set(xscale="log", yscale="log")
    axis.margins(0.12)
    axis.set_xlabel("memory bandwidth (B/s)", fontsize=12)
    axis.set_ylabel("peak (FLOP/s)", fontsize=12)
    _si_axis(axis.xaxis)
    _si_axis(axis.yaxis)
    _label_apart(axis, [(r.name, r.bandwidth_bytes_per_s, r.peak_flops) for r in roofs])
    return figure


def _label_apart(axis: "Axes", labels: Sequence[tuple[str, float, float]]) -> None:
    """Write each label beside its point where it covers neither another label nor a point; leave it out if nowhere."""
    from matplotlib.transforms import Bbox

    axis.figure.canvas.draw()  # positions in pixels exist only after a drawing
    points = [axis.transData.transform((x, y)) for _, x, y in labels]
    taken = [Bbox.from_extents(px - 5, py - 5, px + 5, py + 5) for px, py in points]
    taken += [text.get_window_extent() for text in axis.texts]
    places = [(dx, dy) for dy in (-4, 9, -17, 22, -30, 35, -43) for dx in (9, -9)]
    for name, x, y in labels:
        for dx, dy in places:
            text = axis.annotate(
                name,
                (x, y),
                xytext=(dx, dy),
                textcoords="offset points",
                fontsize=9,
                ha="left" if dx > 0 else "right",
                # A label that had to move away keeps a thread to its point.
                arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6}
                if abs(dy) > 9
                else None,
            )
            box = text.get_window_extent()
            inside = axis.bbox.x0 <= box.x0 and box.x1 <= axis.bbox.x1 + 40
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def flops_per_s(record: Record) -> float:
    """FLOP/s of a record in FLOP/s, B/s or s that holds its FLOPs and bytes."""
    return record.flops / seconds(record, record.value)


def seconds(record: Record, value: float) -> float:
    """Seconds of one call at `value`, which is in the record's unit; UserError where that is no time or rate of it."""
    if record.unit not in TIMED:
        raise UserError(
            f"{record.name} is in {record.unit}: it holds no time of a call; drawn are {', '.join(TIMED)}."
        )
    if record.unit == "s":
        return value
    return (record.flops if record.unit == "FLOP/s" else record.bytes) / value


def si(value: float, unit: str) -> str:
    """`value` with three digits and an SI prefix: 1.83e11, "FLOP/s" → "183 GFLOP/s"."""
    from matplotlib.ticker import EngFormatter

    number, _, prefix = EngFormatter(places=6)(value).partition(" ")
    return f"{float(number):.3g} {prefix}{unit}".replace("e+0", "e")


def _si_axis(axis, unit: str = "") -> None:
    from matplotlib.ticker import EngFormatter, NullFormatter

    axis.set_major_formatter(EngFormatter(unit=unit, sep=" " if unit else ""))
    axis.set_minor_formatter(NullFormatter())


def _by_family(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records grouped by the first part of their names: "gemm", "chain-plain", …"""
    families: dict[str, list[Record]] = {}
    for item in records:
        families.setdefault(item.name.split("/")[0], []).append(item)
    return families
