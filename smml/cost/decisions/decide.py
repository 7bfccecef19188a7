"""CPU, GPU or Inferentia/Trainium, which EC2 instance type, and how many: the cheapest that does the workload, and why."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from smml.cost.decisions.decide_region import Capacity, offered, spot_refusal
from smml.cost.decisions.decision import (
    Decision,
    Price,
    Rejected,
    amount,
    count,
    dollars,
    hourly,
    seconds,
)
from smml.cost.decisions.standing import Kind, barred, kind, remarks
from smml.cost.decisions.throughput import (
    Infeasible,
    Measurement,
    Rate,
    Unjudged,
    engine,
    inference_rate,
    instances_to_hold,
    training_rate,
)
from smml.cost.decisions.workload import Workload
from smml.data import Instance, instances, limits
from smml.errors import UserError

KINDS: tuple[Kind, ...] = ("cpu", "gpu", "neuron")
_NAMES = {"cpu": "CPU", "gpu": "GPU", "neuron": "Inferentia/Trainium"}


@dataclass(frozen=True)
class Option:
    """`rate.instances` of one type doing the workload: hours of the run or of the month, and what they cost."""

    instance: Instance
    kind: Kind
    rate: Rate
    hours: float
    price: Price
    usd_per_million_tokens: float

    def __str__(self) -> str:
        return f"{self.rate.instances} × {self.instance.name}"


def choose(
    workload: Workload,
    *,
    measured: Mapping[str, Measurement] | None = None,
    kinds: Collection[Kind] = KINDS,
    max_instances: int = 64,
    region: str | None = None,
    capacity: Capacity = "on-demand",
) -> Decision[Option]:
    """The cheapest option of the catalogue that fits, is fast enough, and stays within the budget.

    `measured` holds, by instance type, what one instance was measured to do; elsewhere the roofline times
    `workload.utilization` is taken. Prices are the catalogue's, or those known in `region` for `capacity`.
    A service on spot capacity is refused. Raises UserError for an unknown instance type, kind or region.
    """
    if capacity == "spot" and workload.is_service:
        return Decision(None, [spot_refusal()])
    measured = measured or {}
    if unknown := sorted(set(measured) - set(instances())):
        raise UserError(
            f"measured names {unknown[0]!r}, which the catalogue does not hold; allowed are names such as g6.xlarge."
        )
    if not kinds or not set(kinds) <= set(KINDS):
        raise UserError(
            f"kinds is {list(kinds)}; allowed are {', '.join(KINDS)}; give at least one of these."
        )
    options: list[Option] = []
    refused: dict[str, Infeasible] = {}
    for name, entry in offered(region, capacity).items():
        if kind(entry) not in kinds:
            continue
        try:
            if old := barred(entry):
                raise Infeasible(old)
            options.append(option(entry, workload, measured.get(name), max_instances))
        except Infeasible as reason:
            refused[name] = reason
    ranked = sorted(options, key=lambda one: (one.price.usd, one.rate.instances, one.instance.name))
    budget = math.inf if workload.budget_usd is None else workload.budget_usd
    best = ranked[0] if ranked and ranked[0].price.usd <= budget else None
    rejected = _rejected_kinds(best, ranked, refused, kinds, budget)
    rejected += _rejected_families(best, ranked, refused, budget)
    if best is None:
        return Decision(None, _why_none(workload, ranked, kinds, rejected), rejected)
    return Decision(best, _why(best, workload, rejected), rejected, best.price)


def option(
    instance: Instance,
    workload: Workload,
    measured: Measurement | None = None,
    max_instances: int = 64,
) -> Option:
    """How many of this type the workload needs, for how long, and the price.

    Raises Infeasible where no number up to `max_instances` will do.
    """
    if instance.price_usd_per_hour is None:
        raise Unjudged(f"its price in {instance.region} is unknown")
    if workload.is_service and instance.price_kind == "capacity block":
        raise Infeasible(
            f"sold as Capacity Blocks ({hourly(instance.price_usd_per_hour.value)} in {instance.region}), "
            "reserved ahead for a fixed time; a service needs capacity that stays"
        )
    needed = _needed_rate(workload)
    if workload.purpose == "training":
        rate = _training(instance, workload, needed, measured, max_instances)
    else:
        one = inference_rate(instance, workload, measured)
        number = max(1, math.ceil(needed / one.tokens_per_s))
        if number > max_instances:
            raise Infeasible(
                f"too slow: {number:,} instances would be needed for {amount(needed, 'tokens/s')} at "
                f"{amount(one.tokens_per_s, 'tokens/s')} each, at most {max_instances} are allowed"
            )
        rate = Rate(
            number * one.tokens_per_s, one.bound, number, one.latency_s, one.devices_per_copy
        )
    if workload.is_service:
        hours, load = workload.hours_per_month, needed * workload.average_load / rate.tokens_per_s
        tokens = needed * workload.average_load * hours * 3600
    else:
        run = workload.startup_s + workload.tokens / rate.tokens_per_s
        hours, load, tokens = (
            max(run, limits.limit("ec2_minimum_bill").value) / 3600,
            1.0,
            workload.tokens,
        )
    usd_per_hour = instance.price_usd_per_hour.value + surplus_usd_per_hour(instance, load)
    usd = rate.instances * hours * usd_per_hour
    per = "month" if workload.is_service else "job"
    return Option(instance, kind(instance), rate, hours, Price(usd, per), usd / tokens * 1e6)


def surplus_usd_per_hour(instance: Instance, load: float) -> float:
    """What a burstable instance costs beyond its price when its vCPUs are busy for the mean share `load`."""
    baseline = limits.burst_baseline(instance.name)
    if baseline is None:
        return 0.0
    return max(0.0, load - baseline.value) * instance.vcpu * limits.limit("t3_surplus_price").value


def _needed_rate(workload: Workload) -> float:
    if workload.is_service:
        return workload.tokens_per_s
    if workload.deadline_hours is None:
        return 0.0
    left = workload.deadline_hours * 3600 - workload.startup_s
    if left <= 0:
        raise Infeasible(
            f"start-up takes {seconds(workload.startup_s)}, the deadline is {workload.deadline_hours:g} h"
        )
    return workload.tokens / left


def _training(
    instance: Instance,
    workload: Workload,
    needed: float,
    measured: Measurement | None,
    max_instances: int,
) -> Rate:
    fewest = instances_to_hold(instance, workload)
    if fewest > max_instances:
        training_rate(instance, workload, max_instances, measured)  # raises: it does not fit
    for number in range(fewest, max_instances + 1):
        rate = training_rate(instance, workload, number, measured)
        if rate.tokens_per_s >= needed:
            return rate
    raise Infeasible(
        f"too slow: {max_instances} instances reach {amount(rate.tokens_per_s, 'tokens/s')}, {rate.bound}-bound, "
        f"the deadline needs {amount(needed, 'tokens/s')}"
    )


def _dearer(one: Option, best: Option | None, budget: float) -> str:
    if best is None:
        return f"over budget: {one} cost {one.price}, the budget is {dollars(budget)}"
    ratio = one.price.usd / best.price.usd
    return f"feasible with {one}, but {one.price} is {ratio:.3g} times the price of {best}"


def _rejected_kinds(
    best: Option | None,
    ranked: list[Option],
    refused: Mapping[str, Infeasible],
    kinds: Collection[Kind],
    budget: float,
) -> list[Rejected]:
    found = []
    for which in KINDS:
        if which not in kinds or (best and best.kind == which):
            continue
        feasible = next((one for one in ranked if one.kind == which), None)
        if feasible is not None:
            found.append(Rejected(which, _dearer(feasible, best, budget), best is not None))
        else:
            names = [name for name in refused if kind(instances()[name]) == which]
            found.append(Rejected(which, f"none will do; {_nearest(names, refused)}"))
    return found


def _rejected_families(
    best: Option | None, ranked: list[Option], refused: Mapping[str, Infeasible], budget: float
) -> list[Rejected]:
    found = []
    families: dict[str, list[str]] = {}
    for name in [one.instance.name for one in ranked] + list(refused):
        families.setdefault(name.split(".")[0], []).append(name)
    for family in sorted(families):
        if best is not None and best.instance.family == family:
            continue
        feasible = next((one for one in ranked if one.instance.family == family), None)
        if feasible is not None:
            found.append(Rejected(family, _dearer(feasible, best, budget), best is not None))
        else:
            found.append(Rejected(family, _nearest(families[family], refused)))
    return found


def _nearest(names: list[str], refused: Mapping[str, Infeasible]) -> str:
    """The reason of the largest type that is neither barred nor unjudged: what stands in the way even there."""

    def size(name: str) -> tuple[bool, bool, float]:
        entry = instances()[name]
        price = entry.price_usd_per_hour.value if entry.price_usd_per_hour else 0.0
        return barred(entry) is None, not isinstance(refused[name], Unjudged), price

    largest = max(names, key=size)
    return f"{largest}: {refused[largest]}"


def _why(best: Option, workload: Workload, rejected: list[Rejected]) -> list[str]:
    unit, rate, entry = engine(best.instance, workload), best.rate, best.instance
    needed, price = _needed_rate(workload), entry.price_usd_per_hour
    others = [
        f"{_NAMES[which]} is {'dearer' if loser.feasible else 'out'}: {loser.why}"
        for which in KINDS
        for loser in rejected
        if loser.option == which
    ]
    how = f"{rate.bound}-bound, {workload.utilization:.0%} of the roof assumed"
    copy = (
        f", a model copy on {count(rate.devices_per_copy, 'device')}"
        if rate.devices_per_copy
        else ""
    )
    reasons = [
        f"Cost: {_NAMES[best.kind]} is the cheapest that does it. "
        + ". ".join(others)
        + ("." if others else ""),
        f"Complexity: {amount(workload.parameters, 'parameters')} and {amount(workload.token_flops, 'FLOP')} a token; "
        f"{amount(workload.memory_bytes, 'B')} are held by {count(rate.instances * unit.devices, 'device')} of "
        f"{amount(unit.memory_bytes, 'B')} ({unit.name}){copy}.",
        f"Volume: {amount(needed, 'tokens/s') if needed else 'no certain rate'} needed, with {best} "
        f"{amount(rate.tokens_per_s, 'tokens/s')} ({'as measured' if rate.bound == 'measured' else how}).",
    ]
    if workload.latency_s is not None:
        reasons.append(
            f"Time: {seconds(rate.latency_s)} a token, {seconds(workload.latency_s)} wanted."
        )
    elif not workload.is_service:
        limit = (
            "no deadline"
            if workload.deadline_hours is None
            else f"deadline {workload.deadline_hours:g} h"
        )
        start = f"{seconds(workload.startup_s)} of it start-up"
        reasons.append(f"Time: {seconds(best.hours * 3600)}, {start}; {limit}.")
    credits = ""
    if (baseline := limits.burst_baseline(entry.name)) is not None:
        extra = best.price.usd / (rate.instances * best.hours) - price.value
        credits = f" and {hourly(max(0.0, extra))} of CPU credits for load above {baseline.value:.0%} of its vCPUs"
    reasons.append(
        f"Price: {rate.instances} × {hourly(price.value)} (of {price.date}, {entry.region}){credits}, × {best.hours:,.2f} h "
        f"= {best.price}, {dollars(best.usd_per_million_tokens)} per million tokens."
    )
    return reasons + remarks(entry)


def _why_none(
    workload: Workload, ranked: list[Option], kinds: Collection[Kind], rejected: list[Rejected]
) -> list[str]:
    if ranked:
        first = ranked[0]
        return [
            f"Over budget: the cheapest that does it, {first}, costs {first.price}, the budget is "
            f"{dollars(workload.budget_usd)}."
        ]
    return [
        f"No {_NAMES[loser.option]}: {loser.why}." for loser in rejected if loser.option in kinds
    ]
