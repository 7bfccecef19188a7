"""USD per million tokens and per training run, counted over the WHOLE job: every instance at its price, every token once.

A price belongs to an instance, whether its accelerators work or idle; ranks cost nothing by themselves. A token belongs
to the job: ranks that each report the global batch report the same tokens, and so do the ranks of one tensor- or
pipeline-parallel group. The types keep these apart, so that neither can be multiplied by the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from smml.data import accelerator, instance
from smml.errors import UserError

Phase = Literal["training", "inference"]


@dataclass(frozen=True)
class GlobalThroughput:
    """Tokens per second of the whole job, each token counted once, whoever reports it."""

    tokens_per_s: float

    def __post_init__(self) -> None:
        _positive(tokens_per_s=self.tokens_per_s)

    def of_job(self, world_size: int) -> float:
        """Tokens per second of the job: the number itself, however many ranks there are."""
        return self.tokens_per_s


@dataclass(frozen=True)
class ThroughputPerReplica:
    """Tokens per second of one model replica on its own share of the batch, the same on each.

    `ranks_per_replica` ranks (tensor × pipeline parallel) hold one replica and see the same tokens: 1 in plain data
    parallelism, where this is the throughput of one rank.
    """

    tokens_per_s: float
    ranks_per_replica: int = 1

    def __post_init__(self) -> None:
        _positive(tokens_per_s=self.tokens_per_s, ranks_per_replica=self.ranks_per_replica)

    def of_job(self, world_size: int) -> float:
        """Tokens per second of the job: replicas × one replica's. Raises UserError where the ranks do not divide."""
        if world_size % self.ranks_per_replica:
            raise UserError(
                f"world_size is {world_size} and ranks_per_replica is {self.ranks_per_replica}: "
                "world_size must be a multiple of it. Change one of them."
            )
        return world_size // self.ranks_per_replica * self.tokens_per_s


@dataclass(frozen=True)
class Instances:
    """`count` machines of one type. The price of each is the catalogue's on-demand one unless given (spot, owned)."""

    type: str
    count: int
    price_usd_per_hour: float | None = None

    def __post_init__(self) -> None:
        _positive(count=self.count)
        known = instance(self.type)
        if self.price_usd_per_hour is not None:
            if not self.price_usd_per_hour >= 0:
                raise UserError(
                    f"price_usd_per_hour is {self.price_usd_per_hour!r}; give 0 or more."
                )
        elif known is None or known.price_usd_per_hour is None:
            raise UserError(
                f"the catalogue holds no price of {self.type!r}; give price_usd_per_hour."
            )

    @property
    def usd_per_hour(self) -> float:
        """What all of them cost in an hour."""
        price = self.price_usd_per_hour
        if price is None:
            price = instance(self.type).price_usd_per_hour.value
        return self.count * price

    @property
    def accelerators(self) -> int | None:
        """Accelerators of all of them; None for a type that the catalogue does not hold."""
        known = instance(self.type)
        return None if known is None else self.count * known.accelerator_count


@dataclass(frozen=True)
class Job:
    """A running job: all its instances, all its ranks (`world_size`, one an accelerator), its throughput.

    Raises UserError for more ranks than accelerators, and for ranks that form no whole replicas.
    """

    instances: tuple[Instances, ...]
    world_size: int
    throughput: GlobalThroughput | ThroughputPerReplica

    def __post_init__(self) -> None:
        _positive(world_size=self.world_size)
        if not self.instances:
            raise UserError("instances is empty; name every machine that is paid for the job.")
        held = self.accelerators
        if held and self.world_size > held:
            raise UserError(
                f"world_size is {self.world_size} and the instances have {held} accelerators: one rank needs one. "
                "Name all instances of the job, or correct world_size."
            )
        self.throughput.of_job(self.world_size)

    @property
    def accelerators(self) -> int | None:
        """Accelerators that are paid for; None where the type of an instance is unknown, 0 for a job on CPUs."""
        held = [group.accelerators for group in self.instances]
        return None if None in held else sum(held)

    @property
    def idle_accelerators(self) -> int | None:
        """Accelerators that are paid for and run no rank; None where their number is unknown."""
        return None if self.accelerators is None else max(0, self.accelerators - self.world_size)

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second of the job, each counted once."""
        return self.throughput.of_job(self.world_size)

    @property
    def usd_per_hour(self) -> float:
        """Every instance at its price, once."""
        return sum(group.usd_per_hour for group in self.instances)

    @property
    def usd_per_million_tokens(self) -> float:
        """USD an hour ÷ tokens an hour × 10⁶."""
        return self.usd_per_hour / (self.tokens_per_s * 3600) * 1e6


@dataclass(frozen=True)
class RankReport:
    """What one rank logged: tokens in `seconds`, of the global batch or of its replica's own share.

    `replica` numbers the model replica that the rank belongs to.
    """

    rank: int
    tokens: int
    seconds: float
    scope: Literal["global", "replica"]
    replica: int = 0


@dataclass(frozen=True)
class Run:
    """A run to the end: what it computes, how long it takes on all instances, what it costs."""

    tokens: float
    hours: float
    usd: float
    flops: float | None = None

    @property
    def usd_per_million_tokens(self) -> float:
        """USD of the run ÷ its tokens × 10⁶."""
        return self.usd / self.tokens * 1e6


def throughput_of(reports: Sequence[RankReport]) -> GlobalThroughput:
    """Throughput of the job from what its ranks logged: each token once, over the slowest rank's time.

    Raises UserError for no reports, two reports of one rank, mixed scopes, and ranks that disagree about tokens they
    share.
    """
    if not reports:
        raise UserError("reports is empty; give one report a rank.")
    for report in reports:
        _positive(tokens=report.tokens, seconds=report.seconds)
    if len({report.rank for report in reports}) < len(reports):
        raise UserError("reports names a rank twice; give one report a rank.")
    scopes = {report.scope for report in reports}
    if len(scopes) > 1:
        raise UserError(
            f"reports mixes the scopes {', '.join(sorted(scopes))}; let all ranks report the same one."
        )
    shared: dict[int, int] = {}
    for report in reports:
        owner = 0 if report.scope == "global" else report.replica
        if shared.setdefault(owner, report.tokens) != report.tokens:
            raise UserError(
                f"rank {report.rank} reports {report.tokens} tokens where a rank that shares them reports "
                f"{shared[owner]}; correct scope or replica."
            )
    return GlobalThroughput(sum(shared.values()) / max(report.seconds for report in reports))


def flops(phase: Phase, parameters: float, tokens: float) -> float:
    """FLOPs by the rule: 6NT in training, 2NT in inference (arXiv:2001.08361, section 2.1); not per rank, of the job."""
    _positive(parameters=parameters, tokens=tokens)
    if phase not in ("training", "inference"):
        raise UserError(f"phase is {phase!r}; allowed are training, inference; give one of these.")
    return (6 if phase == "training" else 2) * parameters * tokens


def planned_job(
    instances: tuple[Instances, ...],
    world_size: int,
    parameters: float,
    model_flops_utilization: float,
    *,
    phase: Phase = "training",
    dtype: str = "bf16",
) -> Job:
    """The job as it would run at that share of the dense peak of its ranks; of mixed types the slowest sets the pace.

    Raises UserError where the catalogue holds no peak: then measure, and give the throughput.
    """
    if not 0 < model_flops_utilization <= 1:
        raise UserError(
            f"model_flops_utilization is {model_flops_utilization!r}; it is a share: give 0 to 1."
        )
    rate = world_size * peak_flops_per_rank(instances, dtype) * model_flops_utilization
    return Job(instances, world_size, GlobalThroughput(rate / flops(phase, parameters, 1)))


def model_flops_utilization(
    job: Job, parameters: float, *, phase: Phase = "training", dtype: str = "bf16"
) -> float:
    """Share of the dense peak of the job's ranks that its tokens need; idle accelerators are left out."""
    peak = job.world_size * peak_flops_per_rank(job.instances, dtype)
    return flops(phase, parameters, 1) * job.tokens_per_s / peak


def peak_flops_per_rank(instances: tuple[Instances, ...], dtype: str) -> float:
    """Dense peak of one accelerator in FLOP/s, the slowest of the job's. Raises UserError where it is not known."""
    peaks = []
    for group in instances:
        known = instance(group.type)
        device = accelerator(known.accelerator) if known and known.accelerator else None
        peak = device.peak_flops(dtype) if device else None
        if peak is None:
            raise UserError(
                f"the catalogue holds no {dtype} peak for an accelerator of {group.type!r}; measure tokens per second there."
            )
        peaks.append(peak.value)
    return min(peaks)


def run_cost(
    job: Job, tokens: float, *, parameters: float | None = None, phase: Phase = "training"
) -> Run:
    """Hours and USD until the job has processed `tokens`; with `parameters` also the FLOPs, by the rule."""
    _positive(tokens=tokens)
    hours = tokens / job.tokens_per_s / 3600
    counted = None if parameters is None else flops(phase, parameters, tokens)
    return Run(tokens, hours, hours * job.usd_per_hour, counted)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name} is {value!r}; give a number above 0.")
