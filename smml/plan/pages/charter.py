"""The charter: what is trained, when it counts as done, what would prove the plan wrong, what may go wrong. Pure."""

from smml.plan.amounts import GIB, count, span, usd
from smml.plan.budget import DAY_S
from smml.plan.calibration import OTHERS, compare, read_folder, summary
from smml.plan.coverage import outside
from smml.plan.goodput import most_failures
from smml.plan.pages.table import table
from smml.plan.planning import Plan
from smml.plan.scaling_laws import CHINCHILLA

WEEK_S = 7 * DAY_S
CONFIDENCE = 0.95


def charter(plan: Plan) -> str:
    """The page as Markdown."""
    over = (plan.memory.total - plan.limit_bytes) / GIB
    warning = (
        [f"**This layout does not fit: {over:.1f} GiB too much on a rank.**"] if over > 0 else []
    )
    return "\n\n".join(
        (
            f"# Charter: {plan.step.job.shape.name}",
            *warning,
            _what(plan),
            "## Done when",
            _success(plan),
            "## What would prove this plan wrong",
            _falsified(plan),
            "## Risks",
            _risks(plan),
        )
    )


def _what(plan: Plan) -> str:
    done, spent = plan.step, plan.budget
    job, shape = done.job, done.job.shape
    rows = [
        ("model", f"{shape.name}, {count(shape.parameters)} parameters"),
        (
            "tokens",
            f"{count(spent.tokens)}, {spent.tokens / shape.parameters:.3g} a parameter, "
            f"{count(job.tokens_per_step)} a step",
        ),
        ("precision", f"{job.dtype}, sequences of {job.sequence_length:,} tokens"),
        ("on", f"{done.cluster.gpus:,} × {done.cluster.accelerator.name}"),
        ("layout", str(done.layout)),
        ("takes", f"{spent.days:.1f} days, {spent.gpu_hours:,.0f} accelerator-hours"),
        ("costs", usd(spent.usd)),
    ]
    if shape.experts > 1:
        rows.insert(1, ("used by a token", f"{count(shape.active_parameters)} parameters"))
    return table(("", ""), rows)


def _success(plan: Plan) -> str:
    done, spent = plan.step, plan.budget
    lines = [
        f"{spent.steps:,} steps are done within {spent.days:.1f} days.",
        f"The median step takes at most {span(done.seconds)}: {done.tokens_per_s:,.0f} tokens/s, "
        f"{done.utilization('causal'):.1%} of the dense {done.job.dtype} peak (attention as masked).",
        f"No rank holds more than {plan.memory.total / GIB:.1f} GiB of {plan.limit_bytes / GIB:.1f} GiB.",
        f"{plan.goodput:.2%} of the time trains.",
    ]
    if spent.usd is not None:
        lines.append(f"The bill of the accelerators stays within {usd(spent.usd)}.")
    if done.job.shape.experts == 1:
        lines.append(
            f"The loss comes to about {plan.predicted_loss:.2f} nats a token ({CHINCHILLA.source}: of that paper's data and "
            "tokenizer; fit the law to small runs on yours, and put its figure here)."
        )
    return "\n".join(f"- {line}" for line in lines)


def _falsified(plan: Plan) -> str:
    sums = summary(compare(read_folder()))
    step_error, memory_error = sums["step time"][1], sums["total memory"][1]
    first = min(plan.budget.steps, max(1, round(plan.interval_s / plan.step.seconds)))
    period = min(WEEK_S, plan.budget.wall_s)
    worst = plan.step.seconds * (1 + step_error)
    most = min(plan.limit_bytes, plan.memory.total * (1 + memory_error))
    lines = [
        f"The median of the first {first:,} steps (one checkpoint interval) is above {span(worst)}: the predicted step and "
        f"the largest error on the calibration rows, {step_error:.1%}.",
        f"A rank's allocator peaks above {most / GIB:.1f} GiB.",
        f"More than {most_failures(plan.reliability, period, CONFIDENCE):,} interruptions in the first "
        f"{period / DAY_S:.1f} days: at the rate planned for, {CONFIDENCE:.0%} of such spans have no more.",
        f"A recovery takes longer than {span(plan.reliability.recovery_s)}, or a checkpoint stops the run for longer than "
        f"{span(plan.reliability.checkpoint_s)}.",
    ]
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


def _risks(plan: Plan) -> str:
    sums = summary(compare(read_folder()))
    mean, worst, rows = sums["step time"]
    further, most, others = summary(compare(read_folder(OTHERS)))["step time"]
    memory_error = sums["total memory"][1]
    spent = plan.budget
    off = spent.days * worst
    money = "" if spent.usd is None else f", {usd(spent.usd * worst)}"
    failing = spent.days * (1 - plan.goodput)
    lines = [
        (
            "the planner is off",
            f"{mean:.1%} in the mean, {worst:.1%} at most on {rows} published steps: ±{off:.1f} days{money}",
        ),
        (
            "it is further off",
            f"{further:.1%} in the mean, {most:.0%} at most on {others} other published steps, on half of which terms were developed: "
            f"±{spent.days * further:.1f} days in the mean",
        ),
        *(("not seen in calibration", line) for line in outside(plan)),
        (
            "memory runs out",
            f"{(plan.limit_bytes - plan.memory.total) / GIB:.1f} GiB of {plan.limit_bytes / GIB:.1f} GiB are left; the largest "
            f"error of the rows, {memory_error:.1%}, is {memory_error * plan.memory.total / GIB:.1f} GiB",
        ),
        (
            "accelerators fail",
            f"{plan.interruptions:,.1f} interruptions expected, one every "
            f"{span(plan.reliability.mean_time_between_failures_s)}: {failing:.1f} days",
        ),
    ]
    if plan.offer is not None:
        lines.append(("the price moves", f"read for {plan.offer.date}: {plan.offer}"))
    return table(("risk", "size"), lines)
