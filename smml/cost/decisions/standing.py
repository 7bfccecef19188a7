"""How an instance type stands today: offered or withdrawn, its software supported or not, and what succeeds it."""

import datetime
from functools import lru_cache
from typing import Literal

from smml.data import Instance, accelerators, instances, limits

Kind = Literal["cpu", "gpu", "neuron"]


def kind(instance: Instance) -> Kind:
    """What computes: the CPU, a GPU, or Inferentia/Trainium ("neuron", after their compiler)."""
    if instance.accelerator is None:
        return "cpu"
    return "neuron" if accelerators()[instance.accelerator].vendor == "AWS" else "gpu"


@lru_cache
def offerings_date() -> datetime.date:
    """Day of the newest offerings that the catalogue was read from."""
    return max(entry.memory.date for entry in instances().values())


def barred(instance: Instance) -> str | None:
    """Why the type should not be chosen any more, with the dates and its successor; None while it may be."""
    if instance.status == "withdrawn":
        reason = (
            f"withdrawn: last described by the EC2 API on {instance.memory.date}, "
            f"in no region's offerings of {offerings_date()}"
        )
    elif instance.accelerator == "inferentia1":
        ended = limits.fact("inf1_software")
        reason = (
            f"{ended.says} (as of {ended.date}), though it was still offered on {offerings_date()}"
        )
    else:
        return None
    heir = successor(instance)
    return reason + (
        f"; successor: {heir.name}" if heir else "; nothing in the catalogue succeeds it"
    )


def successor(instance: Instance) -> Instance | None:
    """The cheapest usable type, per accelerator-hour, whose accelerator is of the same kind and in nothing less.

    "Nothing" is memory, bandwidth and every dense peak that the old one states. None for types without accelerator.
    """
    if instance.accelerator is None:
        return None
    old = accelerators()[instance.accelerator]
    heirs = []
    for entry in instances().values():
        price = entry.price_usd_per_accelerator_hour
        usable = entry.status != "withdrawn" and entry.accelerator not in (
            None,
            "inferentia1",
            old.key,
        )
        if price is None or not usable or kind(entry) != kind(instance):
            continue
        new = accelerators()[entry.accelerator]
        more = new.memory.value >= old.memory.value and new.bandwidth.value >= old.bandwidth.value
        peaks = (
            (new.peak_flops(dtype), peak.value) for dtype, peak in old.dense_peak_flops.items()
        )
        if more and all(found is not None and found.value >= needed for found, needed in peaks):
            heirs.append((price, entry.accelerator_count, entry.name, entry))
    return min(heirs)[-1] if heirs else None


def remarks(instance: Instance) -> list[str]:
    """What a buyer should know of a usable type: an older generation, a price that is no on-demand price."""
    found = []
    if instance.status == "previous generation":
        found.append(
            f"{instance.family} is of the previous generation (EC2 API, {instance.memory.date}), still offered."
        )
    if instance.price_kind == "capacity block":
        found.append(
            f"{instance.name} is priced as a Capacity Block in {instance.region}, reserved and paid in advance."
        )
    return found
