"""Managed beside self-managed, as notebooks show it: fourteen steps, what has ended, what the premium buys."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.display import Markdown

from smml import plot
from smml.cost.decisions.decision import Decision
from smml.cost.managed import Premium
from smml.cost.steps.fourteen import STEPS, Step
from smml.cost.steps.project import Project
from smml.cost.steps.validate import Request, problems
from smml.course.decisions import literal
from smml.course.show import table
from smml.data.services import services

if TYPE_CHECKING:  # matplotlib takes a second to import: only for a figure that is really drawn
    from matplotlib.figure import Figure


def when() -> Markdown:
    """The fourteen steps: how each is done here and on AWS, and when to take which."""
    rows = [(s.number, f"**{s.name}**", s.here, s.on_aws, s.take_here, s.take_aws) for s in STEPS]
    return table(("", "step", "here", "on AWS", "here, when", "AWS, when"), rows)


def ended() -> Markdown:
    """Services that a new account does not get any more, since when, what instead, and the day it was read."""
    rows = [
        (r.name, r.status, r.since or "", r.successor, r.date if r.checked else "unchecked")
        for r in services().values()
        if r.status != "available"
    ]
    return table(("service", "status", "since", "instead", "as of"), rows)


def premiums(known: Sequence[Premium], pay_usd_per_hour: float) -> Markdown:
    """Each type rented and managed, and the hours of work a month that pay for what managed adds to one machine."""
    rows = [
        (
            one.instance,
            one.rented_usd_per_hour,
            one.managed_usd_per_hour,
            f"{one.ratio:.2f}×",
            one.usd_per_month() / pay_usd_per_hour,
            "yes" if one.checked else "no",
        )
        for one in known
    ]
    headers = ("type", "EC2, USD/h", "SageMaker, USD/h", "ratio", "h of work a month", "checked")
    return table(headers, rows)


def run_here(folder: Path, steps: Sequence[Step] = STEPS) -> tuple[Markdown, dict[str, float]]:
    """Do the local side of each step; the table of what came out, and the seconds of each by its name."""
    rows, took = [], {}
    for one in steps:
        start = time.perf_counter()
        outcome = one.run(folder)
        took[one.name] = time.perf_counter() - start
        rows.append((one.number, one.name, literal(outcome.said), took[one.name]))
    return table(("", "step", "here", "s"), rows), took


def checked(project: Project, steps: Sequence[Step] = STEPS) -> tuple[Markdown, list[Request]]:
    """The requests of each step with what the API's model says of them and what they are billed by; all requests."""
    rows, requests = [], []
    for one in steps:
        asked = one.requests(project)
        requests += asked
        wrong = [problem for request in asked for problem in problems(request)]
        names = ", ".join(f"`{request.operation}`" for request in asked)
        billed = "; ".join(line for line in one.costs(project.region) if "no sourced" not in line)
        rows.append((one.number, one.name, names, "; ".join(wrong) or "valid", billed or "—"))
    return table(("", "step", "requests", "verdict", "billed by, among others"), rows), requests


def verdicts(decisions: Iterable[tuple[str, Decision[Any]]]) -> Markdown:
    """Each question with its decision: the choice and its price, or that there is none; and the first reason."""
    rows = []
    for asked, decision in decisions:
        choice = "**none**" if decision.choice is None else f"**{decision.choice}**"
        price = "" if decision.price is None else f"{decision.price}"
        rows.append((asked, choice, literal(price), literal(decision.reasons[0])))
    return table(("asked", "choice", "price", "because"), rows)


def premium_over_machines(
    premiums: Sequence[Premium], work_usd_per_month: float, title: str
) -> "Figure":
    """Log–log: machines that are always on, and USD a month: a line a type, what the work costs level, crossings marked."""
    figure, axis = plot.axes(title)
    counts = [1, 2, 5, 10, 20, 50, 100, 200]
    for number, one in enumerate(premiums):
        axis.plot(
            counts,
            [one.usd_per_month(n) for n in counts],
            plot.LINES[number % len(plot.LINES)] + plot.MARKERS[number % len(plot.MARKERS)],
            color=plot.COLORS[number % len(plot.COLORS)],
            linewidth=2,
            label=f"premium of ml.{one.instance}",
        )
        crossing = work_usd_per_month / one.usd_per_month()
        if counts[0] <= crossing <= counts[-1]:
            axis.plot(crossing, work_usd_per_month, "k*", markersize=13)
    axis.axhline(work_usd_per_month, color="black", linewidth=2, label="work that managed saves")
    axis.set(xscale="log", yscale="log")
    axis.set_xlabel("machines, always on", fontsize=12)
    axis.set_ylabel("USD a month", fontsize=12)
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_formatter("{x:,.0f}")
    axis.legend(loc="upper left", fontsize=11)
    return figure
