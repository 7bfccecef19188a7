"""FACTS: hardware figures and prices, each with value, unit, source and date; nothing else in the package types one in."""

from smml.data.catalogue import (
    Accelerator,
    Instance,
    Quantity,
    accelerator,
    accelerators,
    age_days,
    instance,
    instances,
    match_accelerator,
)

__all__ = [
    "Accelerator",
    "Instance",
    "Quantity",
    "accelerator",
    "accelerators",
    "age_days",
    "instance",
    "instances",
    "match_accelerator",
]
