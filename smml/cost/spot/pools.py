"""Count capacity pools: one instance type (family × size) in one Availability Zone of one region, with its own spare capacity.

Prices and capacity of a pool change with time, so that a job that can wait has every pool again at every hour. What a
region offers is what the EC2 API said of it (smml.data.offerings), not what has capacity today.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from smml.data.offerings import offerings
from smml.errors import UserError


@dataclass(frozen=True, order=True)
class Pool:
    """A capacity pool; zones by ID (use1-az1), which name the same zone in every account."""

    region: str
    zone_id: str
    instance_type: str

    def __str__(self) -> str:
        return f"{self.instance_type} in {self.zone_id}"


@dataclass(frozen=True)
class Step:
    """How many pools a choice leaves open."""

    families: tuple[str, ...]
    sizes: tuple[str, ...]
    zones: tuple[str, ...]
    pools: int


def pools(region: str, types: Sequence[str], zones: Sequence[str] | None = None) -> list[Pool]:
    """The pools of those types in those zones of the region (all its zones where None), as far as they are offered.

    Raises UserError for a region or a zone that is not known, and for a type that the region does not offer anywhere.
    """
    held = offerings(region)
    zones = list(held) if zones is None else list(zones)
    if unknown := [zone for zone in zones if zone not in held]:
        raise UserError(
            f"{region} has no zone {unknown[0]!r}; it has {', '.join(held)}; give one of these."
        )
    offered = {name for names in held.values() for name in names}
    if unknown := [name for name in types if name not in offered]:
        family = unknown[0].split(".")[0]
        beside = sorted(name for name in offered if name.split(".")[0] == family)
        known = beside or sorted({name.split(".")[0] for name in offered})
        raise UserError(
            f"{unknown[0]!r} is not offered in {region}; offered are {', '.join(known)}; give one of these."
        )
    return [
        Pool(region, zone, name)
        for name in dict.fromkeys(types)
        for zone in dict.fromkeys(zones)
        if name in held[zone]
    ]


def staircase(
    region: str, families: Sequence[str], sizes: Sequence[str], zones: Sequence[str]
) -> list[Step]:
    """Pools of the first family in the first zone, then in all zones, then with each further family; raises UserError."""
    for name, values in (("families", families), ("sizes", sizes), ("zones", zones)):
        if not values:
            raise UserError(f"{name} is empty: give one or more.")
    choices = [(families[:1], zones[:1])]
    choices += [(families[: number + 1], zones) for number in range(len(families))]
    return [
        Step(
            tuple(chosen),
            tuple(sizes),
            tuple(where),
            len(pools(region, [f"{family}.{size}" for family in chosen for size in sizes], where)),
        )
        for chosen, where in choices
    ]
