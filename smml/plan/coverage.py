"""What of a plan lies outside the published runs that the planner was calibrated on. Reads the rows, writes none."""

from smml.plan.calibration import read_folder
from smml.plan.planning import Plan


def outside(plan: Plan) -> list[str]:
    """One line for each thing that no calibration row of a step time has, in the plan's own words; empty if all do."""
    runs = [run for run in read_folder() if run.metric not in ("activation_memory_per_gpu",)]
    job, layout, place = plan.step.job, plan.step.layout, plan.step.cluster
    found = []

    def named(what: str, mine: object, theirs: set) -> None:
        if mine not in theirs:
            found.append(f"{what} {mine}: the rows have {', '.join(sorted(map(str, theirs)))}")

    def counted(what: str, mine: int, theirs: set[int]) -> None:
        if not min(theirs) <= mine <= max(theirs):
            low, high = f"{min(theirs):,}", f"{max(theirs):,}"
            span = low if low == high else f"{low} to {high}"
            found.append(f"{what} {mine:,}: the rows have {span}")

    named("accelerator", place.key, {run.cluster.key for run in runs})
    named("precision", job.dtype, {run.job.dtype for run in runs})
    named("kernels", job.engine, {run.job.engine for run in runs})
    named("attention", job.attention, {run.job.attention for run in runs})
    named("recompute", layout.recompute, {run.layout.recompute for run in runs})
    if place.nodes > 1:
        between = {run.cluster.between.kind for run in runs if run.cluster.nodes > 1}
        named("network", place.between.kind, between)
    counted("accelerators", place.gpus, {run.cluster.gpus for run in runs})
    counted("sequence length", job.sequence_length, {run.job.sequence_length for run in runs})
    counted("micro-batch", layout.micro_batch_size, {run.layout.micro_batch_size for run in runs})
    for field in ("data", "tensor", "pipeline", "context", "expert"):
        name = f"{field}_parallel"
        counted(f"{field} parallel", getattr(layout, name), {getattr(r.layout, name) for r in runs})
    counted("experts", job.shape.experts, {run.job.shape.experts for run in runs})
    return found
