"""The EC2 type that stands for this machine, so that what is measured here has a price."""

from dataclasses import dataclass

from smml.cost.decisions.decision import count, hourly
from smml.cost.decisions.instances import Need, choose_instance
from smml.cost.decisions.standing import barred
from smml.cost.decisions.throughput import Measurement
from smml.data import Instance, accelerators, instance, instances
from smml.errors import UserError
from smml.hardware.machine import Machine


@dataclass(frozen=True)
class StandIn:
    """One EC2 type, holding `copies` of the device that was measured here, and why this one."""

    instance: Instance
    copies: int
    why: str

    @property
    def usd_per_hour(self) -> float:
        """What an hour of one device costs: the instance's price over its copies."""
        return self.instance.price_usd_per_hour.value / self.copies

    def measurement(self, tokens_per_s: float, latency_s: float | None = None) -> Measurement:
        """What the whole instance does when one device does `tokens_per_s`: a model copy on each, no loss between."""
        return Measurement(self.copies * tokens_per_s, latency_s)


def stand_in(machine: Machine, device: str) -> StandIn:
    """The type that `machine` is, or that is most like its `device` ("cpu", "cuda"): same accelerator or as many cores.

    Raises UserError where the catalogue holds no such type with an on-demand price.
    """
    itself = instance(machine.ec2.instance_type) if machine.ec2 else None
    if itself is not None and _buyable(itself) and (device == "cpu" or itself.accelerator):
        copies = 1 if device == "cpu" else itself.accelerator_count
        return StandIn(itself, copies, f"This machine is a {itself.name}.{_priced(itself, copies)}")
    return _of_cores(machine) if device == "cpu" else _of_accelerator(machine)


def _of_cores(machine: Machine) -> StandIn:
    x86 = any(name.startswith(("sse", "avx")) for name in machine.cpu.isa)
    cores = machine.cpu.usable_cores
    found = choose_instance(Need(vcpu=cores, runs_on_arm=not x86)).choice
    if found is None:
        raise UserError(
            f"this machine lets {cores} cores be used, more than any type of the catalogue has vCPUs; "
            "limit them with taskset."
        )
    why = (
        f"{found.instance.name} is the cheapest {'x86' if x86 else 'Arm or x86'} type that lasts with "
        f"{count(cores, 'vCPU')}, as many as this machine has cores."
    )
    return StandIn(found.instance, 1, why + _priced(found.instance, 1))


def _of_accelerator(machine: Machine) -> StandIn:
    device = machine.accelerator
    offers = [
        entry
        for entry in instances().values()
        if device is not None and entry.accelerator == device.key and _buyable(entry)
    ]
    if not offers:
        raise UserError(
            f"no EC2 type of the catalogue with an on-demand price carries {machine.device_name}; "
            'use profile="cpu", or run where one does.'
        )
    found = min(
        offers, key=lambda entry: (entry.price_usd_per_accelerator_hour, entry.accelerator_count)
    )
    copies = found.accelerator_count
    why = f"{found.name} is the cheapest type, per accelerator, that carries {accelerators()[device.key].name}."
    return StandIn(found, copies, why + _priced(found, copies))


def _buyable(entry: Instance) -> bool:
    return (
        barred(entry) is None
        and entry.price_usd_per_hour is not None
        and entry.price_kind == "on-demand"
    )


def _priced(entry: Instance, copies: int) -> str:
    price = entry.price_usd_per_hour
    share = "" if copies == 1 else f" for {copies} of them"
    return f" It costs {hourly(price.value)}{share} (of {price.date}, {entry.region})."
