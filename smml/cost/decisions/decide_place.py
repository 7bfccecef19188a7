"""Hardware of one's own or AWS: what is excluded first, then what machines cost over the horizon, with the break-even."""

import math
from dataclasses import dataclass
from typing import Literal

from smml.cost.decisions.decision import HOURS_PER_MONTH, Decision, Price, Rejected, count, dollars
from smml.errors import UserError

Place = Literal["own hardware", "AWS"]


@dataclass(frozen=True)
class Placement:
    """Machines that a workload needs, what one costs here and there, and what is not for sale. UserError names the field.

    mean_machines            at work on average over the month; peak_machines at the busiest moment
    usd_per_hour             of one rented machine, from the moment it starts to the moment it stops
    own_purchase_usd         of one machine like it; own_usd_per_month for power, space and people, busy or idle
    own_lifetime_months      after which it is bought again; horizon_months that the workload will last
    needed_in_days           from now; own_delivery_days until a machine of one's own stands and runs
    data_must_stay           in a place that AWS is not: residency, or a contract
    shapes_hardware          firmware, topology or devices that no instance type has
    managed                  shared environments, integrated identity and audit are wanted as a service
    """

    mean_machines: float
    peak_machines: float
    usd_per_hour: float
    own_purchase_usd: float
    own_usd_per_month: float
    own_lifetime_months: float = 48
    horizon_months: float = 36
    needed_in_days: float | None = None
    own_delivery_days: float = 60
    data_must_stay: bool = False
    shapes_hardware: bool = False
    managed: bool = False

    def __post_init__(self) -> None:
        for name in (
            "mean_machines",
            "peak_machines",
            "usd_per_hour",
            "own_purchase_usd",
            "own_lifetime_months",
            "horizon_months",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)!r}; give a number above 0.")
        for name in ("own_usd_per_month", "own_delivery_days"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)!r}; give 0 or more.")
        if self.peak_machines < self.mean_machines:
            raise UserError(
                f"peak_machines is {self.peak_machines:g} and mean_machines is {self.mean_machines:g}: a peak is no less "
                "than the mean; give both anew."
            )
        if self.needed_in_days is not None and not self.needed_in_days >= 0:
            raise UserError(f"needed_in_days is {self.needed_in_days!r}; give 0 or more, or None.")


def rented_usd(wanted: Placement) -> float:
    """USD over the horizon on AWS: the machines at work, by the hour."""
    return wanted.mean_machines * wanted.usd_per_hour * HOURS_PER_MONTH * wanted.horizon_months


def own_usd(wanted: Placement) -> float:
    """USD over the horizon on hardware of one's own: as many machines as the peak needs, bought whole, busy or idle."""
    machines = math.ceil(wanted.peak_machines)
    purchases = math.ceil(wanted.horizon_months / wanted.own_lifetime_months)
    running = wanted.own_usd_per_month * wanted.horizon_months
    return machines * (purchases * wanted.own_purchase_usd + running)


def break_even_months(wanted: Placement) -> float | None:
    """Months after which the first purchase has paid off; None if it never does within its lifetime."""
    machines = math.ceil(wanted.peak_machines)
    rent = wanted.mean_machines * wanted.usd_per_hour * HOURS_PER_MONTH
    saved = rent - machines * wanted.own_usd_per_month
    if saved <= 0:
        return None
    months = machines * wanted.own_purchase_usd / saved
    return months if months <= wanted.own_lifetime_months else None


def choose_place(wanted: Placement) -> Decision[Place]:
    """Own hardware or AWS. What cannot be had in one place decides; only then the cheaper one does.

    Price is a month of the horizon. Raises UserError where both places are excluded.
    """
    own, rented = own_usd(wanted), rented_usd(wanted)
    months = break_even_months(wanted)
    costs = (
        f"over {wanted.horizon_months:g} months {count(math.ceil(wanted.peak_machines), 'machine')} of one's own cost "
        f"{dollars(own)}, {wanted.mean_machines:g} rented on average {dollars(rented)}"
    )
    turn = (
        "buying never pays within a machine's lifetime"
        if months is None
        else f"buying pays after {months:.3g} months"
    )
    against = {"AWS": _not_on_aws(wanted), "own hardware": _not_owned(wanted)}
    if against["AWS"] and against["own hardware"]:
        raise UserError(
            f"nothing will do: {against['AWS']} excludes AWS, {against['own hardware']} excludes own hardware; relax one."
        )
    if against["AWS"]:
        place, why = "own hardware", f"{_sentence(against['AWS'])}: that excludes AWS."
    elif against["own hardware"]:
        place, why = "AWS", f"{_sentence(against['own hardware'])}: that excludes own hardware."
    elif own < rented:
        place, why = "own hardware", f"Cheaper: {costs}."
    else:
        place, why = "AWS", f"Cheaper: {costs}."
    usd = own if place == "own hardware" else rented
    other: Place = "AWS" if place == "own hardware" else "own hardware"
    reasons = [why, f"{_sentence(turn)}; {costs}."]
    lost = Rejected(other, against[other] or costs, feasible=not against[other])
    return Decision(place, reasons, [lost], Price(usd / wanted.horizon_months, "month"))


def _not_on_aws(wanted: Placement) -> str:
    if wanted.data_must_stay:
        return "the data must stay where AWS is not"
    return "hardware must be shaped as no instance type is" if wanted.shapes_hardware else ""


def _not_owned(wanted: Placement) -> str:
    if wanted.needed_in_days is not None and wanted.needed_in_days < wanted.own_delivery_days:
        return (
            f"it is needed in {wanted.needed_in_days:g} days, a machine of one's own stands after "
            f"{wanted.own_delivery_days:g}"
        )
    if wanted.managed:
        return "shared environments, identity and audit are wanted as a service"
    return ""


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
