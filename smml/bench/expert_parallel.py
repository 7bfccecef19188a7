"""Expert parallel beside data parallel of the same mixture: what a step must take, and what it took."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from smml.bench import collectives, strategies
from smml.bench.setting import Setting
from smml.measure import Record, Timing
from smml.parallel import links
from smml.parallel.launch import Workers, ranks_here
from smml.parallel.links import Link
from smml.parallel.strategies import kind

OURS, PEER, ALONE = "expert", "expert-data", "expert-alone"
SKEWED = f"{OURS}#skewed"
SKEW = {"skew": 4.0}
EXPERTS, TOP_K = 8, 2
RING, ALL_TO_ALL = "all-reduce/ring", "all-to-all"
# A mixture of which a step takes some tenths of a second on a core; sequences a rank, tokens of each.
MODEL = {"dim": 192, "layers": 2, "heads": 6, "kv_heads": 3, "feed_forward_dim": 512}
BATCH, TOKENS = 4, 96


@dataclass(frozen=True)
class Costs:
    """Seconds of a step that sends nothing: for its weights, whatever the batch, and for each sequence."""

    weights_s: float
    sequence_s: float

    def at(self, sequences: int, seconds: float) -> "Costs":
        """The same on a machine that takes so long for a step of so many: shared ones change from minute to minute."""
        scale = seconds / (self.weights_s + sequences * self.sequence_s)
        return Costs(scale * self.weights_s, scale * self.sequence_s)


def run(setting: Setting) -> Iterator[Record]:
    """Tokens per second of expert parallel, even and skewed, and of data parallel, on two ranks or one a GPU."""
    with Workers(ranks_here(2)) as workers:
        loads = {name: tokens_by_expert(workers, options) for name, options in OPTIONS.items()}
        cost, link = costs(workers), network(workers)
        timings = seconds(workers)
        cost = cost.at(BATCH * workers.ranks, timings.pop(ALONE).p50)
        yield from records(setting, workers, timings, predicted_s(workers.ranks, cost, link, loads))


OPTIONS: dict[str, dict[str, float]] = {OURS: {}, SKEWED: SKEW}


def seconds(workers: Workers) -> dict[str, Timing]:
    """Seconds of a step of each, in turns: also of one process with the whole batch, on every rank."""
    ways: dict[str, dict[str, float]] = {**OPTIONS, PEER: {}, ALONE: {}}
    return strategies.seconds(workers, ways, MODEL, BATCH * workers.ranks, TOKENS, samples=5)


def tokens_by_expert(workers: Workers, options: Mapping[str, Any]) -> list[list[int]]:
    """Tokens of each expert in the first step's forward, by layer, over all ranks."""
    return learning(workers, options, 1)[0]


def learning(
    workers: Workers, options: Mapping[str, Any], steps: int, **sizes: Any
) -> list[list[list[int]]]:
    """The same by step, while the mixture is trained; `sizes` are model, batch and tokens."""
    given = {"model": MODEL, "batch": BATCH * workers.ranks, "tokens": TOKENS} | sizes
    return workers.run(
        "smml.parallel.expert_parallel_tasks:loads", options=dict(options), steps=steps, **given
    )[0]


def by_rank(loads: Sequence[Sequence[int]], ranks: int) -> list[list[int]]:
    """Tokens of each rank's experts, by layer."""
    held = len(loads[0]) // ranks
    return [[sum(layer[r * held : (r + 1) * held]) for r in range(ranks)] for layer in loads]


def fullest(loads: Sequence[Sequence[int]], ranks: int) -> float:
    """Tokens of the fullest rank ÷ an equal part, over all layers: in each, the others wait for it."""
    layers = by_rank(loads, ranks)
    return ranks * sum(map(max, layers)) / sum(map(sum, layers))


def costs(workers: Workers) -> Costs:
    """From steps of the undivided mixture, on all ranks at once, of BATCH and of a quarter as many sequences."""
    few = BATCH // 4
    less, more = (
        strategies.seconds(workers, {ALONE: {}}, MODEL, batch, TOKENS, samples=5)[ALONE].p50
        for batch in (few, BATCH)
    )
    sequence_s = max(0.0, (more - less) / (BATCH - few))
    return Costs(max(0.0, more - BATCH * sequence_s), sequence_s)


def network(workers: Workers) -> dict[str, Link]:
    """Links of torch's all-to-all and all-reduce over these ranks."""
    names, sizes = [ALL_TO_ALL, RING], collectives.SIZES[3:8:2]
    return collectives.fit(workers, collectives.sweep(workers, names, sizes, by=collectives.TORCH))


def expert_share() -> float:
    """Experts' part of a step's FLOPs, where every token meets TOP_K of them."""
    from smml.llama import counts

    shape = _shape()
    forward = counts.forward_flops(shape, 1, TOKENS)
    router = 2 * TOKENS * shape.layers * EXPERTS * shape.dim
    experts = TOP_K * forward.feed_forward
    return experts / (forward.total - forward.feed_forward + experts + router)


def predicted_s(
    ranks: int,
    cost: Costs,
    network: Mapping[str, Link],
    loads: Mapping[str, Sequence[Sequence[int]]],
) -> dict[str, float]:
    """Seconds of a step by strategy, nothing hidden. The experts' part is the fullest rank's; weights cost what is held."""
    from smml.parallel.mixture import parameters

    shape = _shape()
    count = parameters(shape, EXPERTS, TOP_K)
    batch = BATCH * ranks
    found = {
        PEER: cost.weights_s
        + BATCH * cost.sequence_s
        + _reduced(network, ranks, kind(PEER).sends(shape, 0, ranks, batch, TOKENS))
    }
    for name, by_layer in loads.items():
        full = fullest(by_layer, ranks)
        sent = kind(OURS).sends(shape, 0, ranks, batch, TOKENS)
        calls = 4 * shape.layers
        one = links.sent(ALL_TO_ALL, ranks, full * sent["all-to-all"] / calls)
        found[name] = (
            cost.weights_s * count.held(ranks) / count.total
            + BATCH * cost.sequence_s * (1 + (full - 1) * expert_share())
            + calls * network[ALL_TO_ALL].seconds(one)
            + _reduced(network, ranks, sent)
        )
    return found


def records(
    setting: Setting,
    workers: Workers,
    timings: Mapping[str, Timing],
    predicted: Mapping[str, float],
) -> list[Record]:
    """Tokens per second of each, and how many times as fast expert parallel is as the others."""
    return strategies.records(
        setting,
        workers,
        "expert-parallel",
        timings,
        batch=BATCH * workers.ranks,
        tokens=TOKENS,
        predicted_s=predicted,
        ours=OURS,
        inputs={"experts": EXPERTS, "top_k": TOP_K},
    )


def _reduced(network: Mapping[str, Link], ranks: int, sent: Mapping[str, int]) -> float:
    return network[RING].seconds(links.sent(RING, ranks, sent["all-reduce"]))


def _shape() -> Any:
    from smml.llama.config import CONFIGS

    return replace(CONFIGS["tiny"], **MODEL)
