"""From what a machine was seen to use to the cheapest that would hold it: p99 of each resource, and what it saves.

Burstable types are judged by their mean load, accelerators by their own kind only: another kind has another speed, which
no utilization tells.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smml.cost.decisions.decide import surplus_usd_per_hour
from smml.cost.decisions.decision import (
    HOURS_PER_MONTH,
    Decision,
    Price,
    Rejected,
    dollars,
    hourly,
    seconds,
)
from smml.cost.decisions.instances import Need, Sized, choose_instance
from smml.cost.decisions.standing import barred, kind
from smml.cost.scaling import queueing
from smml.cost.scaling.queue_simulator import Outcome
from smml.data import Instance, instance, instances, limits
from smml.errors import UserError

QUANTILE = 0.99


@dataclass(frozen=True)
class Usage:
    """Samples of what one machine used, [N] each, over the same time. Raises UserError naming the field.

    busy_share          of all vCPUs, or of all accelerators where the machine has some, 0 to 1
    memory_gib          in use; None where nobody watched: EC2 does not see it, and then no memory is given up
    network_gbit_per_s  sent and received; None where nobody watched
    """

    busy_share: NDArray[np.float64]
    memory_gib: NDArray[np.float64] | None = None
    network_gbit_per_s: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        for name in ("busy_share", "memory_gib", "network_gbit_per_s"):
            samples = getattr(self, name)
            if samples is None and name != "busy_share":
                continue
            samples = np.asarray(samples, dtype=float)
            if samples.ndim != 1 or not len(samples) or not (samples >= 0).all():
                raise UserError(f"{name} must hold one number or more, none below 0.")
            if name == "busy_share" and samples.max() > 1:
                raise UserError(
                    f"busy_share holds {samples.max():g}; it is a share: give 0 to 1, not percent."
                )


@dataclass(frozen=True)
class Service:
    """What the machine answers: Poisson requests, each busy on one vCPU for `service_s` on average, and its p99 goal."""

    requests_per_s: float
    service_s: float
    p99_s: float


def right_size(
    current: str, usage: Usage, service: Service | None = None, *, most_busy: float = 0.8
) -> Decision[Sized]:
    """The cheapest type that holds the p99 of the usage below `most_busy` of its vCPUs, or accelerators.

    With `service`, there are also vCPUs enough that its p99 holds (Erlang C). `price` is the new type's month; the saving
    stands in the reasons. `choice` is the current type where nothing cheaper will do. Raises UserError for a type that
    the catalogue does not hold or price, and a goal out of reach.
    """
    entry = instance(current)
    if entry is None or entry.price_usd_per_hour is None:
        raise UserError(
            f"the catalogue holds no price of {current!r}; give a type such as c5.xlarge that it prices."
        )
    if not 0 < most_busy <= 1:
        raise UserError(f"most_busy is {most_busy!r}; it is a share: give 0 < most_busy <= 1.")
    peak = float(np.quantile(usage.busy_share, QUANTILE))
    memory = entry.memory.value
    if usage.memory_gib is not None:
        # What was used at most must fit: memory that is short is an end, not a delay.
        memory = min(memory, float(np.max(usage.memory_gib)) / most_busy)
    network = 0.0
    if usage.network_gbit_per_s is not None:
        network = float(np.quantile(usage.network_gbit_per_s, QUANTILE))
    if entry.accelerator is not None:
        if service is not None:
            raise UserError(
                "service is judged on vCPUs; leave it out for a type with accelerators."
            )
        found, why = _same_accelerator(entry, peak, memory, network, most_busy)
    else:
        found, why = _vcpus(entry, usage, peak, memory, network, most_busy, service)
    return _decided(entry, found, why, peak, float(np.mean(usage.busy_share)))


def busy_share(outcome: Outcome, servers: int, period_s: float = 300.0) -> NDArray[np.float64]:
    """Busy share of `servers` in each period of a simulation, [N]: what a monitor with that period would report."""
    start = outcome.arrival_s + outcome.wait_s
    end = start + outcome.service_s
    if not len(end):
        raise UserError("no request was served, so nothing was busy; give a longer trace.")
    edges = np.arange(0.0, end.max() + period_s, period_s)
    # Work done until t: each request contributes its elapsed part, by sorted starts and ends.
    order, finished = np.sort(start), np.sort(end)
    started_sum = np.concatenate(([0.0], np.cumsum(order)))
    ended_sum = np.concatenate(([0.0], np.cumsum(finished)))
    begun, done = np.searchsorted(order, edges), np.searchsorted(finished, edges)
    work = (begun * edges - started_sum[begun]) - (done * edges - ended_sum[done])
    return np.clip(np.diff(work) / (servers * period_s), 0.0, 1.0)


def _vcpus(
    entry: Instance,
    usage: Usage,
    peak: float,
    memory: float,
    network: float,
    most_busy: float,
    service: Service | None,
) -> tuple[Sized | None, list[str]]:
    busy = peak * entry.vcpu
    vcpu = max(1, math.ceil(busy / most_busy - 1e-9))
    why = [
        f"p99 of the load: {peak:.0%} of {entry.vcpu} vCPU are {busy:.2g}, which needs {vcpu} at {most_busy:.0%}."
    ]
    if service is not None:
        needed = queueing.fewest_servers(
            service.requests_per_s, service.service_s, service.p99_s, QUANTILE
        )
        held = queueing.response_quantile_s(
            QUANTILE, service.requests_per_s, service.service_s, needed
        )
        why.append(
            f"p99 of the answers: {needed} vCPU give {seconds(held)}, {seconds(service.p99_s)} are wanted."
        )
        vcpu = max(vcpu, needed)
    cpu = limits.processor(entry.family)
    need = Need(
        vcpu=vcpu,
        memory_gib=memory,
        average_cpu=min(1.0, float(np.mean(usage.busy_share)) * entry.vcpu / vcpu),
        network_gbit_per_s=network,
        runs_on_arm=cpu is not None and cpu.architecture == "arm",
    )
    decision = choose_instance(need)
    if decision.choice is not None:
        why += decision.reasons
    return decision.choice, why


def _same_accelerator(
    entry: Instance, peak: float, memory: float, network: float, most_busy: float
) -> tuple[Sized | None, list[str]]:
    count = max(1, math.ceil(peak * entry.accelerator_count / most_busy - 1e-9))
    why = [
        f"p99 of the load: {peak:.0%} of {entry.accelerator_count} accelerators, which needs {count} at {most_busy:.0%}."
    ]
    fitting = [
        other
        for other in instances().values()
        if other.accelerator == entry.accelerator
        and other.accelerator_count >= count
        and other.memory.value >= memory
        and other.network_baseline.value >= network
        and other.price_usd_per_hour is not None
        and other.price_kind == "on-demand"
        and barred(other) is None
    ]
    if not fitting:
        return None, why
    best = min(fitting, key=lambda other: (other.price_usd_per_hour.value, other.name))
    return Sized(best, best.price_usd_per_hour.value, None, 0.0), why


def _decided(
    entry: Instance, found: Sized | None, why: list[str], peak: float, mean: float
) -> Decision[Sized]:
    now = entry.price_usd_per_hour.value + surplus_usd_per_hour(entry, mean)
    stay = Sized(entry, now, None, 0.0)
    if found is None or found.usd_per_hour >= now or found.instance.name == entry.name:
        larger = found is not None and found.usd_per_hour > now
        reason = (
            f"{entry.name} is too small for its own load: {found.instance.name} at {hourly(found.usd_per_hour)} would "
            "hold it."
            if larger
            else f"Nothing cheaper than {entry.name} holds the load ({kind(entry)}, p99 {peak:.0%} busy)."
        )
        rejected = [Rejected(found.instance.name, "dearer", True)] if larger else []
        return Decision(stay, [*why, reason], rejected, Price(now * HOURS_PER_MONTH, "month"))
    saving = (now - found.usd_per_hour) * HOURS_PER_MONTH
    why.append(
        f"{entry.name} costs {hourly(now)}: {dollars(saving)} a month are saved, {1 - found.usd_per_hour / now:.0%}."
    )
    dearer = Rejected(entry.name, f"{hourly(now)} for what {found.instance.name} holds", True)
    price = Price(found.usd_per_hour * HOURS_PER_MONTH, "month")
    return Decision(found, why, [dearer], price)
