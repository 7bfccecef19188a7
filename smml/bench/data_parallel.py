"""Training steps on several ranks: data parallel by hand beside PyTorch's, and beside a step that sends nothing."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from smml.bench import collectives
from smml.bench.peers import OURS, ratio_record
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.measure import Record, Timing, record
from smml.parallel import links
from smml.parallel.launch import Workers, ranks_here
from smml.parallel.links import Link

TASKS = "smml.parallel.data_parallel_tasks"
RING = "all-reduce/ring"
# A Llama of which a step takes a tenth of a second on a core; sequences a rank, tokens of each.
MODEL = {"dim": 192, "heads": 6, "kv_heads": 3, "feed_forward_dim": 768}
BATCH, TOKENS = 4, 128
PROOF = {"dim": 64, "layers": 2, "heads": 4, "head_dim": 16, "kv_heads": 2, "feed_forward_dim": 128}
TOLERANCE = 1e-5  # of a gradient, in float32, relative


def run(setting: Setting) -> Iterator[Record]:
    """Tokens per second on two ranks, or one a GPU, ratios to torch's, and the throughput of all ranks ÷ one's."""
    with Workers(ranks_here(2)) as workers:
        link = ring(workers)
        predicted = predicted_s(workers, seconds(workers, kinds=("alone",))["alone"], link)
        prove(workers)
        timings = seconds(workers)
        yield from records(setting, workers, timings, predicted)
        one = alone(workers.threads_of_a_rank)
        yield scaling(setting, workers.ranks, one, timings[OURS])


def alone(threads: int) -> Timing:
    """Seconds of a step of one process with the threads of a rank, and BATCH sequences."""
    with Workers(1, threads=threads) as single:
        return seconds(single, kinds=("alone",))["alone"]


def ring(workers: Workers) -> Link:
    """The link of a ring all-reduce over these ranks, fitted on sizes about that of the gradients."""
    sizes = collectives.SIZES[4:]
    return collectives.fit(workers, collectives.sweep(workers, [RING], sizes))[RING]


def prove(workers: Workers, **given: Any) -> list[dict[str, float]]:
    """Every rank's proof on a small model. Raises UserError where a gradient is not the unsharded model's."""
    proofs = workers.run(f"{TASKS}:prove", model=PROOF, batch=4 * workers.ranks, tokens=32, **given)
    worst = max(proof["gradient"] for proof in proofs)
    if not worst <= TOLERANCE:
        raise UserError(
            f"data parallel: a gradient is {worst:.1e} off one process's, more than {TOLERANCE:.0e}: its speed would "
            "mean nothing. Report it."
        )
    return proofs


def seconds(
    workers: Workers, kinds: Sequence[str] = ("alone", OURS, "torch"), micro: int = 1
) -> dict[str, Timing]:
    """Seconds of a step of each kind, in turns, of BATCH sequences a rank."""
    found = workers.run(
        f"{TASKS}:step_seconds",
        model=MODEL,
        batch=BATCH * workers.ranks,
        tokens=TOKENS,
        kinds=kinds,
        micro=micro,
    )[0]
    return {kind: Timing(tuple(samples)) for kind, samples in found.items()}


def gradient_bytes() -> int:
    """Bytes of all gradients of MODEL, in float32."""
    from dataclasses import replace

    from smml.llama import counts
    from smml.llama.config import CONFIGS

    return 4 * counts.parameters(replace(CONFIGS["tiny"], **MODEL)).total


def predicted_s(workers: Workers, alone: Timing, link: Link) -> float:
    """A step alone, and then the all-reduce of all gradients: what it takes if nothing of it is hidden."""
    return alone.p50 + link.seconds(links.sent(RING, workers.ranks, gradient_bytes()))


def records(
    setting: Setting,
    workers: Workers,
    timings: Mapping[str, Timing],
    predicted: float,
    micro: int = 1,
) -> list[Record]:
    """Tokens per second of the kinds that send, `predicted` seconds a step, and how many times as fast ours is as torch's."""
    tokens, environment = BATCH * workers.ranks * TOKENS, setting.machine.environment()
    inputs = {"profile": setting.profile.name, "backend": workers.backend, "ranks": workers.ranks}
    inputs |= {"batch": BATCH * workers.ranks, "sequence_length": TOKENS, "micro": micro}
    prefix = f"data-parallel/ranks-{workers.ranks}/micro-{micro}"
    found = [
        record(
            f"{prefix}/{kind}",
            timing,
            machine=setting.machine_id,
            source=setting.source,
            unit="tokens/s",
            amount=tokens,
            predicted_s=predicted,
            inputs=inputs | {"bound": "compute", "peer": kind},
            bytes=links.sent(RING, workers.ranks, gradient_bytes()).bytes,
            environment=environment,
        )
        for kind, timing in timings.items()
        if kind != "alone"
    ]
    pairs = zip(timings["torch"].samples_s, timings[OURS].samples_s, strict=True)
    own = Timing(tuple(theirs / mine for theirs, mine in pairs))
    spread = (own.p20, own.p50, own.p80)
    return [
        *found,
        ratio_record(setting, f"{prefix}/{OURS}-to-torch", spread, own.n, inputs, environment),
    ]


def scaling(setting: Setting, ranks: int, one: Timing, together: Timing) -> Record:
    """Tokens a second of all ranks together ÷ one's, each with BATCH sequences."""
    times = Timing(
        tuple(a / (ranks * b) for a, b in zip(together.samples_s, one.samples_s, strict=True))
    )
    inputs = {"profile": setting.profile.name, "ranks": ranks}
    inputs |= {"batch": BATCH, "sequence_length": TOKENS}
    spread = (1 / times.p80, 1 / times.p50, 1 / times.p20)
    name, environment = f"data-parallel/ranks-{ranks}-to-1", setting.machine.environment()
    return ratio_record(setting, name, spread, times.n, inputs, environment)
