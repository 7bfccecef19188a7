"""Context parallel: a step on one long sequence, by ring in both orders, by gathering and by all-to-all; work and memory."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from smml.bench import strategies
from smml.bench.setting import Setting
from smml.llama import counts
from smml.llama.config import CONFIGS, LlamaConfig
from smml.measure import Record, Timing
from smml.parallel.launch import Workers, ranks_here
from smml.parallel.sequence_order import pairs

# A Llama whose heads and key-value heads 2 or 4 ranks divide, on one sequence of which attention is half the work.
MODEL: dict[str, Any] = {
    **{"dim": 256, "layers": 2, "heads": 8, "kv_heads": 4, "head_dim": 32},
    **{"feed_forward_dim": 512, "max_sequence_length": 16_384},
}
BATCH, TOKENS = 1, 2048
KEEPS = ("context", "context-gather")  # strategies whose peak is predicted
CONTIGUOUS = "context#contiguous"
STRATEGIES: dict[str, dict[str, Any]] = {
    "alone": {},
    "context": {},
    CONTIGUOUS: {"order": "contiguous"},
    "context-gather": {},
    "ulysses": {},
}


def run(setting: Setting) -> Iterator[Record]:
    """Tokens per second on two ranks, or one a GPU, and ratios between the ways."""
    with Workers(ranks_here(2)) as workers:
        whole = attention(workers, ranks=1, in_turns=False)
        timings = seconds(workers)
        alone_s = timings.pop("alone").p50
        predicted = {
            name: predicted_s(alone_s, whole[0].p50, workers.ranks, order_of(name))
            for name in timings
        }
        yield from records(setting, workers, timings, predicted)


def seconds(workers: Workers, tokens: int = TOKENS, samples: int = 5) -> dict[str, Timing]:
    """Seconds of a step of every way, in turns, each proved first; all-to-all only where the ranks divide the heads."""
    ways = dict(STRATEGIES)
    if MODEL["kv_heads"] % workers.ranks:
        del ways["ulysses"]
    return strategies.seconds(workers, ways, MODEL, BATCH, tokens, samples)


def shape() -> LlamaConfig:
    """The config of MODEL."""
    return replace(CONFIGS["tiny"], **MODEL)


def order_of(name: str) -> str:
    """The order in which a strategy of that name cuts a sequence, as far as its work is concerned."""
    return "contiguous" if name == CONTIGUOUS else "zigzag"


def attention(
    workers: Workers,
    order: str = "zigzag",
    ranks: int | None = None,
    tokens: int = TOKENS,
    in_turns: bool = True,
) -> list[Timing]:
    """Seconds by rank of all layers' attention, forward and backward, of one sequence of `tokens` cut over `ranks`.

    Nothing is sent. `ranks=1` is the unsharded attention, on every rank. Ranks take turns, or work at once.
    """
    config = shape()
    found = workers.run(
        "smml.parallel.context_tasks:attention_seconds",
        order=order,
        ranks=ranks or workers.ranks,
        batch=BATCH,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        tokens=tokens,
        in_turns=in_turns,
    )
    return [Timing(tuple(config.layers * s for s in samples)) for samples in found]


def largest_share(order: str, tokens: int, ranks: int) -> float:
    """The share of all query–key pairs that the rank with most of them computes, for which the others wait."""
    by_rank = [pairs(order, tokens, rank, ranks) for rank in range(ranks)]
    return max(by_rank) / sum(by_rank)


def predicted_s(
    alone_s: float, attention_s: float, ranks: int, order: str = "zigzag", tokens: int = TOKENS
) -> float:
    """Seconds of a step if nothing is sent: of what one process takes, 1/p, and of its attention the largest share."""
    share = largest_share(order, tokens, ranks)
    return (alone_s - attention_s) / ranks + attention_s * share


def peak(workers: Workers, name: str, tokens: int = TOKENS, **given: Any) -> int:
    """Most bytes that a rank holds in two steps of that strategy on one sequence of `tokens`."""
    options = STRATEGIES[name]
    found = strategies.peak(workers, name.partition("#")[0], MODEL, BATCH, tokens, options, **given)
    return max(of_rank["most"] for of_rank in found)


def peak_bytes(
    config: LlamaConfig, batch: int, tokens: int, ranks: int, name: str = "context"
) -> int:
    """The same predicted, in float32, where it is the loss that needs most; `name` is one of KEEPS.

    16 bytes a parameter, and for each of a rank's tokens its activations (counts.activation_bytes, less the queries that
    a ring's rank does not keep twice), its rows of the rotary tables, and two gradients as large as its logits.
    Gathering keeps keys and values of all tokens instead of its own.
    """
    mine = tokens // ranks
    kept = counts.activation_bytes(config, batch, mine).saved
    kept -= config.layers * batch * mine * config.query_dim * 4
    if name == "context-gather":
        kept += config.layers * batch * (tokens - mine) * 2 * config.kv_dim * 4
    logits = 2 * batch * mine * config.vocab_size * 4
    tables = counts.rope_table_bytes(config) + mine * 2 * config.head_dim * 4
    return counts.training_state_bytes(config).total + kept + logits + tables


def records(
    setting: Setting,
    workers: Workers,
    timings: Mapping[str, Timing],
    predicted: Mapping[str, float],
    tokens: int = TOKENS,
) -> list[Record]:
    """Tokens per second of each, and how many times as fast the ring in zigzag order is as each other."""
    return strategies.records(
        setting,
        workers,
        "context",
        timings,
        batch=BATCH,
        tokens=tokens,
        predicted_s=predicted,
        ours="context",
    )
