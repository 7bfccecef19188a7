"""A whole plan: a layout judged, or the best of all, with its memory, step, cost, failures and what would help. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from smml.data import instance
from smml.errors import UserError
from smml.plan.advice import Change, advise
from smml.plan.amounts import GIB
from smml.plan.budget import Budget, budget
from smml.plan.cluster import Cluster
from smml.plan.goodput import (
    LLAMA_3_GPU_HOURS_BETWEEN_FAILURES,
    Reliability,
    checkpoint_seconds,
    daly_interval_s,
    expected_goodput,
    mean_time_between_failures_s,
)
from smml.plan.layout import Job, Layout
from smml.plan.memory import Memory, memory
from smml.plan.price import Offer, offers
from smml.plan.scaling_laws import CHINCHILLA
from smml.plan.search import Found, search
from smml.plan.step import Step, step

LEAST_GOODPUT = 0.01  # below, a job spends its time on recovering and no date can be named
TOKENS_A_BATCH = 4_000_000  # of a step where the batch is not given: what runs of 7B to 70B chose


@dataclass(frozen=True)
class Failures:
    """How often one device fails, and what that costs: Llama 3's published rate, storage in bytes/s, seconds."""

    gpu_hours_between_failures: float = LLAMA_3_GPU_HOURS_BETWEEN_FAILURES
    storage_bytes_per_s: float = 100e9
    detection_s: float = 60.0
    restart_s: float = 480.0


@dataclass(frozen=True)
class Plan:
    """What was planned. `found` is None where the layout was given, `offer` where a price was given or none is known."""

    step: Step
    memory: Memory
    limit_bytes: float
    budget: Budget
    failures: Failures
    reliability: Reliability
    interval_s: float
    advice: list[Change]
    found: Found | None
    offers: list[Offer]
    offer: Offer | None

    @property
    def fits(self) -> bool:
        """Whether the fullest rank stays within the limit."""
        return self.memory.total <= self.limit_bytes

    @property
    def goodput(self) -> float:
        """Share of the wall clock that trains."""
        return self.budget.training_s / self.budget.wall_s

    @property
    def interruptions(self) -> float:
        """Failures to be expected in the whole run."""
        return self.budget.wall_s / self.reliability.mean_time_between_failures_s

    @property
    def checkpoints(self) -> int:
        """Checkpoints written in the whole run, the last one included."""
        return math.ceil(self.budget.training_s / self.interval_s)

    @property
    def checkpoint_bytes(self) -> float:
        """Of one checkpoint."""
        return self.reliability.checkpoint_s * self.failures.storage_bytes_per_s

    @property
    def predicted_loss(self) -> float:
        """Nats a token after all tokens, by Chinchilla's law."""
        return CHINCHILLA.loss(self.step.job.shape.parameters, self.budget.tokens)


def make(
    cluster: Cluster,
    job: Job,
    layout: Layout | None = None,
    *,
    fixed: Mapping[str, object] | None = None,
    memory_limit_bytes: float | None = None,
    tokens: float | None = None,
    failures: Failures | None = None,
) -> Plan:
    """The plan of `layout`, or of the quickest that fits where None; `fixed` fields of it are kept (see `search`).

    `tokens` where None is Chinchilla's optimum for the model, about 20 a parameter. Without a price of its own the cluster
    gets the usual EC2 offer. Raises UserError naming the field.
    """
    cluster.peak_flops(job.dtype)  # named before thousands of layouts are judged
    most = cluster.accelerator.memory.value
    limit = cluster.usable_bytes if memory_limit_bytes is None else memory_limit_bytes
    if limit > most:
        raise UserError(
            f"memory_limit is {limit / GIB:.4g} GiB: {cluster.accelerator.name} has {most / GIB:.4g}. "
            "Give less or another accelerator."
        )
    known = offers(cluster)
    hosted = instance(cluster.instance) if cluster.instance else None
    listed = hosted.price_usd_per_accelerator_hour if hosted else None
    given = cluster.price_usd_per_gpu_hour not in (None, listed)
    offer = known[0] if known and not given else None
    if offer is not None:
        cluster = cluster.at_price(offer.usd_per_gpu_hour, offer.accelerators)
    failures = failures or Failures()
    reliability = Reliability(
        mean_time_between_failures_s(cluster.gpus, failures.gpu_hours_between_failures),
        checkpoint_seconds(job.shape.parameters, failures.storage_bytes_per_s),
        failures.detection_s,
        failures.restart_s,
    )
    interval = daly_interval_s(reliability)
    good = expected_goodput(reliability, interval)
    if good < LEAST_GOODPUT:
        raise UserError(
            f"goodput is {good:.1g}: {cluster.gpus:,} gpus fail every {reliability.mean_time_between_failures_s:.3g} s, "
            f"a checkpoint takes {reliability.checkpoint_s:.3g} s and recovery {reliability.recovery_s:.3g} s, so that the "
            "run never ends. Lower gpus, restart_s or detection_s, or raise storage_bytes_per_s or gpu_hours_between_failures."
        )
    found = None
    if layout is None:
        found = search(cluster, job, memory_limit_bytes=limit, fixed=fixed)
        layout = _best(found, cluster, job, fixed or {})
    done = step(cluster, job, layout)
    if tokens is None:
        tokens = compute_optimal_tokens(job.shape.parameters)
    return Plan(
        done,
        memory(job, layout),
        limit,
        budget(done, tokens, good),
        failures,
        reliability,
        interval,
        advise(cluster, job, layout, limit),
        found,
        known,
        offer,
    )


def _best(found: Found, cluster: Cluster, job: Job, fixed: Mapping[str, object]) -> Layout:
    gpus = cluster.gpus
    if not found.considered:
        product = " × ".join(
            f"{name} {value}"
            for name, value in fixed.items()
            if value and name.endswith("parallel")
        )
        raise UserError(
            f"gpus is {gpus}: {product or 'the layout'} leaves no whole number of ranks for data_parallel, or fewer "
            f"sequences a step than ranks (global_batch_size {job.global_batch_size}). Change one of them."
        )
    if not found.best:
        name, count, example = found.grouped()[0]
        raise UserError(
            f"none of {found.considered:,} layouts can be used on gpus {gpus}; {count:,} fail for {name}, such as "
            f"{example.layout}: {example.reason}. Give more gpus, another accelerator or free a field."
        )
    return found.best[0].layout


def usual_batch(gpus: int, sequence_length: int) -> int:
    """Sequences of about TOKENS_A_BATCH tokens, at least one for eight accelerators: a power of two times the odd part of
    `gpus`, which most layouts divide. Raises UserError for less than one of either.
    """
    for name, value in {"gpus": gpus, "sequence_length": sequence_length}.items():
        if value < 1:
            raise UserError(f"{name} is {value!r}: give 1 or more.")
    odd = gpus // (gpus & -gpus)
    wanted = max(TOKENS_A_BATCH / sequence_length, gpus / 8)
    return odd * 2 ** max(0, round(math.log2(max(1, wanted / odd))))


def compute_optimal_tokens(parameters: float) -> float:
    """Tokens for which `parameters` is the optimum, found by halving: the optimum grows with compute."""
    low, high = 1e12, 1e32
    for _ in range(200):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if CHINCHILLA.optimum(middle)[0] < parameters else (low, middle)
    return CHINCHILLA.optimum(high)[1]


def whole_layout(gpus: int, fields: Mapping[str, object]) -> Layout:
    """The layout of `fields` with all ranks that are left as data parallel; raises UserError where none is whole."""
    others = fields["tensor_parallel"] * fields["pipeline_parallel"] * fields["context_parallel"]
    if gpus % others:
        raise UserError(f"gpus is {gpus}: tensor × pipeline × context = {others} must divide it.")
    return Layout(gpus // others, sequence_parallel=fields["tensor_parallel"] > 1, **fields)
