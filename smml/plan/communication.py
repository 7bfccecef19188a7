"""Seconds of collectives by α and β, with the algorithm that is quicker for the size, and what a layout sends. Pure.

A ring sends in ranks − 1 messages what halving and doubling sends in log₂(ranks); libraries switch by size.
"""

import math
from functools import lru_cache

from smml.plan.cluster import Cluster, Fabric
from smml.plan.constants import constant
from smml.plan.layout import Job, Layout


def gather_seconds(link: Fabric, ranks: int, payload: float) -> float:
    """All-gather or reduce-scatter of `payload` bytes (all ranks' parts together).

    Every rank's share crosses its link once whichever the algorithm; messages are the fewer of ring and doubling.
    """
    if ranks == 1:
        return 0.0
    messages = min(ranks - 1, math.ceil(math.log2(ranks)))
    return messages * link.latency_s + payload * (ranks - 1) / ranks / link.bandwidth_bytes_per_s


def all_reduce_seconds(link: Fabric, ranks: int, payload: float) -> float:
    """All-reduce of `payload` bytes: ring, 2(r−1) messages and 2(r−1)/r of the bytes; or a tree, whose messages are
    2·log₂ r and whose bytes 2: the quicker of the two.
    """
    if ranks == 1:
        return 0.0
    seconds_per_byte = 1 / link.bandwidth_bytes_per_s
    ring = 2 * (ranks - 1) * link.latency_s + 2 * (ranks - 1) / ranks * payload * seconds_per_byte
    tree = 2 * math.ceil(math.log2(ranks)) * link.latency_s + 2 * payload * seconds_per_byte
    return min(ring, tree)


def all_to_all_seconds(link: Fabric, ranks: int, payload: float) -> float:
    """Every rank sends `payload` bytes in equal parts to all, its own included."""
    if ranks == 1:
        return 0.0
    return (ranks - 1) * link.latency_s + payload * (ranks - 1) / ranks / link.bandwidth_bytes_per_s


def exposed(communication_s: float, window_s: float) -> float:
    """What remains of communication that runs beside `window_s` of compute: the rest, and what the hidden part slows."""
    hidden = min(communication_s, window_s)
    return communication_s - hidden + constant("overlap_cost") * hidden


@lru_cache(maxsize=65536)
def tensor_seconds(cluster: Cluster, job: Job, layout: Layout) -> tuple[float, float, float]:
    """One layer's tensor-parallel collectives before any overlap: forward; backward, on which the next product waits;
    backward, beside a weight's gradient.

    Two all-reduces of n·D each way, those of backward beside the weights' gradients. With sequence parallelism
    all-gather and reduce-scatter, the same bytes; in backward the gathering of the row-cut products' gradients is waited
    for, and each column-cut product's input is gathered once more (arXiv:2205.05198, section 4.2.2).
    """
    t = layout.tensor_parallel
    if t == 1:
        return 0.0, 0.0, 0.0
    n = layout.micro_batch_size * job.sequence_length // layout.context_parallel
    payload = 2.0 * n * job.shape.dim
    link = cluster.group(t, 1)
    if not layout.sequence_parallel:
        both = 2 * all_reduce_seconds(link, t, payload)
        return both, 0.0, both
    gather = gather_seconds(link, t, payload)
    return 4 * gather, 2 * gather, 4 * gather


@lru_cache(maxsize=65536)
def context_seconds(cluster: Cluster, job: Job, layout: Layout) -> tuple[float, float]:
    """One layer's gathering of keys and values over the context ranks, forward; and with gradients back, backward.

    Hand-fused attention (Transformer Engine) takes the key heads as they are; PyTorch's gets them repeated for every
    query head, and so sends them.
    """
    c = layout.context_parallel
    if c == 1:
        return 0.0, 0.0
    tokens = layout.micro_batch_size * job.sequence_length
    width = job.shape.kv_dim if job.engine == "fused" else job.shape.query_dim
    payload = 2.0 * tokens * 2 * max(1, width / layout.tensor_parallel)
    link = cluster.group(c, layout.tensor_parallel)
    gather = gather_seconds(link, c, payload)
    return gather, 2 * gather


@lru_cache(maxsize=65536)
def expert_seconds(cluster: Cluster, job: Job, layout: Layout) -> float:
    """One layer's tokens to their experts and back, one direction."""
    e = layout.expert_parallel
    if e == 1:
        return 0.0
    n = layout.micro_batch_size * job.sequence_length / layout.context_parallel
    share = layout.tensor_parallel if layout.sequence_parallel else 1
    payload = 2.0 * n * job.shape.experts_per_token * job.shape.dim / share
    return 2 * all_to_all_seconds(cluster.group(e, layout.tensor_parallel), e, payload)


@lru_cache(maxsize=65536)
def pipeline_seconds(cluster: Cluster, job: Job, layout: Layout) -> float:
    """One micro-batch's activations from one stage to the next, each tensor-parallel rank sending its part."""
    if layout.pipeline_parallel == 1:
        return 0.0
    n = layout.micro_batch_size * job.sequence_length / layout.context_parallel
    payload = 2.0 * n * job.shape.dim / layout.tensor_parallel
    stride = layout.tensor_parallel * layout.replicas
    inside = layout.pipeline_parallel * stride <= cluster.gpus_per_node
    link = cluster.inside if inside else cluster.between
    return link.latency_s + payload / link.bandwidth_bytes_per_s


@lru_cache(maxsize=65536)
def parameter_seconds(
    cluster: Cluster, layout: Layout, held: tuple[float, float]
) -> tuple[float, float, float]:
    """Gathering 16-bit parameters over the shards, scattering their gradients, and what replicas of a sharded
    group still have to sum; a plain all-reduce where nothing is sharded. `held`: dense parameters, and experts', of
    which every expert_parallel-th rank only has a copy.
    """
    gather = scatter = across = 0.0
    for count, apart in zip(held, (1, layout.expert_parallel), strict=True):
        stride, shards = layout.tensor_parallel * apart, max(1, layout.shards // apart)
        copies = max(1, layout.replicas // apart // shards)
        link = cluster.group(shards, stride)
        gather += gather_seconds(link, shards, 2 * count)
        scatter += gather_seconds(link, shards, layout.gradient_bytes * count)
        across += all_reduce_seconds(
            cluster.group(copies, stride * shards), copies, layout.gradient_bytes * count / shards
        )
    return gather, scatter, across
