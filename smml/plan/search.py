"""The layouts that a cluster allows, quickest first, and why each other one was rejected. Pure."""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

from smml.errors import UserError
from smml.plan.cluster import Cluster
from smml.plan.layout import Job, Layout
from smml.plan.memory import Memory, memory
from smml.plan.step import Step, step


@dataclass(frozen=True)
class Planned:
    """A layout that fits, with its memory and its step."""

    layout: Layout
    memory: Memory
    step: Step


@dataclass(frozen=True)
class Rejected:
    """A layout that cannot be used; `field` is what to change."""

    layout: Layout
    field: str
    reason: str


@dataclass
class Found:
    """The quickest layouts in order, how many were looked at, and all that were rejected."""

    best: list[Planned]
    considered: int
    limit_bytes: float
    rejected: list[Rejected] = field(default_factory=list)

    def grouped(self) -> list[tuple[str, int, Rejected]]:
        """Rejections by field, most first: how many, and one of them as an example (for memory the least over)."""
        groups: dict[str, list[Rejected]] = {}
        for entry in self.rejected:
            groups.setdefault(entry.field, []).append(entry)
        return [
            (name, len(group), group[0])
            for name, group in sorted(groups.items(), key=lambda item: -len(item[1]))
        ]


def search(
    cluster: Cluster,
    job: Job,
    *,
    layouts: Iterable[Layout] | None = None,
    fixed: Mapping[str, object] | None = None,
    memory_limit_bytes: float | None = None,
    keep: int = 5,
) -> Found:
    """Judge `layouts` (all of `candidates` where None) and keep the `keep` quickest within the limit.

    `fixed` holds fields of Layout that must have these values; None leaves one free. The limit is the device's usable memory unless given. Raises UserError for a limit that is not positive.
    """
    limit = cluster.usable_bytes if memory_limit_bytes is None else memory_limit_bytes
    if not limit > 0:
        raise UserError(f"memory_limit_bytes is {limit!r}: give a number above 0.")
    if keep < 1:
        raise UserError(f"keep is {keep!r}: give a whole number of 1 or more.")
    rejected: list[Rejected] = []
    fitting: list[tuple[float, int, Planned]] = []
    considered = 0
    over: tuple[float, int] | None = None
    for layout in candidates(cluster, job, fixed) if layouts is None else layouts:
        considered += 1
        if problem := layout.problem(job, cluster.gpus):
            rejected.append(Rejected(layout, problem.split(" ")[0].rstrip(":"), problem))
            continue
        need = memory(job, layout)
        if need.total > limit:
            reason = f"memory: needs {need.total / 2**30:.1f} GiB a rank, {limit / 2**30:.1f} GiB may be used"
            rejected.append(Rejected(layout, "memory", reason))
            if over is None or need.total < over[0]:
                over = need.total, len(rejected) - 1
            continue
        planned = Planned(layout, need, step(cluster, job, layout))
        entry = (-planned.step.seconds, -considered, planned)
        if len(fitting) < keep:
            heapq.heappush(fitting, entry)
        else:
            heapq.heappushpop(fitting, entry)
    if over is not None:
        rejected.insert(0, rejected.pop(over[1]))
    best = [planned for _, _, planned in sorted(fitting, key=lambda entry: (-entry[0], -entry[1]))]
    return Found(best, considered, limit, rejected)


def candidates(
    cluster: Cluster, job: Job, fixed: Mapping[str, object] | None = None
) -> Iterator[Layout]:
    """Layouts worth judging: tensor parallelism within a node, powers of two elsewhere, all ZeRO stages and recomputations.

    Data parallelism is what remains of the ranks, so that every candidate uses all of them. A field in `fixed` takes
    its value there and no other.
    """
    shape, gpus = job.shape, cluster.gpus
    given = {name: value for name, value in (fixed or {}).items() if value is not None}

    def free(name: str, values: Iterable) -> tuple:
        return (given[name],) if name in given else tuple(values)

    long = [c for c in _divisors(gpus) if c == 1 or job.sequence_length >= 8192 * c]
    for t, p, c, e in product(
        free("tensor_parallel", [t for t in _divisors(gpus) if t <= cluster.gpus_per_node]),
        free("pipeline_parallel", [p for p in _divisors(gpus) if p <= shape.layers]),
        free("context_parallel", [c for c in long if c & (c - 1) == 0]),
        free("expert_parallel", [e for e in _divisors(shape.experts) if gpus % e == 0]),
    ):
        if gpus % (t * p * c):
            continue
        d = gpus // (t * p * c)
        chunks = [v for v in (1, 2, 3, 4, 6, 8) if v == 1 or (p > 1 and p * v <= shape.layers)]
        for m, v, z, r in product(
            free(
                "micro_batch_size", [m for m in (1, 2, 4, 8, 16) if d * m <= job.global_batch_size]
            ),
            free("interleave", chunks),
            free("zero_stage", (1,) if d * c == 1 else (1, 2, 3)),
            free("recompute", ("none", "selective", "full")),
        ):
            yield Layout(
                data_parallel=d,
                tensor_parallel=t,
                pipeline_parallel=p,
                context_parallel=c,
                expert_parallel=e,
                micro_batch_size=m,
                interleave=v,
                sequence_parallel=t > 1,
                zero_stage=z,
                recompute=r,
            )


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
