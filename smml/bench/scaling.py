"""Every strategy on 1, 2 and 4 ranks, the same work each time: how much of the ranks is used, and what limits it.

Steps are modelled as compute shared by the ranks' cores, stretched by the pipeline's bubble, and the bytes on the wire, none
of them hidden. The largest of what this adds to an ideal step, or what it leaves unexplained, is named as the limit.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smml.bench import collectives
from smml.bench import strategies as bench
from smml.bench.setting import Setting
from smml.measure import Record, Timing
from smml.parallel import links
from smml.parallel.launch import Workers, ranks_here
from smml.parallel.links import Link

# A Llama of which one core takes a second a step; every strategy can cut it by four.
MODEL = {"dim": 256, "layers": 4, "heads": 8, "kv_heads": 4, "head_dim": 32}
MODEL |= {"feed_forward_dim": 1024, "tie_embeddings": False}
BATCH, TOKENS, MICRO = 8, 128, 4
RANKS = (1, 2, 4)
STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "data": {},
    "zero-1": {},
    "zero-2": {},
    "zero-3": {},
    "tensor": {},
    "tensor#sequence": {"sequence": True},
    "pipeline-1f1b": {"micro": MICRO},
    "context": {},
    "expert": {"experts": 4},
}
# The collectives whose links are fitted, as the wire counts them; a message is half of an exchange.
WIRE = {
    "all-reduce": "all-reduce/ring",
    "all-gather": "all-gather",
    "reduce-scatter": "reduce-scatter",
    "all-to-all": "all-to-all",
}


@dataclass(frozen=True)
class Limits:
    """Seconds that a step of `ranks` ranks takes beyond 1/ranks of one rank's, by cause; below 0 where it took less."""

    cores: float
    bubble: float
    wire: float
    unexplained: float

    @property
    def largest(self) -> str:
        """The cause that costs most."""
        return max(vars(self), key=vars(self).__getitem__)


def run(setting: Setting, ranks: Sequence[int] = RANKS) -> Iterator[Record]:
    """Tokens a second of every strategy at each number of ranks, its efficiency and its limit in the record's inputs."""
    most = ranks_here(max(ranks))
    one: dict[str, Timing] = {}
    for size in (r for r in ranks if r <= most):
        with Workers(size, threads=1) as workers:
            wire = _links(workers) if size > 1 else {}
            timings = bench.seconds(workers, STRATEGIES, MODEL, BATCH, TOKENS, samples=5)
            one = one or timings
            limits = {
                name: limits_of(name, one[name].p50, timing.p50, size, workers.backend, wire)
                for name, timing in timings.items()
            }
            predicted = {
                name: timing.p50 - limits[name].unexplained for name, timing in timings.items()
            }
            for record in bench.records(
                setting,
                workers,
                "scaling",
                timings,
                batch=BATCH,
                tokens=TOKENS,
                predicted_s=predicted,
            ):
                name = record.inputs["peer"]
                found = {
                    "efficiency": round(one[name].p50 / (size * timings[name].p50), 3),
                    "limited_by": limits[name].largest if size > 1 else "—",
                    **{f"{cause}_s": round(lost, 4) for cause, lost in vars(limits[name]).items()},
                }
                yield record.model_copy(update={"inputs": record.inputs | found})


def limits_of(
    name: str, one_s: float, step_s: float, ranks: int, backend: str, wire: Mapping[str, Link]
) -> Limits:
    """What the step of `ranks` ranks lost against one rank's in `one_s` seconds."""
    ideal = one_s / ranks
    at_once = ranks if backend == "nccl" else min(ranks, len(os.sched_getaffinity(0)))
    cores = one_s / at_once
    stages = ranks if name.startswith("pipeline") else 1
    bubble = cores * (stages - 1) / MICRO
    sent = wire_s(name, ranks, wire) if ranks > 1 else 0.0
    return Limits(cores - ideal, bubble, sent, step_s - cores - bubble - sent)


def wire_s(name: str, ranks: int, wire: Mapping[str, Link]) -> float:
    """Seconds of what the busiest rank sends in a step, by the bytes of its collectives over their links."""
    from smml.parallel.strategies import kind
    from smml.parallel.strategy_tasks import config

    def of(rank: int) -> float:
        sends = kind(name.partition("#")[0]).sends(
            config(MODEL), rank, ranks, BATCH, TOKENS, **STRATEGIES[name]
        )
        total = 0.0
        for collective, payload in sends.items():
            if collective == "send":
                total += payload * wire["all-gather"].seconds_per_byte
            else:
                sent = links.sent(WIRE[collective], ranks, payload)
                total += sent.bytes * wire[collective].seconds_per_byte
        return total

    return max(of(rank) for rank in range(ranks))


def _links(workers: Workers) -> dict[str, Link]:
    """torch's collectives as links, fitted on sizes about those of a layer."""
    timings = collectives.sweep(
        workers, WIRE.values(), collectives.SIZES[3::2], by=collectives.TORCH
    )
    fitted = collectives.fit(workers, timings)
    return {name: fitted[hand] for name, hand in WIRE.items()}


def table(records: Sequence[Record]) -> list[tuple[object, ...]]:
    """Rows of strategy, ranks, tokens a second, efficiency and limit, from the records of `run`."""
    return [
        (
            r.inputs["peer"],
            r.inputs["ranks"],
            f"{r.value:,.0f}",
            f"{r.inputs['efficiency']:.0%}",
            r.inputs["limited_by"],
        )
        for r in records
        if r.name.startswith("scaling/")
    ]
