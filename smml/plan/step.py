"""Seconds of one optimizer step, by what they are spent on, and what share of the peak that is. Pure."""

from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

from smml.errors import UserError
from smml.plan.cluster import Cluster
from smml.plan.communication import (
    context_seconds,
    expert_seconds,
    exposed,
    parameter_seconds,
    pipeline_seconds,
    tensor_seconds,
)
from smml.plan.compute import Seconds, ends_seconds, layer_pass
from smml.plan.constants import constant
from smml.plan.layout import Job, Layout
from smml.plan.shape import CONVENTIONS, Convention
from smml.plan.traffic import gather_bytes, optimizer_bytes

PARTS = (
    *("matmul", "attention", "elementwise", "cast", "kernel gaps", "host", "recompute"),
    *("tensor parallel", "context parallel", "expert parallel", "pipeline sends"),
    *("pipeline bubble", "data parallel", "optimizer", "slowest device"),
)


@dataclass(frozen=True)
class Step:
    """One step of `job` under `layout` on `cluster`: seconds by PARTS, and FLOPs done, recomputation included."""

    job: Job
    layout: Layout
    cluster: Cluster
    parts: dict[str, float]
    hardware_flops: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return sum(self.parts.values())

    @property
    def tokens_per_s(self) -> float:
        """Of all ranks together."""
        return self.job.tokens_per_step / self.seconds

    @property
    def tokens_per_s_per_gpu(self) -> float:
        """Of one rank."""
        return self.tokens_per_s / self.cluster.gpus

    def on(self, cluster: Cluster) -> "Step":
        """The same step on a cluster that differs in its price only."""
        return replace(self, cluster=cluster)

    def flops(self, convention: Convention) -> float:
        """FLOPs of the step by a named convention; "hardware" is what was computed, recomputation included.

        Raises UserError for another name.
        """
        if convention not in CONVENTIONS:
            raise UserError(
                f"convention is {convention!r}: there are {', '.join(CONVENTIONS)}. Choose one."
            )
        if convention == "hardware":
            return self.hardware_flops
        per_token = self.job.shape.model_flops_per_token(self.job.sequence_length, convention)
        return per_token * self.job.tokens_per_step

    def flops_per_s_per_gpu(self, convention: Convention) -> float:
        """FLOP/s of one rank by a named convention."""
        return self.flops(convention) / self.seconds / self.cluster.gpus

    def utilization(self, convention: Convention, peak_dtype: str | None = None) -> float:
        """Share of the dense peak of `peak_dtype` (the job's where None): MFU, or HFU for "hardware"."""
        peak = self.cluster.peak_flops(peak_dtype or self.job.dtype)
        return self.flops_per_s_per_gpu(convention) / peak


def step(cluster: Cluster, job: Job, layout: Layout) -> Step:
    """Predict one step. Raises UserError naming the field of a layout that cannot carry the job."""
    layout.check(job, cluster.gpus)
    micro, p = layout.micro_batches(job), layout.pipeline_parallel
    alone = _of_layer(layout)
    stage, ends = _stage(cluster, job, alone), _ends(cluster, job, alone)
    layers = layout.chunk_layers(job.shape) * layout.interleave
    # Where layers do not divide evenly, the ends stand on stages that hold fewer of them.
    spare = layers * p - job.shape.layers
    per_layer = sum(stage.parts.values())
    taken = min(1.0, spare * per_layer / sum(ends.parts.values())) if p > 1 else 0.0

    parts = dict.fromkeys(PARTS, 0.0)
    for name, seconds in stage.parts.items():
        parts[name] += micro * layers * seconds
    for name, seconds in ends.parts.items():
        parts[name] += micro * (1 - taken) * seconds

    pass_s = layers * per_layer + sum(ends.parts.values()) / p
    parts["pipeline bubble"] = (p - 1) / layout.interleave * pass_s
    send = 2 * layout.interleave * micro * pipeline_seconds(cluster, job, layout)
    parts["pipeline sends"] = exposed(send, micro * pass_s) if layout.overlap_pipeline else send

    dense, experts = layout.held_parameters(job.shape)
    held = dense + experts
    windows = layers * stage.forward_s, layers * (per_layer - stage.forward_s)
    parts["data parallel"] = _data_seconds(cluster, layout, (dense, experts), micro, windows)
    if layout.zero_stage == 3 and layout.shards > 1:
        out, grads = gather_bytes()
        again = 1 if p > 1 else 2
        parts["elementwise"] += micro * held * (again * out + grads) / cluster.memory_bytes_per_s
    owned = layout.owned_parameters(job.shape)
    parts["optimizer"] = owned * optimizer_bytes(layout) / cluster.memory_bytes_per_s

    # Expected lag of the slowest of all ranks, in standard deviations (Blom's approximation of the largest of N).
    count = cluster.gpus
    lag = NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0
    parts["slowest device"] = lag * constant("device_speed_spread") * sum(parts.values())

    per_replica = stage.flops * job.shape.layers + ends.flops
    ranks = layout.tensor_parallel * layout.context_parallel * layout.data_parallel
    return Step(job, layout, cluster, parts, per_replica * micro * ranks)


@dataclass(frozen=True)
class _Share:
    parts: dict[str, float]
    forward_s: float
    flops: float


def _of_layer(layout: Layout) -> Layout:
    """The layout with what does not bear on a layer left out, so that layouts share what was computed for it."""
    keep = layout.zero_stage == 3 or layout.expert_parallel > 1
    return replace(
        layout,
        pipeline_parallel=1,
        interleave=1,
        data_parallel=layout.data_parallel if keep else 1,
        zero_stage=3 if layout.zero_stage == 3 else 0,
        shard_ranks=layout.shard_ranks if keep else 0,
        overlap_data=True,
        overlap_pipeline=False,
    )


@lru_cache(maxsize=65536)
def _stage(cluster: Cluster, job: Job, layout: Layout) -> _Share:
    """One layer, one micro-batch, both directions."""
    done = layer_pass(cluster, job, layout)
    ahead, waited, beside = tensor_seconds(cluster, job, layout)
    context = context_seconds(cluster, job, layout)
    expert = expert_seconds(cluster, job, layout)
    full = layout.recompute == "full"
    parts = _named(done.forward + done.backward)
    parts["recompute"] = done.recompute.total
    forward, backward = ahead, waited + beside
    if layout.overlap_tensor == "full":
        forward = exposed(ahead, done.forward.matmul)
        backward = exposed(waited + beside, done.backward.matmul)
    elif layout.overlap_tensor == "backward":
        backward = waited + exposed(beside, done.weight_gradient_s)
    # Full recomputation sends forward's messages again, without the last product's sum where that is left out.
    again = (forward if job.engine == "fused" else forward / 2) if full else 0.0
    parts["tensor parallel"] = forward + backward + again
    parts["context parallel"] = context[0] * (2 if full else 1) + context[1]
    parts["expert parallel"] = expert * (3 if full else 2)
    forward_s = done.forward.total + forward + context[0] + expert
    flops = done.forward.flops + done.backward.flops + done.recompute.flops
    return _Share(parts, forward_s, flops)


@lru_cache(maxsize=65536)
def _ends(cluster: Cluster, job: Job, layout: Layout) -> _Share:
    done = ends_seconds(cluster, job, layout)
    return _Share(_named(done), 0.0, done.flops)


def _named(done: Seconds) -> dict[str, float]:
    device = done.matmul + done.attention + done.elementwise + done.cast + done.gaps
    return {
        "matmul": done.matmul,
        "attention": done.attention,
        "elementwise": done.elementwise,
        "cast": done.cast,
        "kernel gaps": done.gaps,
        "host": done.total - device,
    }


def _data_seconds(
    cluster: Cluster,
    layout: Layout,
    held: tuple[float, float],
    micro: int,
    windows: tuple[float, float],
) -> float:
    """What gathering parameters and summing gradients adds to the step; `held` are dense ones and experts'."""
    gather, scatter, across = parameter_seconds(cluster, layout, held)
    ahead, back = windows

    def overlap(seconds: float, window: float) -> float:
        if not layout.overlap_data:
            return seconds
        # Between two chunks of an interleaved pipeline a rank passes as many micro-batches as there are stages: only what
        # the last chunk sends has no more than its own pass beside it.
        v, p = layout.interleave, layout.pipeline_parallel
        last = exposed(seconds / v, window / v)
        return last + exposed(seconds * (v - 1) / v, window * p * (v - 1) / v) if v > 1 else last

    if layout.zero_stage < 3:
        if layout.zero_stage == 0:
            return overlap(across, back)
        # Sharded gradients are scattered every micro-batch, unless a pipeline sums them first.
        times = micro if layout.zero_stage == 2 and layout.pipeline_parallel == 1 else 1
        scattered = (times - 1) * overlap(scatter, back) + overlap(scatter + across, back)
        return scattered + overlap(gather, ahead)
    if layout.pipeline_parallel > 1:
        # Gathered once a step for all micro-batches; gradients are summed on the rank and scattered at the end.
        return overlap(scatter + across, back) + overlap(gather, ahead)
    once = overlap(gather, ahead) + overlap(gather + scatter, back)
    return micro * once + overlap(across, back)
