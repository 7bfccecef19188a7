"""Tensor parallel by hand beside DTensor's: seconds of a step predicted and measured, and bytes that a rank holds."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from smml.bench import collectives, strategies
from smml.bench.setting import Setting
from smml.cost.decisions.stand_in import stand_in
from smml.cost.units.unit_economics import GlobalThroughput, Instances, Job, ThroughputPerReplica
from smml.llama import counts
from smml.llama.config import CONFIGS, LlamaConfig
from smml.measure import Record, Timing
from smml.parallel import links
from smml.parallel.launch import Workers
from smml.parallel.tensor_cut import rank_config

OURS, PEER = "tensor", "torch-tensor"
SEQUENCE, AGAIN = f"{OURS}#sequence", f"{OURS}#gather-again"
OPTIONS: dict[str, dict[str, bool]] = {
    OURS: {},
    SEQUENCE: {"sequence": True},
    AGAIN: {"sequence": True, "gather_again": True},
    PEER: {},
}
ALL_REDUCE = "all-reduce/ring"
# A Llama of which a step takes a tenth of a second on two cores, cut by 2 or 4 ranks; sequences, tokens of each.
MODEL = {"dim": 256, "heads": 8, "kv_heads": 4, "feed_forward_dim": 1024}
BATCH, TOKENS = 4, 128


def run(setting: Setting) -> Iterator[Record]:
    """Tokens per second on two ranks and on four, and how many times as fast ours is as torch's."""
    for ranks in (2, 4):
        with Workers(ranks) as workers:
            predicted = predicted_s(alone(workers), message(workers), ranks)
            timings = seconds(workers, (OURS, SEQUENCE, PEER))
            yield from records(setting, workers, timings, dict.fromkeys(timings, predicted))


def config(**changes: Any) -> LlamaConfig:
    """MODEL, with some sizes changed."""
    return replace(CONFIGS["tiny"], **MODEL | changes)


def stream_bytes(batch: int = BATCH, tokens: int = TOKENS) -> int:
    """What lies between the products of MODEL, and is what travels: B·T·D numbers in float32."""
    return 4 * batch * tokens * config().dim


def alone(workers: Workers) -> Timing:
    """Seconds of a step of the unsharded model, all ranks at work at once."""
    return seconds(workers, ("alone",), samples=5)["alone"]


def message(workers: Workers) -> Timing:
    """Seconds of torch's all-reduce of one stream."""
    (timing,) = collectives.sweep(
        workers, [ALL_REDUCE], [stream_bytes()], by=collectives.TORCH
    ).values()
    return timing


def predicted_s(alone: Timing, message: Timing, ranks: int) -> float:
    """A step alone, shared by the ranks, and then its all-reduces: what it takes if nothing is hidden.

    Four a layer, one after the embedding and one before the logits, in backward.
    """
    return alone.p50 / ranks + (4 * config().layers + 2) * message.p50


def seconds(workers: Workers, names: tuple[str, ...], samples: int = 9) -> dict[str, Timing]:
    """Seconds of a step of each of these strategies, in turns."""
    chosen = {name: OPTIONS.get(name, {}) for name in names}
    return strategies.seconds(workers, chosen, MODEL, BATCH, TOKENS, samples)


def records(
    setting: Setting,
    workers: Workers,
    timings: Mapping[str, Timing],
    predicted: Mapping[str, float],
) -> list[Record]:
    """Tokens per second of every strategy, and ours ÷ each other."""
    return strategies.records(
        setting,
        workers,
        "tensor-parallel",
        timings,
        batch=BATCH,
        tokens=TOKENS,
        predicted_s=predicted,
        ours=OURS,
        inputs=MODEL,
    )


def shapes(workers: Workers, name: str) -> list[dict[str, list[int]]]:
    """What each rank of that strategy holds of MODEL's first layer: shapes by name."""
    return workers.run("smml.parallel.tensor_tasks:shapes", strategy=name, model=MODEL)


def activation_bytes(
    config: LlamaConfig,
    ranks: int,
    batch: int,
    tokens: int,
    *,
    sequence: bool = False,
    gather_again: bool = False,
    fused_norm: bool = False,
) -> int:
    """Bytes that a rank's forward keeps for backward in float32, counted as in `llama.counts.activation_bytes`.

    What lies within attention and feed-forward is cut in any case. What norms keep is whole, and cut with `sequence`; so
    is what enters the products, but with `gather_again` alone.
    """
    D, L, number = config.dim, config.layers, batch * tokens
    inner = (
        (3 * config.query_dim + 3 * config.kv_dim + 4 * config.feed_forward_dim) * 4
        + 4 * config.heads
    )  # q, k, v; turned q and k; attended; gate and up, silu(gate), their product; log-sum-exp
    norm = 4 * D + 4 if fused_norm else 8 * D + 4
    norm //= ranks if sequence else 1
    entering = 4 * D // (ranks if gather_again else 1)
    norms = (2 * L + 1) * (norm + entering)
    ends = 4 * config.vocab_size // ranks + 2 * 8
    return number * (norms + L * inner // ranks + ends)


def peak_bytes(
    config: LlamaConfig,
    ranks: int,
    batch: int,
    tokens: int,
    *,
    fused_norm: bool = False,
    **options: bool,
) -> int:
    """The most that a rank holds: weights, moments, and the larger of all gradients and all activations.

    Backward frees a layer's activations as it makes its gradients. What operations take for themselves is left out.
    """
    parameters = 4 * counts.parameters(rank_config(config, ranks)).total
    kept = activation_bytes(config, ranks, batch, tokens, fused_norm=fused_norm, **options)
    return 3 * parameters + max(parameters, kept)


def ring_bytes(payload: Mapping[str, int], ranks: int) -> float:
    """What a rank sends, if every collective of `payload` (bytes by collective) goes around a ring."""
    return sum(size * links.bus_factor(name, ranks) for name, size in payload.items())


def job(
    setting: Setting, workers: Workers, throughput: GlobalThroughput | ThroughputPerReplica
) -> Job:
    """All ranks at that throughput on the EC2 type that stands for this machine: as many as their GPUs take, or one."""
    gpus = workers.backend == "nccl"
    rented = stand_in(setting.machine, "cuda" if gpus else "cpu").instance
    if gpus:
        count = -(-workers.ranks // rented.accelerator_count)
        return Job((Instances(rented.name, count),), workers.ranks, throughput)
    # Ranks that share the CPUs of one machine: its accelerators, if it has any, do not limit them.
    price = rented.price_usd_per_hour.value
    return Job((Instances(f"CPUs of {rented.name}", 1, price),), workers.ranks, throughput)
