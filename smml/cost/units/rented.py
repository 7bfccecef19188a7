"""Instances at the dated price of a region and an offer: spot, on demand, reserved; each price with its source."""

from smml.cost.units.bill import usd
from smml.cost.units.unit_economics import Instances
from smml.data import instance
from smml.data.prices import price
from smml.errors import UserError


def rented(
    type: str, count: int = 1, *, region: str = "us-east-1", kind: str = "on-demand"
) -> Instances:
    """`count` instances of a type at the price that smml.data holds for region and kind.

    Raises UserError for an unknown type or region, for a type without such a price there, and for another currency.
    """
    if instance(type) is None:
        raise UserError(
            f"type is {type!r}, which the catalogue of instances does not hold; give one that "
            "smml.data.instances() names, or Instances with price_usd_per_hour."
        )
    return Instances(type, count, usd(price(type, region, kind), "USD/h", f"the price of {type}"))
