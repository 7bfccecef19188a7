"""A month of a service in all: hours in use, idle and lost, the weights that lie there, the answers that leave."""

from smml.cost.decisions.decision import HOURS_PER_MONTH
from smml.cost.units.bill import Bill
from smml.cost.units.stored import StoragePrices
from smml.cost.units.utilization import PaidHours
from smml.errors import UserError


def service_month(
    hour: PaidHours,
    prices: StoragePrices,
    *,
    weights_bytes: float,
    sent_bytes: float,
    hours: float = HOURS_PER_MONTH,
) -> Bill:
    """USD of a month by part: the hour's, `hours` times over; `weights_bytes` kept, `sent_bytes` sent in the month.

    Raises UserError naming the field.
    """
    for name, value in {"weights_bytes": weights_bytes, "sent_bytes": sent_bytes}.items():
        if not value >= 0:
            raise UserError(f"{name} is {value!r}; give 0 or more.")
    if not 0 < hours <= HOURS_PER_MONTH:
        raise UserError(
            f"hours is {hours!r}; a month has {HOURS_PER_MONTH:g}: give above 0, at most that."
        )
    machines = {part: usd * hours for part, usd in hour.bill.parts.items()}
    # Weights stay in storage while no machine runs.
    return Bill(
        machines
        | {
            "weights storage": prices.keeping(weights_bytes * HOURS_PER_MONTH),
            "transfer": prices.sending(sent_bytes),
        }
    )
