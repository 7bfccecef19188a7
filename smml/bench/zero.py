"""Training steps of ZeRO's stages by hand, of FSDP2 and of data parallel, in turns, beside what their pieces take alone."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from smml.bench import strategies as bench, zero_peak
from smml.bench.setting import Setting
from smml.llama.config import CONFIGS, LlamaConfig
from smml.measure import Record, Timing
from smml.parallel import links
from smml.parallel.launch import Workers, ranks_here
from smml.parallel.links import Link
from smml.parallel.strategies import kind
from smml.parallel.zero_sizes import padded, unit_sizes

TASKS = "smml.parallel.zero_tasks"
# A Llama of 3.5M parameters: sequences a rank and tokens of each where steps are timed, and where memory is looked at,
# with little data, so that what is held counts.
MODEL = {"dim": 192, "layers": 6, "heads": 6, "kv_heads": 3, "feed_forward_dim": 768}
BATCH, TOKENS = 1, 64
PEAK_BATCH, PEAK_TOKENS = 1, 32
STAGES = ("zero-1", "zero-2", "zero-3")
STEPS = ("data", *STAGES, "torch-fsdp2")
PREFIX = "zero"
ALL_GATHER, REDUCE_SCATTER, ALL_REDUCE = "all-gather", "reduce-scatter", "all-reduce/ring"


def run(setting: Setting) -> Iterator[Record]:
    """Tokens per second of every stage and of its peers, predicted from their pieces; ratios of ZeRO-3 to the others."""
    with Workers(ranks_here()) as workers:
        predicted = predict(workers, pieces(workers), fit(workers))
        timings = seconds(workers)
        yield from records(setting, workers, timings, predicted)


def pieces(workers: Workers) -> dict[str, Timing]:
    """Seconds of backward (forward included) and of the update, nothing sent, on all ranks at once."""
    sizes = {"model": MODEL, "batch": BATCH, "tokens": TOKENS}
    found = workers.run(f"{TASKS}:step_parts", **sizes)[0]
    return {part: Timing(tuple(samples)) for part, samples in found.items()}


def fit(workers: Workers) -> dict[str, Link]:
    """The links of the collectives that steps call, fitted on messages about as large as theirs."""
    layer, *_ = messages("zero-3", workers.ranks)[REDUCE_SCATTER]
    payloads = [layer // 8, layer // 2, layer, 4 * layer]
    found = workers.run(f"{TASKS}:collective_seconds", payloads=payloads)[0]
    return {
        name: links.fit(
            (links.sent(name, workers.ranks, payload), Timing(tuple(samples)).p50)
            for payload, samples in zip(payloads, by_payload, strict=True)
        )
        for name, by_payload in found.items()
    }


def held(name: str, ranks: int) -> int:
    """Bytes of parameters, gradients and moments of MODEL on a rank."""
    return sum(kind(name).holds(shape(), 0, ranks).values())


def parameters() -> int:
    """Of MODEL."""
    return sum(unit_sizes(shape()))


def sent(name: str, ranks: int) -> float:
    """Bytes that a rank sends in a step, around rings."""
    return sum(
        links.sent(collective, ranks, payload).bytes
        for collective, payloads in messages(name, ranks).items()
        for payload in payloads
    )


def messages(name: str, ranks: int, per_layer: bool = True) -> dict[str, list[int]]:
    """Payloads in bytes of every collective of a step."""
    if name == "data":
        return {ALL_REDUCE: [4 * sum(unit_sizes(shape()))]}  # less than one bucket
    units = [4 * padded(size, ranks) for size in unit_sizes(shape(), per_layer)]
    again = units[:-1] if name in ("zero-3", "torch-fsdp2") else []
    return {ALL_GATHER: units + again, REDUCE_SCATTER: units}


def predict(
    workers: Workers, parts: Mapping[str, Timing], link: Mapping[str, Link]
) -> dict[str, float]:
    """Seconds of each step if nothing is hidden: backward, the update or a rank's part of it, and every message."""
    found = {}
    for name in STEPS:
        share = 1 if name == "data" else workers.ranks
        send_s = (
            link[collective].seconds(links.sent(collective, workers.ranks, payload))
            for collective, payloads in messages(name, workers.ranks).items()
            for payload in payloads
        )
        found[name] = parts["backward"].p50 + parts["update"].p50 / share + sum(send_s)
    return found


def seconds(
    workers: Workers, steps: Mapping[str, Mapping] | None = None, samples: int = 7
) -> dict[str, Timing]:
    """Seconds of a step of each, in turns; each is proved first."""
    steps = steps or {name: {} for name in STEPS}
    return bench.seconds(workers, steps, MODEL, BATCH * workers.ranks, TOKENS, samples)


def records(
    setting: Setting,
    workers: Workers,
    timings: Mapping[str, Timing],
    predicted: Mapping[str, float],
) -> list[Record]:
    """Tokens per second of each step, and ZeRO-3's ÷ each other's."""
    sizes = {"batch": BATCH * workers.ranks, "tokens": TOKENS}
    return bench.records(
        setting, workers, PREFIX, timings, **sizes, predicted_s=predicted, ours="zero-3"
    )


def peak(workers: Workers, name: str, limit: int | None = None, **options: object) -> int:
    """Most bytes that a rank holds in two steps with little data, building included."""
    sizes = {"batch": PEAK_BATCH * workers.ranks, "tokens": PEAK_TOKENS}
    found = bench.peak(workers, name, MODEL, **sizes, options=options, limit=limit)
    return max(rank["most"] for rank in found)


def moments(name: str, ranks: int, per_layer: bool = True) -> dict[str, int]:
    """The same, predicted for each moment that can be the largest; FSDP2 is asked to do what our stage 3 does."""
    of = "zero-3" if name == "torch-fsdp2" else name
    sizes = shape(), ranks, PEAK_BATCH * ranks, PEAK_TOKENS
    return zero_peak.moments(of, *sizes, per_layer=per_layer)


def shape() -> LlamaConfig:
    """The configuration of MODEL."""
    return replace(CONFIGS["tiny"], **MODEL)
