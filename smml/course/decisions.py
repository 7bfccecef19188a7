"""Decisions that notebooks show: one explained with what was rejected, and prices of kinds of compute over volume."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from IPython.display import Markdown

from smml import plot
from smml.cost.decisions.decide import KINDS, choose
from smml.cost.decisions.decision import Decision, amount
from smml.cost.decisions.workload import Workload
from smml.course.show import table

if TYPE_CHECKING:  # matplotlib takes a second to import: only for a figure that is really drawn
    from matplotlib.figure import Figure

NAMES = {"cpu": "CPU", "gpu": "GPU", "neuron": "Inferentia/Trainium"}


def explained(decision: Decision, rejected: Collection[str] | None = None) -> Markdown:
    """Choice, price and reasons, then why each rejected option was not taken: all of them, or those named."""
    price = "" if decision.price is None else f", {decision.price}"
    choice = "none" if decision.choice is None else decision.choice
    lines = [f"**Choice: {choice}**{price}.", ""]
    lines += [f"- {reason}" for reason in decision.reasons]
    others = [one for one in decision.rejected if rejected is None or one.option in rejected]
    if others:
        lines += ["", "| rejected | would do | why |", "|---|---|---|"]
        lines += [
            f"| {NAMES.get(one.option, one.option)} | {'yes' if one.feasible else 'no'} | {one.why} |"
            for one in others
        ]
    return Markdown(literal("\n".join(lines)))


def counted(service: Workload) -> Markdown:
    """What a service asks for: of each token, of each step, and in a month."""
    month = service.tokens_per_s * service.average_load * service.hours_per_month * 3600
    flops = service.batch_size * service.token_flops
    rows = [
        ("parameters that a token uses", amount(service.parameters, "")),
        ("FLOPs of a token", amount(service.token_flops, "FLOP")),
        (f"FLOPs of a step, batch {service.batch_size}", amount(flops, "FLOP")),
        ("bytes that a step reads", amount(service.memory_bytes, "B")),
        ("arithmetic intensity", amount(flops / service.memory_bytes, "FLOP/byte")),
        ("tokens at the peak", amount(service.tokens_per_s, "tokens/s")),
        ("tokens in a month", amount(month, "tokens")),
    ]
    return table((f"{service.purpose}, {service.dtype}", ""), rows)


def compared(workloads: Mapping[str, Workload]) -> Markdown:
    """The cheapest option of each kind of compute for each workload, the choice in bold, or why the kind cannot do it."""
    rows = []
    for name, workload in workloads.items():
        best, cells = choose(workload).choice, []
        for kind in KINDS:
            decision = choose(workload, kinds=(kind,))
            if decision.choice is None:
                cells.append(" ".join(decision.reasons))
            else:
                mark = "**" if decision.choice == best else ""
                cells.append(f"{mark}{decision.choice}{mark}, {decision.price}")
        rows.append((name, *map(literal, cells)))
    return table(("workload", *NAMES.values()), rows)


def literal(text: str) -> str:
    """`text` with its dollar signs escaped: Markdown with mathematics reads two of them as a formula."""
    return text.replace("$", r"\$")


def prices_over_volume(
    volumes: Sequence[float], usd_per_month: Mapping[str, Sequence[float | None]], title: str
) -> "Figure":
    """Log–log: tokens a second at peak on x, USD a month of each kind on y; None where the kind cannot do it."""
    figure, axis = plot.axes(title)
    for number, (kind, prices) in enumerate(usd_per_month.items()):
        known = [(x, y) for x, y in zip(volumes, prices, strict=True) if y is not None]
        if known:
            axis.plot(
                *zip(*known, strict=True),
                plot.LINES[number % len(plot.LINES)] + plot.MARKERS[number % len(plot.MARKERS)],
                color=plot.COLORS[number % len(plot.COLORS)],
                linewidth=2,
                markersize=8,
                label=NAMES.get(kind, kind),
            )
    axis.set(xscale="log", yscale="log")
    axis.set_xlabel("tokens per second at peak", fontsize=12)
    axis.set_ylabel("cheapest that does it (USD a month)", fontsize=12)
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_formatter("{x:,.0f}")
    axis.legend(loc="upper left", fontsize=11)
    return figure
