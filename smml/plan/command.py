"""What `smml plan` prints: one layout judged, or the best of all, from plain arguments. Pure but for the printing."""

import math
from pathlib import Path

from smml.data import instances
from smml.errors import UserError
from smml.plan import report
from smml.plan.advice import advise
from smml.plan.budget import budget
from smml.plan.calibration import compare, read_folder, summary
from smml.plan.cluster import Cluster, cluster
from smml.plan.goodput import (
    Reliability,
    checkpoint_seconds,
    daly_interval_s,
    expected_goodput,
    mean_time_between_failures_s,
)
from smml.plan.layout import Job, Layout
from smml.plan.memory import memory
from smml.plan.scaling_laws import CHINCHILLA
from smml.plan.search import search
from smml.plan.shape import named_shape
from smml.plan.step import step

TOKENS_A_BATCH = 4_000_000  # of a step where the batch is not given: what runs of 7B to 70B chose


def run(
    model: str,
    gpus: int,
    accelerator: str = "h100",
    *,
    sequence_length: int = 8192,
    global_batch_size: int | None = None,
    dtype: str = "bf16",
    engine: str = "compiled",
    attention: str = "flash",
    compiled_loss: bool = False,
    tensor_parallel: int | None = None,
    pipeline_parallel: int | None = None,
    context_parallel: int | None = None,
    expert_parallel: int | None = None,
    micro_batch_size: int | None = None,
    interleave: int | None = None,
    zero_stage: int | None = None,
    recompute: str | None = None,
    memory_limit_gib: float | None = None,
    network: str | None = None,
    network_gbit_per_s: float | None = None,
    gpus_per_node: int | None = None,
    tokens: float | None = None,
    price_usd_per_gpu_hour: float | None = None,
    gpu_hours_between_failures: float | None = None,
    storage_bytes_per_s: float = 100e9,
    detection_s: float = 60.0,
    restart_s: float = 480.0,
) -> str:
    """The plan as text. Of the layout's fields those that are None are searched, the given ones kept.

    `tokens` where None is Chinchilla's optimum for the model, about 20 a parameter. Raises UserError naming the field.
    """
    shape = named_shape(model)
    place = cluster(
        accelerator,
        gpus,
        network=network,
        network_gbit_per_s=network_gbit_per_s,
        gpus_per_node=gpus_per_node,
        price_usd_per_gpu_hour=price_usd_per_gpu_hour,
    )
    place = _priced(place)
    if global_batch_size is None:
        if sequence_length < 1:
            raise UserError(f"sequence_length is {sequence_length!r}: give 1 or more.")
        global_batch_size = _batch(gpus, sequence_length)
    job = Job(shape, sequence_length, global_batch_size, dtype, engine, attention, compiled_loss)
    asked = {
        "tensor_parallel": tensor_parallel,
        "pipeline_parallel": pipeline_parallel,
        "context_parallel": context_parallel,
        "expert_parallel": expert_parallel,
        "micro_batch_size": micro_batch_size,
        "interleave": interleave,
        "zero_stage": zero_stage,
        "recompute": recompute,
    }
    Layout(**{name: value for name, value in asked.items() if value is not None})  # fields checked
    limit = None if memory_limit_gib is None else memory_limit_gib * report.GIB
    if None in asked.values():
        found = search(place, job, memory_limit_bytes=limit, fixed=asked)
        if not found.considered:
            product = " × ".join(
                f"{name} {value}"
                for name, value in asked.items()
                if value and name.endswith("parallel")
            )
            raise UserError(
                f"gpus is {gpus}: {product or 'the layout'} leaves no whole number of ranks for data_parallel, or fewer "
                f"sequences a step than ranks (global_batch_size {global_batch_size}). Change one of them."
            )
        if not found.best:
            name, count, example = found.grouped()[0]
            raise UserError(
                f"none of {found.considered:,} layouts can be used on gpus {gpus}; {count:,} fail for {name}, such as "
                f"{example.layout}: {example.reason}. Give more gpus, another accelerator or free a field."
            )
        chosen, judged = found.best[0].layout, report.rejections(found)
    else:
        others = tensor_parallel * pipeline_parallel * context_parallel
        if gpus % others:
            raise UserError(
                f"gpus is {gpus}: tensor × pipeline × context = {others} must divide it."
            )
        chosen = Layout(gpus // others, sequence_parallel=tensor_parallel > 1, **asked)
        judged = "the layout was given; leave a field out to have it searched"
    limit = place.usable_bytes if limit is None else limit
    done, need = step(place, job, chosen), memory(job, chosen)

    failing = mean_time_between_failures_s(
        gpus, *([] if gpu_hours_between_failures is None else [gpu_hours_between_failures])
    )
    writing = checkpoint_seconds(shape.parameters, storage_bytes_per_s)
    reliability = Reliability(failing, writing, detection_s, restart_s)
    interval = daly_interval_s(reliability)
    good = expected_goodput(reliability, interval)
    if tokens is None:
        tokens = _compute_optimal_tokens(shape.parameters)
    over = "" if need.total <= limit else "\n        DOES NOT FIT: recompute, shard or cut more"
    return "\n\n".join(
        (
            report.headline(done),
            report.memory_bar(need, limit) + over,
            report.time_breakdown(done),
            report.utilization(done),
            report.cost(budget(done, tokens, good), reliability, interval, good),
            report.help_most(advise(place, job, chosen, limit)),
            judged,
            _trust(),
        )
    )


def errors(folder: Path | None = None) -> str:
    """Predicted beside measured for every row of the CSV files in `folder`, or of those that the planner was calibrated
    on, and their sums: what `smml plan --errors` prints. Raises UserError for rows that cannot be read.
    """
    rows = compare(read_folder(folder))
    lines = [
        f"{kind}: mean error {mean:.1%}, largest {worst:.1%}, {count} rows"
        for kind, (mean, worst, count) in summary(rows).items()
    ]
    return "\n".join([*map(str, rows), *lines])


def _trust() -> str:
    mean, worst, count = summary(compare(read_folder()))["step time"]
    return (
        f"trust   on the {count} published steps it was calibrated on the planner is {mean:.1%} off in the mean, "
        f"{worst:.1%} at most (smml plan --errors); runs of other software and machines lie further off"
    )


def _priced(place: Cluster) -> Cluster:
    """The cluster with the cheapest known EC2 price of its accelerator where no price was given."""
    if place.price_usd_per_gpu_hour is not None:
        return place
    prices = [
        entry.price_usd_per_accelerator_hour
        for entry in instances().values()
        if entry.accelerator == place.key and entry.price_usd_per_accelerator_hour is not None
    ]
    return place.at_price(min(prices)) if prices else place


def _batch(gpus: int, sequence_length: int) -> int:
    """Sequences of about TOKENS_A_BATCH tokens, at least one for eight accelerators: a power of two times the odd part of
    `gpus`, which most layouts divide.
    """
    odd = gpus // (gpus & -gpus)
    wanted = max(TOKENS_A_BATCH / sequence_length, gpus / 8)
    return odd * 2 ** max(0, round(math.log2(max(1, wanted / odd))))


def _compute_optimal_tokens(parameters: float) -> float:
    """Tokens for which `parameters` is the optimum, found by halving: the optimum grows with compute."""
    low, high = 1e12, 1e32
    for _ in range(200):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if CHINCHILLA.optimum(middle)[0] < parameters else (low, middle)
    return CHINCHILLA.optimum(high)[1]
