"""Which EC2 type for given vCPUs, memory, network and accelerators: the cheapest, and which resource binds.

A resource binds when the cheapest type would cost less without that requirement: the saving is its shadow price.
"""

from dataclasses import dataclass, replace
from typing import Literal

from smml.cost.decisions.decide import surplus_usd_per_hour
from smml.cost.decisions.decision import HOURS_PER_MONTH, Decision, Price, Rejected, hourly
from smml.cost.decisions.standing import Kind, barred, kind, remarks
from smml.data import Instance, accelerators, instances, limits
from smml.errors import UserError

Resource = Literal["compute", "memory", "network", "accelerator", "burst"]


@dataclass(frozen=True)
class Need:
    """What one machine must have. Raises UserError naming the field.

    average_cpu is the mean share of the needed vCPUs that is busy; below its baseline a burstable type costs no more
    than its price. network is what lasts, not a burst. accelerator_memory_bytes is of each accelerator.
    """

    vcpu: int = 1
    memory_gib: float = 0.5
    average_cpu: float = 1.0
    network_gbit_per_s: float = 0.0
    accelerator: Kind = "cpu"
    accelerators: int = 0
    accelerator_memory_bytes: float = 0.0
    runs_on_arm: bool = True

    def __post_init__(self) -> None:
        for name in ("vcpu", "memory_gib"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)!r}; give a number above 0.")
        for name in ("network_gbit_per_s", "accelerator_memory_bytes", "accelerators"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)!r}; give 0 or more.")
        if not 0 <= self.average_cpu <= 1:
            raise UserError(f"average_cpu is {self.average_cpu!r}; it is a share: give 0 to 1.")
        if self.accelerator not in ("cpu", "gpu", "neuron"):
            raise UserError(
                f"accelerator is {self.accelerator!r}; allowed are cpu, gpu, neuron; give one of these."
            )
        if (self.accelerator == "cpu") != (self.accelerators == 0):
            raise UserError(
                f"accelerator is {self.accelerator!r} and accelerators is {self.accelerators}: "
                "give 'gpu' or 'neuron' with 1 or more, or 'cpu' with 0."
            )


@dataclass(frozen=True)
class Sized:
    """The type, what an hour of it costs with CPU credits, and the resource that binds (None: the cheapest of all)."""

    instance: Instance
    usd_per_hour: float
    binding: Resource | None
    shadow_usd_per_hour: float

    def __str__(self) -> str:
        return self.instance.name


# What is left of a need when one resource is no matter.
_RELAXED: dict[Resource, dict] = {
    "compute": {"vcpu": 1},
    "memory": {"memory_gib": 0.001},
    "network": {"network_gbit_per_s": 0.0},
    "accelerator": {"accelerator": "cpu", "accelerators": 0, "accelerator_memory_bytes": 0.0},
    "burst": {"average_cpu": 0.0},
}


def choose_instance(need: Need, hours_per_month: float = HOURS_PER_MONTH) -> Decision[Sized]:
    """The cheapest type that has everything needed, the resource that binds, and a reason for each other family.

    Types that carry accelerators are considered only when accelerators are needed, on-demand prices only.
    """
    costs: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name, entry in instances().items():
        lacking = _lacking(entry, need)
        if lacking is None:
            costs[name] = _usd_per_hour(entry, need)
        else:
            refused[name] = lacking
    if not costs:
        return Decision(
            None, ["No type of the catalogue has all that is needed."], _rejected(None, {}, refused)
        )
    best = min(costs, key=lambda name: (costs[name], name))
    shadows = {
        resource: costs[best] - _cheapest(replace(need, **change))
        for resource, change in _RELAXED.items()
    }
    binding = max(shadows, key=shadows.__getitem__)
    found = Sized(
        instances()[best],
        costs[best],
        binding if shadows[binding] > 0 else None,
        shadows[binding],
    )
    price = Price(costs[best] * hours_per_month, "month")
    return Decision(found, _why(found, need, costs), _rejected(best, costs, refused), price)


def _lacking(entry: Instance, need: Need) -> str | None:
    """What the type lacks, with both numbers; None if nothing."""
    if old := barred(entry):
        return old
    if entry.price_usd_per_hour is None or entry.price_kind != "on-demand":
        return "no on-demand price is listed"
    if kind(entry) != need.accelerator:
        return f"{entry.name} computes with {kind(entry)}, {need.accelerator} is needed"
    cpu = limits.processor(entry.family)
    if not need.runs_on_arm and cpu is not None and cpu.architecture == "arm":
        return f"{cpu.processor} is an Arm processor, x86 is needed"
    checks = [
        ("vCPU", entry.vcpu, need.vcpu),
        ("GiB of memory", entry.memory.value, need.memory_gib),
        ("Gbit/s lasting", entry.network_baseline.value, need.network_gbit_per_s),
        ("accelerators", entry.accelerator_count, need.accelerators),
    ]
    if entry.accelerator is not None:
        held = accelerators()[entry.accelerator].memory.value / 1e9
        checks.append(("GB on each accelerator", held, need.accelerator_memory_bytes / 1e9))
    short = [
        f"{has:g} {what}, needed are {wanted:g}" for what, has, wanted in checks if has < wanted
    ]
    return f"{entry.name} has " + " and ".join(short) if short else None


def _usd_per_hour(entry: Instance, need: Need) -> float:
    load = min(1.0, need.average_cpu * need.vcpu / entry.vcpu)
    return entry.price_usd_per_hour.value + surplus_usd_per_hour(entry, load)


def _cheapest(need: Need) -> float:
    """USD an hour of the cheapest type for the need; infinite if there is none."""
    return min(
        (
            _usd_per_hour(entry, need)
            for entry in instances().values()
            if _lacking(entry, need) is None
        ),
        default=float("inf"),
    )


def _why(found: Sized, need: Need, costs: dict[str, float]) -> list[str]:
    entry = found.instance
    has = f"{entry.vcpu} vCPU, {entry.memory.value:g} GiB, {entry.network_baseline.value:g} Gbit/s lasting"
    if entry.accelerator is not None:
        has += f", {entry.accelerator_count} × {accelerators()[entry.accelerator].name}"
    reasons = [f"{entry.name} is the cheapest that has all: {has}, {hourly(found.usd_per_hour)}."]
    if found.binding is not None:
        reasons.append(
            f"{found.binding.capitalize()} binds: without that requirement the cheapest type would cost "
            f"{hourly(found.usd_per_hour - found.shadow_usd_per_hour)}, "
            f"{hourly(found.shadow_usd_per_hour)} less."
        )
    baseline = limits.burst_baseline(entry.name)
    if baseline is not None:
        load = min(1.0, need.average_cpu * need.vcpu / entry.vcpu)
        lasting = [name for name in costs if limits.burst_baseline(name) is None]
        against = min(lasting, key=costs.__getitem__) if lasting else None
        reasons.append(
            f"Burst: a mean load of {load:.0%} against the baseline of {baseline.value:.0%} of each vCPU costs "
            f"{hourly(surplus_usd_per_hour(entry, load))} of credits"
            + (
                f"; the cheapest that lasts is {against} at {hourly(costs[against])}."
                if against
                else "."
            )
        )
    return reasons + remarks(entry)


def _rejected(best: str | None, costs: dict[str, float], refused: dict[str, str]) -> list[Rejected]:
    families: dict[str, list[str]] = {}
    for name in sorted([*costs, *refused]):
        families.setdefault(name.split(".")[0], []).append(name)
    found = []
    for family, names in families.items():
        if best is not None and best in names:
            continue
        fitting = [name for name in names if name in costs]
        if fitting:
            name = min(fitting, key=costs.__getitem__)
            why = f"{name} would do at {hourly(costs[name])}, {costs[name] / costs[best]:.3g} times the price of {best}"
            found.append(Rejected(family, why, True))
        else:
            largest = max(names, key=lambda name: (instances()[name].memory.value, name))
            found.append(Rejected(family, refused[largest]))
    return found
