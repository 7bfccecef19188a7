"""Strategies over workers that stay up: proved, timed in turns, and the most that a rank of each holds."""

from collections.abc import Mapping
from typing import Any

from smml.bench.peers import ratio_record
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.measure import Record, Timing, record
from smml.parallel.launch import Workers

TASKS = "smml.parallel.strategy_tasks"

Options = Mapping[str, Any]


def prove(
    workers: Workers, name: str, options: Options | None = None, **sizes: Any
) -> list[dict[str, Any]]:
    """Every rank's proof. Raises UserError with what does not hold; `sizes` are model, batch and tokens."""
    proofs = findings(workers, name, options, **sizes)
    for rank, proof in enumerate(proofs):
        if proof["problems"]:
            raise UserError(f"{name}: on rank {rank} {'; '.join(proof['problems'])}.")
    return proofs


def findings(
    workers: Workers, name: str, options: Options | None = None, **sizes: Any
) -> list[dict[str, Any]]:
    """Every rank's proof, also of a strategy that fails it: fields of parallel.proof.Proof, and `problems`."""
    return workers.run(f"{TASKS}:prove", strategy=name, options=dict(options or {}), **sizes)


def seconds(
    workers: Workers,
    strategies: Mapping[str, Options],
    model: Options,
    batch: int,
    tokens: int,
    samples: int = 7,
) -> dict[str, Timing]:
    """Seconds of a step of each, in turns. A name may say more after a #: zero-3#small is zero-3 with other options.

    Each is proved on these ranks first; raises UserError where that fails.
    """
    found = workers.run(
        f"{TASKS}:seconds",
        strategies={name: dict(options) for name, options in strategies.items()},
        model=dict(model),
        batch=batch,
        tokens=tokens,
        samples=samples,
    )[0]
    return {name: Timing(tuple(samples)) for name, samples in found.items()}


def peak(
    workers: Workers,
    name: str,
    model: Options,
    batch: int,
    tokens: int,
    options: Options | None = None,
    limit: int | None = None,
) -> list[dict[str, int]]:
    """Bytes by rank: `most` at one time in two steps, and those held between backward and update.

    Raises UserError ("out of memory: …") where a rank needs more than `limit` bytes.
    """
    return workers.run(
        f"{TASKS}:peak",
        strategy=name,
        model=dict(model),
        batch=batch,
        tokens=tokens,
        options=dict(options or {}),
        limit=limit,
    )


def records(
    setting: Setting,
    workers: Workers,
    prefix: str,
    timings: Mapping[str, Timing],
    *,
    batch: int,
    tokens: int,
    predicted_s: Mapping[str, float] | None = None,
    ours: str = "",
    inputs: Options | None = None,
) -> list[Record]:
    """Tokens per second of every strategy, predicted where `predicted_s` has its seconds; `ours` ÷ every other as ratios.

    A ratio above 1 says that ours took less time; its spread is that of the single rounds.
    """
    told = {"profile": setting.profile.name, "backend": workers.backend, "ranks": workers.ranks}
    told |= {"batch": batch, "sequence_length": tokens, **(inputs or {})}
    environment = setting.machine.environment()
    named = f"{prefix}/ranks-{workers.ranks}"
    found = [
        record(
            f"{named}/{name}",
            timing,
            machine=setting.machine_id,
            source=setting.source,
            unit="tokens/s",
            amount=batch * tokens,
            predicted_s=(predicted_s or {}).get(name),
            inputs=told | {"bound": "compute", "peer": name},
            environment=environment,
        )
        for name, timing in timings.items()
    ]
    for name, timing in timings.items():
        if ours and name != ours:
            pairs = zip(timing.samples_s, timings[ours].samples_s, strict=True)
            ratio = Timing(tuple(theirs / mine for theirs, mine in pairs))
            spread = (ratio.p20, ratio.p50, ratio.p80)
            found.append(
                ratio_record(
                    setting, f"{named}/{ours}-to-{name}", spread, ratio.n, told, environment
                )
            )
    return found
