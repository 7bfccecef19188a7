"""A plan in words: layout, memory bar, time breakdown, utilization, what it takes, what would help. Pure."""

from dataclasses import fields

from smml.plan.advice import Change
from smml.plan.budget import Budget
from smml.plan.goodput import Reliability
from smml.plan.memory import Memory
from smml.plan.search import Found
from smml.plan.step import Step

GIB = 2**30
_LETTERS = {
    "weights": "W",
    "gradients": "G",
    "optimizer": "O",
    "activations": "A",
    "loss": "L",
    "buffers": "B",
    "fragmentation": "f",
}


def headline(step: Step) -> str:
    """What is planned, on what, how."""
    job, place, layout = step.job, step.cluster, step.layout
    power = "" if place.power_w is None else f", {place.power_w:g} W"
    return "\n".join(
        (
            f"{job.shape.name} ({_count(job.shape.parameters)} parameters), sequences of {job.sequence_length:,}, "
            f"{job.global_batch_size:,} a step ({_count(job.tokens_per_step)} tokens), {job.dtype}, "
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
    lines = [f"step    {_seconds(total)}"]
    for name, seconds in sorted(step.parts.items(), key=lambda item: -item[1]):
        if seconds > 0.001 * total:
            share = seconds / total
            lines.append(
                f"  {name:17s} {share:6.1%} {_seconds(seconds):>9s} {'█' * round(share * width)}"
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


def cost(spent: Budget, reliability: Reliability, interval_s: float, goodput: float) -> str:
    """Days, hours and dollars of a whole training, and what failures take of it."""
    usd = "price unknown" if spent.usd is None else f"{spent.usd:,.0f} USD"
    return (
        f"run     {_count(spent.tokens)} tokens: {spent.steps:,} steps, {spent.days:.1f} days, "
        f"{spent.gpu_hours:,.0f} accelerator-hours, {usd}\n"
        f"        goodput {goodput:.1%}: a failure every {reliability.mean_time_between_failures_s / 3600:.1f} h, "
        f"{_seconds(reliability.recovery_s)} to recover, a checkpoint of {_seconds(reliability.checkpoint_s)} every "
        f"{_seconds(interval_s)} (Daly's optimum)"
    )


def help_most(changes: list[Change], count: int = 5) -> str:
    """The changes that save most, one a line."""
    lines = [
        f"  {change.saved:6.1%}  {_seconds(change.seconds):>9s}  {change.what}"
        for change in changes[:count]
    ]
    return "\n".join(
        ["what would help most (each alone, predicted again):", *(lines or ["  nothing tried"])]
    )


def rejections(found: Found) -> str:
    """How many layouts were judged and why those left out were, by what is in the way."""
    kept = found.considered - len(found.rejected)
    lines = [f"{found.considered:,} layouts judged, {kept:,} possible; rejected:"]
    lines += [
        f"  {count:6,d}  {name}, such as {example.layout}: {example.reason}"
        for name, count, example in found.grouped()
    ]
    return "\n".join(lines if len(lines) > 1 else [lines[0].replace("; rejected:", "")])


def _count(number: float) -> str:
    for limit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.4g}{letter}"
    return f"{number:.4g}"


def _seconds(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.3g} h"
    if seconds >= 120:
        return f"{seconds / 60:.3g} min"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
