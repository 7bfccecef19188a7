"""Bills that notebooks show: as stacked bars of shares, prices of tokens over load, and what ranks that were recorded cost."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from IPython.display import Markdown

from smml import plot
from smml.bench import Setting
from smml.cost.units import from_records
from smml.cost.units.bill import Bill
from smml.course.show import table
from smml.measure import Record
from smml.measure.compare import baselines, elsewhere

if TYPE_CHECKING:  # matplotlib takes a second to import: only for a figure that is really drawn
    from matplotlib.figure import Figure

HATCHES = ("", "//", "..", "xx", "\\\\", "++", "--", "oo")
WIDE_ENOUGH = 0.05  # of the whole bar, for a percentage to be written in
VISIBLE = 0.002  # of the whole bar: a pixel or two


def shares(bills: Mapping[str, Bill], title: str) -> "Figure":
    """A bar a bill, each 100 % wide, cut into its parts; a part has the same colour and hatch in every bar.

    Parts too small to be seen in any bar are left out, so that the legend names what is drawn.
    """
    figure, axis = plot.axes(title, (plot.INCHES[0], 1.9 + 0.75 * len(bills)))
    parts = dict.fromkeys(
        part for bill in bills.values() for part in bill.parts if bill.share(part) >= VISIBLE
    )
    left = dict.fromkeys(bills, 0.0)
    for number, part in enumerate(parts):
        widths = {name: 100 * b.share(part) for name, b in bills.items() if part in b.parts}
        color = plot.COLORS[number % len(plot.COLORS)]
        axis.barh(
            list(widths),
            list(widths.values()),
            left=[left[name] for name in widths],
            height=0.6,
            color=color,
            hatch=HATCHES[number % len(HATCHES)],
            edgecolor="white",
            label=part,
        )
        for name, width in widths.items():
            if width >= 100 * WIDE_ENOUGH:
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
                at = (left[name] + width / 2, list(bills).index(name))
                axis.annotate(f"{width:.0f} %", at, ha="center", va="center", fontsize=10, bbox=box)
            left[name] += width
    axis.set(xlim=(0, 100))
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.set_xlabel("share of the bill (%)", fontsize=12)
    figure.legend(loc="outside lower center", ncols=4, fontsize=10)
    return figure


def amounts(bills: Mapping[str, Bill]) -> Markdown:
    """The parts of each bill in USD, a column a bill, and the sum; empty where a bill has no such part."""
    parts = dict.fromkeys(part for bill in bills.values() for part in bill.parts)
    rows = [(part, *(_usd(b.parts.get(part)) for b in bills.values())) for part in parts]
    rows.append(("**all**", *(f"**{_usd(bill.usd)}**" for bill in bills.values())))
    return table(("USD", *bills), rows)


def over_load(
    loads: Sequence[float], usd_per_million: Mapping[str, Sequence[float]], title: str
) -> "Figure":
    """Log–log: share of the paid time that makes tokens on x, USD per million of each kind on y."""
    figure, axis = plot.axes(title)
    for number, (kind, prices) in enumerate(usd_per_million.items()):
        axis.plot(
            [100 * load for load in loads],
            prices,
            plot.LINES[number % len(plot.LINES)] + plot.MARKERS[number % len(plot.MARKERS)],
            color=plot.COLORS[number % len(plot.COLORS)],
            linewidth=2,
            markersize=8,
            label=kind,
        )
    axis.set(xscale="log", yscale="log")
    axis.set_xlabel("share of the paid time in which tokens are made (%)", fontsize=12)
    axis.set_ylabel("USD per million tokens", fontsize=12)
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_formatter("{x:,g}")
    axis.legend(fontsize=11)
    return figure


def recorded_ranks(setting: Setting, strategy: str) -> Markdown:
    """What the same training costs by number of ranks on one machine, from records; and what adding up reports says.

    As multiples of the price on one rank, so that no price is needed: the machine was the same. Says so where no
    machine has left such records.
    """
    prefix, found = f"scaling/ranks-{{}}/{strategy}", {}
    for records in (
        baselines(setting.machine.fingerprint),
        elsewhere(setting.machine.fingerprint),
    ):
        one = next((r for r in records if r.name == prefix.format(1)), None)
        if one is not None:
            found = {r.inputs["ranks"]: r for r in _same_machine(records, one, strategy)}
            break
    if len(found) < 2:
        return Markdown("*No machine has left records of `scaling/…` on several ranks yet.*")
    rates = {n: from_records.throughput(r).tokens_per_s for n, r in sorted(found.items())}
    one = found[1]
    rows = [(n, f"{rate:,.0f}", rates[1] / rate, rates[1] / rate / n) for n, rate in rates.items()]
    headers = (
        f"ranks on one {one.machine.device}, {one.date:%Y-%m-%d}",
        "tokens/s of the job",
        "price of a token ÷ that on one rank",
        "as it looks when reports are added up",
    )
    return table(headers, rows)


def _usd(amount: float | None) -> str:
    if amount is None:
        return ""
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"


def _same_machine(records: Sequence[Record], one: Record, strategy: str) -> list[Record]:
    return [
        r
        for r in records
        if r.name.startswith("scaling/ranks-")
        and r.name.endswith(f"/{strategy}")
        and r.machine == one.machine
    ]
