"""Which way to buy an EC2 type: the cheapest that the demand, the region and the terms allow, and why not the others."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from smml.cost.buying.break_even import crossing, line
from smml.cost.buying.demand import Demand, horizon_hours
from smml.cost.buying.options import (
    CapacityBlock,
    CashFlow,
    Commitment,
    OnDemand,
    Option,
    Spot,
    spot_goodput,
)
from smml.cost.buying.owned import Owned
from smml.cost.decisions.decision import HOURS_PER_MONTH, Decision, Price, Rejected, dollars, hourly
from smml.cost.decisions.standing import barred
from smml.data import Quantity, instance, instances
from smml.data.prices import prices, regions
from smml.data.purchase_terms import block_offer, rule, term
from smml.data.spot_history import interruption_rate, spot_history
from smml.errors import UserError

_PLANS = {
    "savings-plan-compute": "compute savings plan",
    "savings-plan-instance": "instance savings plan",
    "reserved": "reserved instances",
}
# Fleets beyond this are tried at evenly spaced sizes of the commitment.
_SIZES = 48


@dataclass(frozen=True)
class Interruptible:
    """Work that survives a loss: seconds to write a checkpoint, and from the loss to the first new step.

    `taken_back` is the share of such instances that are lost in a month; None: the upper end of the recorded band.
    """

    checkpoint_s: float
    restart_s: float
    taken_back: float | None = None

    def __post_init__(self) -> None:
        if self.taken_back is not None and not 0 <= self.taken_back < 1:
            raise UserError(
                f"taken_back is {self.taken_back!r}; it is a share of the instances in a month: give 0 to below 1."
            )


@dataclass(frozen=True)
class Purchase:
    """An option for a demand over `months`: its payments and what they are worth today in USD."""

    option: Option
    months: float
    flow: CashFlow
    usd: float

    def __str__(self) -> str:
        of = f" for {self.option.instances}" if isinstance(self.option, Commitment) else ""
        return f"{self.option.name}{of}"


def choose_purchase(
    instance_type: str,
    demand: Demand,
    months: float,
    *,
    region: str = "us-east-1",
    interruptible: Interruptible | None = None,
    owned: Owned | None = None,
    discount_rate: float = 0.0,
) -> Decision[Purchase]:
    """The cheapest way to have `instance_type` in `region` for a demand over `months`.

    `interruptible` None: the work may not be interrupted. `owned`: servers of one's own, each doing the work of one
    instance. Prices from smml.data.prices; an offer without a sourced price is left out and said so.
    Raises UserError for an unknown type or region, an empty demand, or a horizon of 0 or less.
    """
    known = instance(instance_type)
    if known is None:
        near = [name for name in instances() if name.split(".")[0] == instance_type.split(".")[0]]
        raise UserError(
            f"the catalogue does not hold {instance_type!r}; allowed are names such as "
            f"{', '.join(near or ['g6.xlarge', 'p5.48xlarge'])}."
        )
    if region not in regions():
        raise UserError(
            f"no price is known in {region!r}; known are {', '.join(regions())}; give one of these."
        )
    horizon_hours(months)
    if not demand.peak:
        raise UserError("the demand is 0 in every hour; nothing needs to be bought.")
    feasible: list[Purchase] = []
    rejected: list[Rejected] = []
    if old := barred(known):
        rejected.append(Rejected(instance_type, old))
    else:
        for name, option in _offers(instance_type, region, demand, months, interruptible):
            if isinstance(option, str):
                rejected.append(Rejected(name, option))
            else:
                _try(option, demand, months, discount_rate, feasible, rejected)
    if owned is None:
        rejected.append(
            Rejected("owned", "no server was given; its price and running costs are yours to state")
        )
    else:
        _try(owned, demand, months, discount_rate, feasible, rejected)
    return _decided(feasible, rejected, demand, months, region, discount_rate)


def _offers(
    name: str, region: str, demand: Demand, months: float, interruptible: Interruptible | None
) -> Iterator[tuple[str, Option | str]]:
    """Each offer by name: an option to be priced, or the reason why it is none."""
    held = {row.kind: row.price for row in prices(region=region) if row.item == name}
    absent = f"no sourced price of {name} in {region}"
    demanded = held.get("on-demand")
    yield "on-demand", OnDemand(demanded.value) if demanded else absent
    yield "spot", _spot(name, region, held.get("spot"), demand, interruptible)
    for kind in _PLANS:
        terms = [entry for entry in held if entry.startswith(kind)]
        if not terms:
            yield _PLANS[kind], absent
        for entry in terms:
            yield entry, _commitment(entry, held[entry], demanded, demand, months)
    offer, block = block_offer(name), held.get("capacity-block")
    if offer is None:
        yield "capacity block", f"{name} has no Capacity Blocks"
    elif region not in offer.regions:
        yield (
            "capacity block",
            (
                f"{region} has no Capacity Blocks of {name} (as of {offer.date}); {', '.join(offer.regions)} have"
            ),
        )
    else:
        yield "capacity block", CapacityBlock(block.value) if block else absent


def _spot(
    name: str, region: str, price: Quantity | None, demand: Demand, work: Interruptible | None
) -> Option | str:
    if work is None:
        return f"the work may not be interrupted, and {rule('spot_interrupted').says}"
    usd = price.value if price else _recorded_spot(name, region)
    if usd is None:
        return f"no recorded spot price of {name} in {region}"
    share = work.taken_back
    if share is None:
        try:
            share = min(interruption_rate(name, region).high, 0.999)
        except UserError:
            return f"no source says how often {name} is taken back in {region}; give taken_back, your own figure"
    goodput = spot_goodput(
        -math.log1p(-share) / HOURS_PER_MONTH,
        work.checkpoint_s,
        work.restart_s,
        math.ceil(demand.peak),
    )
    if demand.utilization > goodput:
        return (
            f"of its hours {goodput:.1%} count when {share:.0%} of the instances are taken back in a month; "
            f"the work fills {demand.utilization:.1%} of every month: it would not be done in time"
        )
    return Spot(usd, goodput)


def _recorded_spot(name: str, region: str) -> float | None:
    """Median over the zones of the newest recorded price of each; None where none is held."""
    newest = {
        row.zone_id: row
        for row in spot_history()
        if (row.instance_type, row.region) == (name, region)
    }
    return median(row.price.value for row in newest.values()) if newest else None


def _commitment(
    kind: str, price: Quantity, demanded: Quantity | None, demand: Demand, months: float
) -> Option | str:
    years = {"1y": "savings_plan_short_term", "3y": "savings_plan_long_term"}[kind[-2:]]
    term_months = round(term(years).value * 12)
    rate = demanded.value if demanded else None
    peak = math.ceil(demand.peak - 1e-9)
    sizes = sorted({max(1, round(peak * (step + 1) / _SIZES)) for step in range(_SIZES)})
    options = [
        Commitment(kind, price.value, rate, term_months, size)
        for size in (sizes if rate else [peak])
    ]
    return min(options, key=lambda option: option.cash_flow(demand, months).usd)


def _try(
    option: Option,
    demand: Demand,
    months: float,
    discount_rate: float,
    feasible: list[Purchase],
    rejected: list[Rejected],
) -> None:
    try:
        flow = option.cash_flow(demand, months)
    except UserError as error:
        rejected.append(Rejected(option.name, str(error)))
    else:
        feasible.append(Purchase(option, months, flow, flow.present_usd(discount_rate)))


def _decided(
    feasible: list[Purchase],
    rejected: list[Rejected],
    demand: Demand,
    months: float,
    region: str,
    discount_rate: float,
) -> Decision[Purchase]:
    if not feasible:
        return Decision(None, [f"{one.option}: {one.why}." for one in rejected], rejected)
    ranked = sorted(feasible, key=lambda one: (one.usd, one.option.name))
    best = ranked[0]
    for one in ranked[1:]:
        ratio = one.usd / best.usd if best.usd > 0 else math.inf
        why = f"feasible, but {dollars(one.usd)} is {ratio:.3g} times the price of {best}"
        if one.flow.idle_share > 0.01:
            why += f"; {one.flow.idle_share:.0%} of its paid hours do no work that counts"
        rejected.append(Rejected(one.option.name, why, feasible=True))
    flow, today = best.flow, f", worth {dollars(best.usd)} today" if discount_rate else ""
    reasons = [
        f"Cost: {dollars(flow.usd)} over {months:g} months in {region}{today}; "
        f"{flow.paid_hours:,.0f} hours paid, {flow.used_hours:,.0f} used, {hourly(flow.usd / flow.used_hours)} used.",
        f"Demand: {demand.hours_per_month:,.0f} instance-hours a month, at most {demand.peak:g} at once, "
        f"{demand.utilization:.0%} of that peak on average.",
    ]
    reasons += _risks(best)
    turn = _turn(best, ranked, demand, months)
    return Decision(best, reasons + turn, rejected, Price(best.usd / months, "month"))


def _risks(best: Purchase) -> list[str]:
    option, months = best.option, best.months
    if isinstance(option, Commitment):
        kept = rule("commitment_kept" if "savings" in option.name else "commitment_hourly").says
        return [
            f"Terms: paid for {option.term_months} months at least, whatever is used in {months:g}; {kept}."
        ]
    if isinstance(option, CapacityBlock):
        bought = [payment.what for payment in best.flow.payments]
        return [
            f"Blocks: {', '.join(bought[:3])}{' …' if len(bought) > 3 else ''} ({len(bought)} in all), for hours that "
            "lie as the demand says: together, where only hours a month are given.",
            f"Terms: {rule('capacity_block_upfront').says}.",
        ]
    if isinstance(option, Spot):
        says = rule("spot_interrupted").says
        return [f"Terms: {says}; {option.goodput:.1%} of the paid time counts."]
    return []


def _turn(best: Purchase, ranked: list[Purchase], demand: Demand, months: float) -> list[str]:
    """At how many hours a month of one instance the choice and on demand change places."""
    rent = next((one.option for one in ranked if isinstance(one.option, OnDemand)), None)
    if rent is None or demand.peak > 1 or isinstance(best.option, CapacityBlock | OnDemand | Spot):
        return []
    if isinstance(best.option, Owned) and months > best.option.life_months:
        return []
    if isinstance(best.option, Commitment) and months % best.option.term_months:
        return []
    hours = crossing(line(rent), line(best.option, months))
    if hours is None:
        return []
    return [
        f"Turning point: below {hours:,.0f} hours a month ({hours / HOURS_PER_MONTH:.0%}) on demand is cheaper."
    ]
