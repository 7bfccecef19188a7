"""Pipelines over workers that stay up: the bubble predicted from stages alone, and found in whole steps; speed beside torch's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

from smml.bench import strategies
from smml.bench.setting import Setting
from smml.measure import Record, Timing, record
from smml.measure.record import git_commit
from smml.parallel.launch import Workers, ranks_here
from smml.parallel.pipeline.rehearse import rehearse
from smml.parallel.pipeline.schedules import Action, Schedule
from smml.parallel.pipeline.simulate import Span, Timeline

TASKS = "smml.parallel.pipeline.tasks"
LAYERS = 4  # of a rank
MICRO = (1, 2, 4)  # micro-batches for each rank
TIMEOUT_S = 300.0

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Sizes:
    """A Llama as changes to the tiny one, and a micro-batch."""

    model: Options
    sequences: int
    tokens: int


# Layers of a rank take about ten milliseconds forward on a core, and as long on a GPU.
ON_CPU = Sizes({"dim": 192, "heads": 6, "kv_heads": 3, "feed_forward_dim": 768}, 1, 128)
ON_GPU = Sizes(
    {"dim": 2048, "heads": 32, "kv_heads": 8, "head_dim": 64, "feed_forward_dim": 8192}
    | {"max_sequence_length": 2048},
    2,
    2048,
)


@dataclass(frozen=True)
class Alone:
    """What ranks take while nothing is sent: actions of every stage by round; seconds of an update and of a message."""

    rounds: tuple[Mapping[Action, float], ...]
    several: int  # micro-batches of a round
    update_s: float
    message_s: float
    begin_s: float

    def mean_s(self, kind: str, stage: int) -> float:
        """Seconds of forward or backward through a stage, the median round's mean."""
        actions = [Action(kind, stage, micro) for micro in range(self.several)]
        return median(sum(times[a] for a in actions) / self.several for times in self.rounds)

    def steps(self, plan: Schedule) -> list[Timeline]:
        """A step for each round, with the times of that round: what varies there varies in the step."""
        return [
            rehearse(
                plan,
                lambda a, times=times: times[a._replace(micro=a.micro % self.several)],
                self.message_s,
                self.begin_s,
            )
            for times in self.rounds
        ]


def run(setting: Setting) -> Iterator[Record]:
    """Bubble and step of every schedule over micro-batches, predicted; tokens a second beside torch's."""
    with Workers(ranks_here(2)) as workers:
        own = sizes(workers)
        planned = runs(workers.ranks)
        predicted = predict(workers, planned, own)
        found = measure(workers, planned, own)
        for name, options in planned.items():
            steps = predicted[name], found[name]
            yield from records(setting, workers, name, options, own, *steps)
        for name in NAMES:
            yield from beside_torch(setting, workers, name, own)


NAMES = ("pipeline-gpipe", "pipeline-1f1b", "pipeline-interleaved")


def sizes(workers: Workers, **changes: Any) -> Sizes:
    """What is measured on these ranks: LAYERS layers each; `changes` are fields of the model."""
    base = ON_GPU if workers.backend == "nccl" else ON_CPU
    model = dict(base.model) | {"layers": LAYERS * workers.ranks, "tie_embeddings": False}
    return Sizes(model | changes, base.sequences, base.tokens)


def runs(ranks: int) -> dict[str, Options]:
    """Every schedule with every number of micro-batches: strategy#micro-batches → its options."""
    return {f"{name}#{m * ranks}": {"micro": m * ranks} for name in NAMES for m in MICRO}


def plan(name: str, ranks: int, options: Options, own: Sizes) -> Schedule:
    """The schedule of a strategy of ours; its name may say more behind a #."""
    return _planned(name, ranks, options, own)[0]


def alone(workers: Workers, name: str, options: Options, own: Sizes) -> Alone:
    """The stages of a strategy one by one, on all ranks at once."""
    found = workers.run(
        f"{TASKS}:alone",
        timeout_s=TIMEOUT_S,
        strategy=name.partition("#")[0],
        options=dict(options),
        **_given(own),
    )
    rounds = []
    for of_ranks in zip(*(rank["spans"] for rank in found), strict=True):
        spans = [_span(row) for rows in of_ranks for row in rows]
        rounds.append({span.action: span.end_s - span.start_s for span in spans})
    several = 1 + max(action.micro for action in rounds[0])
    slowest = {f"{w}_s": max(rank[w] for rank in found) for w in ("update", "message", "begin")}
    return Alone(tuple(rounds), several, **slowest)


def predict(
    workers: Workers, planned: Mapping[str, Options], own: Sizes
) -> dict[str, list[Timeline]]:
    """Simulated steps; stages that several of them share are timed once."""
    known: dict[Any, Alone] = {}
    found = {}
    for name, options in planned.items():
        made, parts = _planned(name, workers.ranks, options, own)
        if parts not in known:
            known[parts] = alone(workers, name, options, own)
        found[name] = known[parts].steps(made)
    return found


def measure(
    workers: Workers, planned: Mapping[str, Options], own: Sizes, samples: int = 5
) -> dict[str, list[Timeline]]:
    """Steps in turns: what every rank did when. Each strategy is proved first."""
    found = workers.run(
        f"{TASKS}:steps",
        timeout_s=TIMEOUT_S,
        runs={name: dict(options) for name, options in planned.items()},
        samples=samples,
        **_given(own),
    )
    return {
        name: [
            Timeline(
                tuple(tuple(map(_span, rank["spans"])) for rank in sample), sample[0]["step_s"]
            )
            for sample in zip(*(rank[name] for rank in found), strict=True)
        ]
        for name in planned
    }


def typical(steps: Sequence[Timeline]) -> Timeline:
    """The one of the median bubble."""
    return sorted(steps, key=lambda step: step.bubble)[len(steps) // 2]


def most_bytes(ranks: int, name: str, options: Options, own: Sizes, device: str) -> list[int]:
    """The most that each rank holds, predicted."""
    from smml.parallel.pipeline import memory
    from smml.parallel.strategies import kind
    from smml.parallel.strategy_tasks import config

    shape = config(own.model)
    made, parts = _planned(name, ranks, options, own)
    return [
        memory.most_bytes(
            shape,
            made,
            parts,
            rank,
            kind(name).holds(shape, rank, ranks, **options),
            own.sequences,
            own.tokens,
            fused_norm=device == "cuda",
        )
        for rank in range(ranks)
    ]


def records(
    setting: Setting,
    workers: Workers,
    name: str,
    options: Options,
    own: Sizes,
    predicted: Sequence[Timeline],
    found: Sequence[Timeline],
) -> list[Record]:
    """Bubble in percent of all ranks' time, and seconds of forward and backward, both predicted."""
    made = plan(name, workers.ranks, options, own)
    inputs = {"profile": setting.profile.name, "backend": workers.backend, "ranks": workers.ranks}
    inputs |= {"schedule": made.name, "micro": made.micro, "interleave": made.interleave}
    inputs |= {"sequences": own.sequences, "sequence_length": own.tokens, **options}
    where = f"ranks-{workers.ranks}/{name.removeprefix('pipeline-').replace('#', '/micro-')}"
    environment = setting.machine.environment()
    shares = Timing(tuple(100 * step.bubble for step in found))
    bubble = Record(
        name=f"pipeline/bubble/{where}",
        unit="%",
        better="lower",
        value=shares.p50,
        p20=shares.p20,
        p80=shares.p80,
        n=shares.n,
        predicted=100 * median(step.bubble for step in predicted),
        inputs=inputs | {"bound": "schedule"},
        machine=setting.machine_id,
        environment=environment,
        commit=git_commit(),
        date=datetime.now(UTC).replace(microsecond=0),
        source=setting.source,
    )
    step = record(
        f"pipeline/step/{where}",
        Timing(tuple(step.step_s for step in found)),
        machine=setting.machine_id,
        source=setting.source,
        predicted_s=median(step.step_s for step in predicted),
        inputs=inputs | {"bound": "compute"},
        environment=environment,
    )
    return [bubble, step]


def beside_torch(setting: Setting, workers: Workers, name: str, own: Sizes) -> list[Record]:
    """Tokens a second of whole steps, updates included, of a schedule and of torch's, and their ratio."""
    from smml.parallel.strategy_tasks import PROOF_BATCH

    ranks = workers.ranks
    fitting = [m for m in range(ranks, 4 * ranks + 1, ranks) if PROOF_BATCH % m == 0]
    options = {"micro": fitting[-1]}
    costs = alone(workers, name, options, own)
    steps = costs.steps(plan(name, ranks, options, own))
    seconds = costs.update_s + median(step.step_s for step in steps)
    both, batch = {name: options, f"torch-{name}": options}, fitting[-1] * own.sequences
    return strategies.records(
        setting,
        workers,
        "pipeline",
        strategies.seconds(workers, both, own.model, batch, own.tokens),
        batch=batch,
        tokens=own.tokens,
        predicted_s=dict.fromkeys(both, seconds),
        ours=name,
        inputs=options,
    )


def _planned(
    name: str, ranks: int, options: Options, own: Sizes
) -> tuple[Schedule, tuple[range, ...]]:
    from smml.parallel.strategies import kind
    from smml.parallel.strategy_tasks import config

    return kind(name.partition("#")[0]).planned(config(own.model), ranks, **options)


def _given(own: Sizes) -> dict[str, Any]:
    return {"model": dict(own.model), "sequences": own.sequences, "tokens": own.tokens}


def _span(row: Sequence[Any]) -> Span:
    kind, stage, micro, start_s, end_s = row
    return Span(Action(kind, stage, micro), start_s, end_s)
