"""FLOPs and bytes of one layer and of the ends, on one rank, for one micro-batch → seconds. Pure.

Products: tiles dealt to multiprocessors in waves, at the rate that the power limit sustains, plus the writing of the
result, which the last tile of a wave does not hide. Everything else: bytes through device memory.
Letters as in smml.llama.counts; n tokens of a micro-batch on this rank, t tensor-parallel ranks.
"""

import math
from dataclasses import dataclass, fields
from functools import lru_cache

from smml.errors import UserError
from smml.plan.cluster import LATE, Cluster
from smml.plan.constants import constant, constant_of
from smml.plan.layout import Job, Layout
from smml.plan.traffic import (
    Traffic,
    cast_bytes,
    layer_traffic,
    loss_bytes,
    ring_bytes,
    score_bytes,
)

# Rows and columns of the tiles that libraries choose from; the first two are the largest, of full speed.
TILES = ((256, 128), (128, 256), (128, 128), (64, 128), (64, 64))


@dataclass(frozen=True)
class Seconds:
    """Time on the device by what it is spent on, the kernels it took, and FLOPs of the products."""

    matmul: float = 0.0
    attention: float = 0.0
    elementwise: float = 0.0
    cast: float = 0.0
    gaps: float = 0.0
    kernels: float = 0.0
    flops: float = 0.0

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, times: float) -> "Seconds":
        return Seconds(*(getattr(self, f.name) * times for f in fields(self)))

    @property
    def total(self) -> float:
        """Seconds, or what the host needs to issue the kernels if that is longer."""
        device = self.matmul + self.attention + self.elementwise + self.cast + self.gaps
        return max(device, self.kernels * constant("host_launch_s"))


@dataclass(frozen=True)
class Pass:
    """Forward, backward, and what backward computes again first; `weight_gradient_s` can hide communication."""

    forward: Seconds
    backward: Seconds
    recompute: Seconds
    weight_gradient_s: float


@lru_cache(maxsize=65536)
def matmul_seconds(
    cluster: Cluster, dtype: str, m: int, n: int, k: int, result_bytes: float = 2
) -> float:
    """C[m,n] = A[m,k]·B[k,n]: waves of tiles at the sustained rate, at least the operands' bytes; then C's bytes."""
    operand = 1 if dtype == "fp8" else 2
    rate, memory = cluster.matmul_flops_per_s(dtype), cluster.memory_bytes_per_s
    if cluster.processors:
        filled = max(_filled(m, n, *tile, cluster.processors) for tile in TILES)
    else:
        filled = constant("wave_fill")
    compute = 2 * m * n * k / (rate * filled)
    return max(compute, (m * k + k * n) * operand / memory) + m * n * result_bytes / memory


def _filled(m: int, n: int, rows: int, columns: int, processors: int) -> float:
    speed = _tile_speed(rows, columns)
    tiles = math.ceil(m / rows) * math.ceil(n / columns)
    useful = m * n / (rows * columns)
    return speed * useful / (math.ceil(tiles / processors) * processors)


@lru_cache
def _tile_speed(rows: int, columns: int) -> float:
    return 1.0 if rows * columns >= 256 * 128 else constant(f"tile_speed_{rows}x{columns}")


@lru_cache(maxsize=65536)
def layer_pass(cluster: Cluster, job: Job, layout: Layout) -> Pass:
    """One layer on one rank, one micro-batch. Only the fields of `layout` that bear on a layer should differ."""
    shape, t = job.shape, layout.tensor_parallel
    n = layout.micro_batch_size * job.sequence_length // layout.context_parallel
    D, F, q, kv = shape.dim, shape.feed_forward_dim, shape.query_dim, shape.kv_dim
    gated = shape.gate_factor
    routed = n * shape.experts_per_token
    local = shape.experts // layout.expert_parallel
    per_expert = max(1, routed * layout.expert_parallel // shape.experts)
    products = [(n, (q + 2 * kv) // t, D, 1), (n, D, q // t, 1)]
    products += [(per_expert, gated * F // t, D, local), (per_expert, D, F // t, local)]

    # Gradients of weights are summed in place unless parameters are gathered layer by layer.
    weight_bytes = 2 if layout.zero_stage == 3 else 2 * layout.gradient_bytes

    forward = data = weight = 0.0
    for m, out, inner, times in products:
        forward += times * matmul_seconds(cluster, job.dtype, m, out, inner)
        data += times * matmul_seconds(cluster, job.dtype, m, inner, out)
        weight += times * matmul_seconds(cluster, job.dtype, inner, out, m, weight_bytes)
    flops = 2.0 * n * shape.layer_matrix_weights / t

    traffic = layer_traffic(job, layout)
    memory, gap = cluster.memory_bytes_per_s, constant("kernel_gap_s")
    score = _attention(cluster, job, layout)
    cast = [value / memory for value in cast_bytes(job, layout)] if job.dtype == "fp8" else [0, 0]

    def seconds(product: float, attention: float, moved: Traffic, cast_s: float, f: float):
        return Seconds(
            product,
            attention,
            moved.bytes / memory,
            cast_s,
            moved.kernels * gap,
            moved.kernels,
            f,
        )

    ahead = seconds(forward, score[0], traffic.forward, cast[0], flops + score[3])
    back = seconds(data + weight, score[1], traffic.backward, cast[1], 2 * flops + 2 * score[3])
    again = Seconds()
    if layout.recompute == "full" and job.engine == "fused":
        again = ahead  # Megatron's checkpoint runs the whole layer again
    elif layout.recompute == "full":
        # PyTorch's checkpoint stops before the last product: its result is the next layer's input, which is kept.
        last = local * matmul_seconds(cluster, job.dtype, per_expert, D, F // t)
        left_out = 2.0 * routed * F * D / t
        again = seconds(
            forward - last, score[0], traffic.forward, cast[0], flops - left_out + score[3]
        )
    elif layout.recompute == "selective" and job.attention == "unfused":
        again = Seconds(attention=score[2], flops=score[3], kernels=5, gaps=5 * gap)
    elif layout.recompute == "selective":
        # Every second product (keys, attention's output, up) and all that lies between; attention's result is kept.
        up = per_expert, F // t, D
        half = matmul_seconds(cluster, job.dtype, n, kv // t, D)
        half += matmul_seconds(cluster, job.dtype, n, D, q // t)
        half += local * matmul_seconds(cluster, job.dtype, *up) * (gated - 1)
        halved = 2.0 * n * (kv * D + q * D) / t + 2.0 * routed * F * D * (gated - 1) / t
        again = seconds(half, 0.0, traffic.forward, cast[0] / 2, halved)
    return Pass(ahead, back, again, weight)


def _attention(cluster: Cluster, job: Job, layout: Layout) -> tuple[float, float, float, float]:
    """Seconds of the scores and weighted values: forward, backward, recomputed alone; FLOPs of forward (causal pairs).

    Fused kernels skip masked blocks; unfused attention computes and moves all pairs.
    """
    shape, s = job.shape, job.sequence_length
    heads = shape.heads / layout.tensor_parallel
    pairs = layout.micro_batch_size * s * s / layout.context_parallel
    flops = 4 * pairs * heads * shape.head_dim
    if job.attention != "unfused":
        architecture = cluster.accelerator.architecture.split()[0]
        if job.attention == "flash3" and architecture not in LATE:
            raise UserError(
                f"attention is 'flash3': it is written for {' and '.join(LATE)}, {cluster.accelerator.name} is "
                f"{architecture}. Choose 'flash'."
            )
        share = {
            "flash1": "flash1_{side}_share",
            "flash": "attention_{side}_share",
            "flash3": "flash3_{side}_share",
        }[job.attention]
        ahead, back = (
            constant_of(share.format(side=side), architecture) for side in ("forward", "backward")
        )
        peak = cluster.peak_flops("bf16" if job.dtype == "fp8" else job.dtype) * cluster.clock_share
        half = flops / 2
        merge = [count / cluster.memory_bytes_per_s for count in ring_bytes(job, layout)]
        return half / (peak * ahead) + merge[0], 2.5 * half / (peak * back) + merge[1], 0.0, half
    elements = pairs * heads
    product = flops / 2 / cluster.matmul_flops_per_s(job.dtype)
    byte = elements / cluster.memory_bytes_per_s
    # A product that writes the scores does so after computing them; one that reads them does both at once.
    writing, reading = product + 2 * byte, max(product, 2 * byte)
    softmax_forward, softmax_backward = (count * byte for count in score_bytes())
    ahead = writing + softmax_forward + reading
    return ahead, writing + softmax_backward + 3 * reading, ahead, float(flops)


@lru_cache(maxsize=65536)
def ends_seconds(cluster: Cluster, job: Job, layout: Layout) -> Seconds:
    """Logits, loss and their backward for one micro-batch, on the last pipeline stage."""
    shape, t = job.shape, layout.tensor_parallel
    n = layout.micro_batch_size * job.sequence_length // layout.context_parallel
    V, D = max(1, shape.vocab_size // t), shape.dim
    dtype = "bf16" if job.dtype == "fp8" else job.dtype
    products = (
        matmul_seconds(cluster, dtype, n, V, D)
        + matmul_seconds(cluster, dtype, n, D, V)
        + matmul_seconds(
            cluster, dtype, D, V, n, 2 if layout.zero_stage == 3 else 2 * layout.gradient_bytes
        )
    )
    moved = n * V * loss_bytes(job) / cluster.memory_bytes_per_s
    kernels = 12
    gap = constant("kernel_gap_s")
    return Seconds(products, 0.0, moved, 0.0, kernels * gap, kernels, 6.0 * n * V * D)
