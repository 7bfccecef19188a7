"""What the accelerators of a cluster are offered for: EC2 types that carry its nodes, by kind of offer and region. Pure."""

import datetime
from dataclasses import dataclass

from smml.data import instances
from smml.data.prices import prices
from smml.plan.cluster import Cluster

REGION = "us-east-1"  # looked at first; AWS lists most types there


@dataclass(frozen=True)
class Offer:
    """USD an hour for an EC2 type with `accelerators` of them, and where and when that was read."""

    instance: str
    kind: str
    region: str
    accelerators: int
    usd_per_hour: float
    source: str
    url: str
    date: datetime.date

    @property
    def usd_per_gpu_hour(self) -> float:
        """Of one accelerator."""
        return self.usd_per_hour / self.accelerators

    def usd_per_hour_of(self, gpus: int) -> float:
        """Of as many whole instances as hold `gpus` accelerators."""
        return -(-gpus // self.accelerators) * self.usd_per_hour

    def __str__(self) -> str:
        return f"{self.instance}, {self.kind}, {self.region}"


def offers(place: Cluster) -> list[Offer]:
    """Every offer with a source, the usual one first: on demand, in REGION, then by what the whole cluster costs an hour.

    Of the type that was named, else of all types with this accelerator that are large enough for a node and not
    withdrawn. Empty where none is known.
    """
    fitting = {
        name: entry.accelerator_count
        for name, entry in instances().items()
        if entry.accelerator == place.key
        and place.instance in (None, name)
        and entry.status != "withdrawn"
        and (place.instance or entry.accelerator_count >= min(place.gpus, place.gpus_per_node))
    }
    found = [
        Offer(
            row.item,
            row.kind,
            row.region,
            fitting[row.item],
            row.price.value,
            row.price.source,
            row.price.url,
            row.price.date,
        )
        for row in prices()
        if row.item in fitting and row.price.unit == "USD/h"
    ]
    return sorted(
        found,
        key=lambda offer: (
            offer.kind != "on-demand",
            offer.region != REGION,
            offer.usd_per_hour_of(place.gpus),
            str(offer),
        ),
    )
