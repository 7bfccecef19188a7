"""The types of the catalogue at the prices of one region and offer, so that a decision holds where it will be paid."""

from typing import Literal

from smml.cost.decisions.decision import seconds
from smml.data import Instance, Quantity, instances, limits
from smml.data.prices import prices
from smml.data.spot_history import SpotPrice, spot_history
from smml.errors import UserError

Capacity = Literal["on-demand", "spot"]
CAPACITIES: tuple[Capacity, ...] = ("on-demand", "spot")


def offered(region: str | None = None, capacity: Capacity = "on-demand") -> dict[str, Instance]:
    """Every type by name: as the catalogue prices it where `region` is None, else at the price known in `region`.

    A type with no such price keeps none, and is not judged. Raises UserError for an unknown region or offer, and where
    no type has such a price.
    """
    if capacity not in CAPACITIES:
        raise UserError(
            f"capacity is {capacity!r}; allowed are {', '.join(CAPACITIES)}; give one of these."
        )
    if region is None and capacity == "on-demand":
        return instances()
    where = region or "us-east-1"
    known = {row.item: row.price for row in prices(region=where, kind=capacity)}
    if capacity == "spot":
        known = recorded_spot(where) | known
    if not known.keys() & instances().keys():
        raise UserError(
            f"no {capacity} price of any instance type is known in {where}; take another region, or run "
            "`smml prices refresh`."
        )
    return {
        name: entry.model_copy(
            update={
                "price_usd_per_hour": known.get(name),
                "price_kind": "on-demand",
                "region": where,
            }
        )
        for name, entry in instances().items()
    }


def recorded_spot(region: str) -> dict[str, Quantity]:
    """By type the newest recorded spot price of the zone in the middle, as the history of spot prices holds them."""
    newest: dict[str, dict[str, SpotPrice]] = {}
    for row in sorted(spot_history(), key=lambda row: row.at):
        if row.region == region:
            newest.setdefault(row.instance_type, {})[row.zone_id] = row
    middle = {}
    for name, zones in newest.items():
        by_price = sorted((row.price for row in zones.values()), key=lambda price: price.value)
        middle[name] = by_price[(len(by_price) - 1) // 2]
    return middle


def spot_refusal() -> str:
    """Why nothing that people wait for runs on spot capacity alone."""
    notice = limits.limit("spot_notice")
    return (
        f"Spot capacity is reclaimed {seconds(notice.value)} after a notice ({notice.source.split('(')[0].strip()}), and "
        "somebody waits for each answer: take it for jobs that checkpoint or can be repeated, or beside on-demand "
        "instances that carry the load alone."
    )


def known_instance(name: str) -> Instance:
    """The type of that name in the catalogue; UserError names its nearest."""
    if name in instances():
        return instances()[name]
    from difflib import get_close_matches

    family = [known for known in instances() if known.split(".")[0] == name.split(".")[0]]
    near = family or get_close_matches(name, list(instances()), n=8, cutoff=0.4)
    raise UserError(
        f"the catalogue holds no instance type {name!r}; the nearest are {', '.join(near) or 'none'}; give a name such "
        "as g6.xlarge."
    )
