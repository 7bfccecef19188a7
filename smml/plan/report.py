"""A plan in words: layout, memory bar, time breakdown, utilization, what it takes, what would help. Pure."""

from dataclasses import fields

from smml.plan.advice import Change
from smml.plan.amounts import GIB, count, span
from smml.plan.calibration import OTHERS, compare, read_folder, summary
from smml.plan.memory import Memory
from smml.plan.planning import Plan
from smml.plan.search import Found
from smml.plan.step import Step

_LETTERS = {
    "weights": "W",
    "gradients": "G",
    "optimizer": "O",
    "activations": "A",
    "loss": "L",
    "buffers": "B",
    "fragmentation": "f",
}


def text(plan: Plan) -> str:
    """All that `smml plan` prints."""
    over = "" if plan.fits else "\n        DOES NOT FIT: recompute, shard or cut more"
    given = "the layout was given; leave a field out to have it searched"
    return "\n\n".join(
        (
            headline(plan.step),
            memory_bar(plan.memory, plan.limit_bytes) + over,
            time_breakdown(plan.step),
            utilization(plan.step),
            cost(plan),
            help_most(plan.advice),
            given if plan.found is None else rejections(plan.found),
            trust(),
        )
    )


def headline(step: Step) -> str:
    """What is planned, on what, how."""
    job, place, layout = step.job, step.cluster, step.layout
    power = "" if place.power_w is None else f", {place.power_w:g} W"
    return "\n".join(
        (
            f"{job.shape.name} ({count(job.shape.parameters)} parameters), sequences of {job.sequence_length:,}, "
            f"{job.global_batch_size:,} a step ({count(job.tokens_per_step)} tokens), {job.dtype}, "
            f"{job.engine} kernels, {job.attention} attention",
            f"{place.gpus:,} × {place.accelerator.name}{power}; {place.inside.kind} "
            f"{place.inside.bandwidth_bytes_per_s / 1e9:.0f} GB/s in nodes of {place.gpus_per_node}, {place.between.kind} "
            f"{place.between.bandwidth_bytes_per_s / 1e9:.1f} GB/s an accelerator between them (what collectives get)",
            f"layout: {layout}; {layout.micro_batches(job)} micro-batches a step",
        )
    )


def memory_bar(memory: Memory, limit_bytes: float, width: int = 60) -> str:
    """One line of letters to scale, `limit_bytes` wide, and what they mean."""
    parts = [(f.name, getattr(memory, f.name)) for f in fields(memory)]
    scale, at, bar = width / max(limit_bytes, memory.total), 0.0, ""
    for name, size in parts:
        at += size
        bar += _LETTERS[name] * (round(at * scale) - len(bar))
    said = ", ".join(
        f"{_LETTERS[n]} {n} {size / GIB:.1f}" for n, size in parts if size > 0.05 * GIB
    )
    return (
        f"memory  [{bar:.<{width}}] {memory.total / GIB:.1f} of {limit_bytes / GIB:.1f} GiB a rank\n"
        f"        {said} GiB"
    )


def time_breakdown(step: Step, width: int = 40) -> str:
    """One line a part, largest first, with its share of the step to scale."""
    total = step.seconds
    lines = [f"step    {span(total)}"]
    for name, seconds in sorted(step.parts.items(), key=lambda item: -item[1]):
        if seconds > 0.001 * total:
            share = seconds / total
            lines.append(
                f"  {name:17s} {share:6.1%} {span(seconds):>9s} {'█' * round(share * width)}"
            )
    return "\n".join(lines)


def utilization(step: Step) -> str:
    """Tokens a second and the share of the peak by each named convention."""
    peak = step.cluster.peak_flops(step.job.dtype)
    shares = ", ".join(
        f"{step.utilization(convention):.1%} {said}"
        for convention, said in (
            ("causal", "MFU (attention as masked)"),
            ("full", "MFU (attention in full)"),
            ("6n", "MFU (6N)"),
            ("hardware", "HFU (recomputation counted)"),
        )
    )
    return (
        f"speed   {step.tokens_per_s:,.0f} tokens/s, {step.tokens_per_s_per_gpu:,.0f} an accelerator\n"
        f"        {shares} of {peak / 1e12:.0f} TFLOP/s dense {step.job.dtype}"
    )


def cost(plan: Plan) -> str:
    """Days, hours and dollars of a whole training, what failures take of it, and whose price it is."""
    spent, reliability = plan.budget, plan.reliability
    usd = "no price given" if spent.usd is None else f"{spent.usd:,.0f} USD"
    if plan.offer is not None:
        usd += f" ({plan.offer}, {plan.offer.date})"
    billed = ""
    if spent.billed_gpu_hours > spent.gpu_hours:
        place = plan.step.cluster
        billed = f"; {place.billed_gpus - place.gpus} of {place.billed_gpus:,} billed accelerators stand idle"
    return (
        f"run     {count(spent.tokens)} tokens: {spent.steps:,} steps, {spent.days:.1f} days, "
        f"{spent.gpu_hours:,.0f} accelerator-hours, {usd}{billed}\n"
        f"        goodput {plan.goodput:.1%}: a failure every {reliability.mean_time_between_failures_s / 3600:.1f} h, "
        f"{span(reliability.recovery_s)} to recover, a checkpoint of {span(reliability.checkpoint_s)} every "
        f"{span(plan.interval_s)} (Daly's optimum)"
    )


def trust() -> str:
    """How far off the planner is on the steps that it was calibrated on, and on others."""
    mean, worst, rows = summary(compare(read_folder()))["step time"]
    further, most, others = summary(compare(read_folder(OTHERS)))["step time"]
    return (
        f"trust   on the {rows} published steps it was calibrated on the planner is {mean:.1%} off in the mean, "
        f"{worst:.1%} at most (smml plan --errors);\n        on {others} others {further:.1%}, {most:.0%} at most (--errors --others; terms were developed on half of them)"
    )


def help_most(changes: list[Change], most: int = 5) -> str:
    """The changes that save most, one a line."""
    lines = [
        f"  {change.saved:6.1%}  {span(change.seconds):>9s}  {change.what}"
        for change in changes[:most]
    ]
    return "\n".join(
        ["what would help most (each alone, predicted again):", *(lines or ["  nothing tried"])]
    )


def rejections(found: Found) -> str:
    """How many layouts were judged and why those left out were, by what is in the way."""
    kept = found.considered - len(found.rejected)
    lines = [f"{found.considered:,} layouts judged, {kept:,} possible; rejected:"]
    lines += [
        f"  {number:6,d}  {name}, such as {example.layout}: {example.reason}"
        for name, number, example in found.grouped()
    ]
    return "\n".join(lines if len(lines) > 1 else [lines[0].replace("; rejected:", "")])
