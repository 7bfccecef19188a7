"""Every strategy on 1, 2 and 4 ranks, the same work each time: how much of the ranks is used, and what limits it.

A step is modelled as its share of one rank's, stretched by what all ranks at once cost each other on this machine, then by
the pipeline's bubble, and the messages on the wire, none of them hidden. Each of these is measured or counted by itself; the
one that costs most is named as the limit, or the rest, where what they leave unexplained is more.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smml.bench import collectives, strategies as bench
from smml.bench.setting import Setting
from smml.measure import Record, Timing
from smml.parallel import links
from smml.parallel.launch import Workers, ranks_here
from smml.parallel.links import Link, Sent

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
    """Seconds that a step of several ranks takes beyond its share of one rank's, by cause; `rest` is below 0 where messages
    were hidden.
    """

    machine: float
    bubble: float
    wire: float
    rest: float

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
            sent = _wire(workers) if size > 1 else dict.fromkeys(STRATEGIES, 0.0)
            timings = bench.seconds(
                workers, {"alone": {}, **STRATEGIES}, MODEL, BATCH, TOKENS, samples=5
            )
            one = one or dict(timings)
            crowd = timings.pop("alone").p50 / one["alone"].p50
            limits = {
                name: limits_of(name, one[name].p50, timing.p50, size, crowd, sent[name])
                for name, timing in timings.items()
            }
            predicted = {name: timings[name].p50 - limit.rest for name, limit in limits.items()}
            sizes = {"batch": BATCH, "tokens": TOKENS, "predicted_s": predicted}
            for record in bench.records(setting, workers, "scaling", timings, **sizes):
                name = record.inputs["peer"]
                found = {
                    "efficiency": round(one[name].p50 / (size * timings[name].p50), 3),
                    "limited_by": limits[name].largest if size > 1 else "—",
                    **{f"{cause}_s": round(lost, 4) for cause, lost in vars(limits[name]).items()},
                }
                yield record.model_copy(update={"inputs": record.inputs | found})


def limits_of(
    name: str, one_s: float, step_s: float, ranks: int, crowd: float, wire_s: float
) -> Limits:
    """What the step of `ranks` ranks lost against one rank's of `one_s` seconds.

    `crowd` is how many times as long one process's step takes with all ranks at it, each for itself; `wire_s` the seconds
    of the step's messages.
    """
    share = one_s / ranks
    stages = ranks if name.startswith("pipeline") else 1
    bubble = share * crowd * (stages - 1) / MICRO
    machine = share * (crowd - 1)
    return Limits(machine, bubble, wire_s, step_s - share - machine - bubble - wire_s)


def _wire(workers: Workers) -> dict[str, float]:
    """Seconds of every strategy's messages on the rank that sends most, by the links of torch's collectives.

    Bytes are counted of MODEL, messages in the proof, whose model has as many layers.
    """
    payloads = collectives.SIZES[2::2]
    timings = collectives.sweep(workers, WIRE.values(), payloads, by=collectives.TORCH)
    fitted = collectives.fit(workers, timings)
    found = {}
    for name, options in STRATEGIES.items():
        calls = bench.prove(workers, name.partition("#")[0], options)[0]["calls"]
        found[name] = wire_s(name, workers.ranks, calls, {n: fitted[h] for n, h in WIRE.items()})
    return found


def wire_s(name: str, ranks: int, calls: Mapping[str, int], link: Mapping[str, Link]) -> float:
    """Seconds of a step's messages, none hidden: of `calls` by collective, and of the bytes that `sends` counts."""
    from smml.parallel.strategies import kind
    from smml.parallel.strategy_tasks import config

    def of(rank: int) -> float:
        cls, options = kind(name.partition("#")[0]), STRATEGIES[name]
        sends = cls.sends(config(MODEL), rank, ranks, BATCH, TOKENS, **options)
        total = 0.0
        for collective, payload in sends.items():
            if collective == "send":  # a message to a neighbour is a step of a ring
                total += link["all-gather"].seconds(Sent(calls[collective], payload))
                continue
            one = links.sent(WIRE[collective], ranks, payload)
            total += link[collective].seconds(Sent(calls[collective] * one.messages, one.bytes))
        return total

    return max(of(rank) for rank in range(ranks))


def table(records: Iterable[Record]) -> str:
    """The records of `run` as a Markdown table, strategies in their order; empty where there are none."""
    found = [r for r in records if r.name.startswith("scaling/")]
    order = list(STRATEGIES)
    found.sort(key=lambda r: (order.index(r.inputs["peer"]), r.inputs["ranks"]))
    rows = [
        f"| {r.inputs['peer']} | {r.inputs['ranks']} | {r.value:,.0f} | {r.inputs['efficiency']:.0%} | "
        f"{r.inputs['limited_by']} |"
        for r in found
    ]
    head = [
        "The same work on more ranks\n",
        "| strategy | ranks | tokens/s | efficiency | limited by |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""]) if rows else ""
