"""The schedule: days, milestones, checkpoints and what failures take. Pure."""

from smml.plan.amounts import count, span
from smml.plan.budget import DAY_S
from smml.plan.goodput import expected_goodput, young_interval_s
from smml.plan.pages.table import table
from smml.plan.planning import Plan
from smml.plan.scaling_laws import CHINCHILLA

QUARTERS = (0.25, 0.5, 0.75, 1.0)


def schedule(plan: Plan) -> str:
    """The page as Markdown."""
    return "\n\n".join(
        (
            f"# Schedule: {plan.budget.days:.1f} days",
            _days(plan),
            "## Milestones",
            _milestones(plan),
            "## Checkpoints and failures",
            _failures(plan),
            "Every interval, predicted again (J. T. Daly, 2006, equation 20):",
            _intervals(plan),
        )
    )


def _days(plan: Plan) -> str:
    spent = plan.budget
    rows = [
        ("steps", f"{spent.steps:,} of {span(plan.step.seconds)}"),
        ("steps without failures", f"{spent.training_s / DAY_S:.2f} days"),
        (
            "checkpoints, failures, recovery",
            f"{(spent.wall_s - spent.training_s) / DAY_S:.2f} days",
        ),
        ("in all", f"{spent.days:.2f} days"),
    ]
    return table(("", ""), rows)


def _milestones(plan: Plan) -> str:
    spent, shape = plan.budget, plan.step.job.shape
    dense = shape.experts == 1
    rows = [
        (
            "first checkpoint that counts",
            f"{plan.interval_s / plan.goodput / DAY_S:.2f}",
            f"{max(1, round(plan.interval_s / plan.step.seconds)):,}",
            count(plan.interval_s * plan.step.tokens_per_s),
            "",
        )
    ]
    for share in QUARTERS:
        tokens = share * spent.tokens
        loss = f"{CHINCHILLA.loss(shape.parameters, tokens):.3f}" if dense else ""
        rows.append(
            (
                f"{share:.0%} of the tokens",
                f"{share * spent.days:.2f}",
                f"{round(share * spent.steps):,}",
                count(tokens),
                loss,
            )
        )
    headers = ("milestone", "day", "steps", "tokens", "nats a token by Chinchilla's law")
    if not dense:
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    return table(headers, rows)


def _failures(plan: Plan) -> str:
    r = plan.reliability
    rows = [
        ("an accelerator fails every", f"{plan.failures.gpu_hours_between_failures:,.0f} h"),
        ("the job fails every", span(r.mean_time_between_failures_s)),
        ("interruptions expected", f"{plan.interruptions:,.1f}"),
        ("detection, restart", f"{span(r.detection_s)}, {span(r.restart_s)}"),
        ("a checkpoint stops the run for", span(r.checkpoint_s)),
        ("a checkpoint every (Daly)", span(plan.interval_s)),
        ("by Young's formula", span(young_interval_s(r))),
        ("checkpoints in all", f"{plan.checkpoints:,}"),
        ("goodput", f"{plan.goodput:.2%}"),
    ]
    return table(("", ""), rows)


def _intervals(plan: Plan) -> str:
    rows = []
    for factor in (1 / 4, 1 / 2, 1, 2, 4):
        interval = factor * plan.interval_s
        rows.append((span(interval), f"{expected_goodput(plan.reliability, interval):.2%}"))
    return table(("a checkpoint every", "goodput"), rows)
