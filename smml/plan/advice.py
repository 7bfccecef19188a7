"""What would help most: one change at a time, predicted again, in order of the seconds that it saves. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from smml.plan.cluster import LATE, Cluster, Fabric
from smml.plan.layout import Job, Layout
from smml.plan.memory import memory
from smml.plan.step import step


@dataclass(frozen=True)
class Change:
    """One change, the step with it in seconds, and the share of the step that it saves."""

    what: str
    seconds: float
    saved: float


def advise(
    cluster: Cluster, job: Job, layout: Layout, limit_bytes: float | None = None
) -> list[Change]:
    """Changes that shorten the step and still fit the memory, best first. Raises UserError for an impossible layout."""
    now = step(cluster, job, layout).seconds
    limit = cluster.usable_bytes if limit_bytes is None else limit_bytes
    found = []
    for what, where, task, how in _changes(cluster, job, layout):
        if how.problem(task, where.gpus) or memory(task, how).total > limit:
            continue
        then = step(where, task, how).seconds * job.tokens_per_step / task.tokens_per_step
        if then < now * 0.999:
            found.append(Change(what, then, 1 - then / now))
    return sorted(found, key=lambda change: change.seconds)


def _changes(
    cluster: Cluster, job: Job, layout: Layout
) -> Iterator[tuple[str, Cluster, Job, Layout]]:
    for attribute, said in (("inside", "in the node"), ("between", "between nodes")):
        link: Fabric = getattr(cluster, attribute)
        faster = replace(link, bandwidth_bytes_per_s=2 * link.bandwidth_bytes_per_s)
        yield f"twice the bandwidth {said}", replace(cluster, **{attribute: faster}), job, layout
    twice = replace(cluster, bandwidth_bytes_per_s=2 * cluster.bandwidth_bytes_per_s)
    yield "twice the memory bandwidth", twice, job, layout
    for engine in ("fused", "compiled"):
        if job.engine == "eager":
            yield f"engine {engine} instead of eager", cluster, replace(job, engine=engine), layout
    if job.attention == "unfused":
        yield "FlashAttention instead of unfused", cluster, replace(job, attention="flash"), layout
    if job.attention == "flash" and cluster.accelerator.architecture.split()[0] in LATE:
        yield (
            "attention of FlashAttention-3 or cuDNN",
            cluster,
            replace(job, attention="flash3"),
            layout,
        )
    if job.dtype != "fp8" and cluster.accelerator.peak_flops("fp8") is not None:
        yield "FP8 for the linear products", cluster, replace(job, dtype="fp8"), layout
    for less in ("none", "selective"):
        if layout.recompute == "full" or (less == "none" and layout.recompute == "selective"):
            yield f"recompute {less}", cluster, job, replace(layout, recompute=less)
    for more in (2 * layout.micro_batch_size, layout.micro_batch_size // 2):
        if more:
            yield f"micro_batch_size {more}", cluster, job, replace(layout, micro_batch_size=more)
    double = replace(job, global_batch_size=2 * job.global_batch_size)
    yield (
        f"global_batch_size {double.global_batch_size} (for as many tokens)",
        cluster,
        double,
        layout,
    )
    if layout.pipeline_parallel > 1:
        more = 2 * layout.interleave
        yield f"interleave {more}", cluster, job, replace(layout, interleave=more)
        yield "pipeline sends overlapped", cluster, job, replace(layout, overlap_pipeline=True)
    if layout.tensor_parallel > 1:
        yield (
            "all tensor-parallel messages overlapped",
            cluster,
            job,
            replace(layout, overlap_tensor="full"),
        )
        if not layout.sequence_parallel:
            yield "sequence_parallel", cluster, job, replace(layout, sequence_parallel=True)
    if layout.zero_stage == 3:
        yield "zero_stage 2: parameters stay gathered", cluster, job, replace(layout, zero_stage=2)
