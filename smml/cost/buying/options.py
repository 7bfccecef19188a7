"""Ways to buy EC2 capacity, and what a demand over a horizon costs under each: on demand, spot, committed, in blocks.

A commitment is paid whether it is used or not; what exceeds it in an hour is billed on demand (terms and sources in
smml/data/purchase_terms.toml). Every option answers with a cash flow: dated payments, hours used and hours paid.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from smml.cost.buying.demand import Demand, horizon_hours
from smml.cost.decisions.decision import HOURS_PER_MONTH
from smml.data.purchase_terms import term
from smml.errors import UserError
from smml.plan.goodput import Reliability, daly_interval_s, expected_goodput

DAY_HOURS = 24


class Payment(NamedTuple):
    """USD that leave (or, below 0, come back) `month` months from now, and for what."""

    month: float
    usd: float
    what: str


@dataclass(frozen=True)
class CashFlow:
    """What an option charges over a horizon: payments, instance-hours of work done, instance-hours paid for."""

    payments: tuple[Payment, ...]
    used_hours: float
    paid_hours: float

    @property
    def usd(self) -> float:
        """Sum of all payments, whenever they fall due."""
        return sum(payment.usd for payment in self.payments)

    @property
    def idle_share(self) -> float:
        """Share of the paid hours that did no work which counts; 0 where nothing is paid."""
        return 1 - self.used_hours / self.paid_hours if self.paid_hours else 0.0

    def present_usd(self, discount_rate: float) -> float:
        """Worth today: each payment ÷ (1 + rate)^years. Raises UserError for a rate of −1 or less."""
        if not discount_rate > -1:
            raise UserError(
                f"discount_rate is {discount_rate!r}; give a share a year above -1, such as 0.08."
            )
        return sum(p.usd / (1 + discount_rate) ** (p.month / 12) for p in self.payments)


class Option(Protocol):
    """A way to have machines: `cash_flow` says what a demand over a horizon costs."""

    @property
    def name(self) -> str: ...

    def cash_flow(self, demand: Demand, months: float) -> CashFlow: ...


@dataclass(frozen=True)
class OnDemand:
    """Paid for the hours that are used, at `usd_per_hour` for one instance."""

    usd_per_hour: float
    name: str = "on-demand"

    def __post_init__(self) -> None:
        _price(usd_per_hour=self.usd_per_hour)

    def cash_flow(self, demand: Demand, months: float) -> CashFlow:
        """Every used hour, paid at the end of its month."""
        load = demand.over(months)
        used = float(load.sum())
        return CashFlow(tuple(by_month(load * self.usd_per_hour, months, "hours")), used, used)


@dataclass(frozen=True)
class Spot:
    """Paid by the hour, taken back at any time: of the paid hours only the share `goodput` is work that counts.

    A demand is met when its hours of such work are done. Raises UserError for a goodput outside 0 < g <= 1.
    """

    usd_per_hour: float
    goodput: float
    name: str = "spot"

    def __post_init__(self) -> None:
        _price(usd_per_hour=self.usd_per_hour)
        if not 0 < self.goodput <= 1:
            raise UserError(
                f"goodput is {self.goodput!r}; it is a share of the paid time: give 0 < goodput <= 1."
            )

    def cash_flow(self, demand: Demand, months: float) -> CashFlow:
        """Used hours ÷ goodput, paid at the end of their month."""
        load = demand.over(months)
        used = float(load.sum())
        usd = load * (self.usd_per_hour / self.goodput)
        return CashFlow(tuple(by_month(usd, months, "hours")), used, used / self.goodput)


def spot_goodput(
    interruptions_per_hour: float, checkpoint_s: float, restart_s: float, instances: int = 1
) -> float:
    """Share of spot time that counts, by Daly's model at his interval; any of `instances` stops the job.

    `restart_s` runs from the loss to the first new step. Raises UserError naming the field.
    """
    if not interruptions_per_hour >= 0:
        raise UserError(f"interruptions_per_hour is {interruptions_per_hour!r}; give 0 or more.")
    if not interruptions_per_hour:
        return 1.0
    mean_s = 3600 / (interruptions_per_hour * instances)
    reliability = Reliability(mean_s, checkpoint_s, restart_s=restart_s)
    return expected_goodput(reliability, daly_interval_s(reliability))


@dataclass(frozen=True)
class Commitment:
    """A savings plan or reserved instances: `instances` paid at `usd_per_hour` each, every hour of `term_months`.

    `upfront_share` of a term is paid when it begins, the rest month by month. The first term is always bought, a later
    one where it is cheaper than on demand for what is left of the horizon. What exceeds the commitment in an hour is
    billed at `on_demand_usd_per_hour`; None: it cannot be had. Raises UserError naming the field.
    """

    name: str
    usd_per_hour: float
    on_demand_usd_per_hour: float | None
    term_months: int
    instances: int = 1
    upfront_share: float = 0.0

    def __post_init__(self) -> None:
        _price(usd_per_hour=self.usd_per_hour)
        if self.on_demand_usd_per_hour is not None:
            _price(on_demand_usd_per_hour=self.on_demand_usd_per_hour)
        if not (self.term_months >= 1 and self.instances >= 1):
            raise UserError(
                f"term_months is {self.term_months!r} and instances is {self.instances!r}; give 1 or more of each."
            )
        if not 0 <= self.upfront_share <= 1:
            raise UserError(f"upfront_share is {self.upfront_share!r}; give a share from 0 to 1.")

    def cash_flow(self, demand: Demand, months: float) -> CashFlow:
        """Whole terms, used or not, and the overflow on demand; raises UserError where that is needed and not sold."""
        load = demand.over(months)
        term_hours = round(self.term_months * HOURS_PER_MONTH)
        term_usd = self.instances * self.usd_per_hour * term_hours
        on_demand = self.on_demand_usd_per_hour
        if on_demand is None and load.max() > self.instances:
            raise UserError(
                f"{self.name} of {self.instances} instances leaves a peak of {load.max():g} uncovered, and no "
                "on-demand price is known for the rest: commit to the peak."
            )
        dearer = np.zeros_like(load)
        payments: list[Payment] = []
        paid = 0.0
        for number, start in enumerate(range(0, load.size, term_hours)):
            part = load[start : start + term_hours]
            over = np.maximum(part - self.instances, 0.0)
            renewed = number == 0 or on_demand is None
            if renewed or term_usd + on_demand * over.sum() < on_demand * part.sum():
                payments += self._term(term_usd, number * self.term_months)
                paid += self.instances * term_hours + float(over.sum())
                dearer[start : start + term_hours] = over
            else:
                paid += float(part.sum())
                dearer[start : start + term_hours] = part
        if on_demand is not None:
            payments += by_month(dearer * on_demand, months, "on demand beside it")
        return CashFlow(tuple(payments), float(load.sum()), paid)

    def _term(self, usd: float, begins: float) -> list[Payment]:
        upfront = (
            [Payment(begins, usd * self.upfront_share, "upfront")] if self.upfront_share else []
        )
        rest = usd * (1 - self.upfront_share) / self.term_months
        if not rest:
            return upfront
        months = range(1, self.term_months + 1)
        return upfront + [Payment(begins + month, rest, "commitment") for month in months]


def best_commitment(demand: Demand, price_ratio: float) -> int:
    """Instances to commit to for whole terms: as many as each save, the last one at work the share `price_ratio`.

    `price_ratio` is the committed price ÷ the on-demand one. The critical ratio of the newsvendor problem (Arrow,
    Harris and Marschak, Econometrica 19(3), 1951): an instance pays when it is used that share of the time.
    """
    if not price_ratio > 0:
        raise UserError(f"price_ratio is {price_ratio!r}; give a number above 0.")
    number = 0
    while np.clip(demand.load - number, 0.0, 1.0).mean() > price_ratio:
        number += 1
    return number


@dataclass(frozen=True)
class CapacityBlock:
    """Instances reserved ahead for whole days, paid when reserved, used or not; no block is longer than 182 days.

    A block begins with the first used hour and lasts until a day without use; its length is rounded up to what is sold
    (days up to 14, then weeks). Durations from smml/data/purchase_terms.toml.
    """

    usd_per_hour: float
    name: str = "capacity block"

    def __post_init__(self) -> None:
        _price(usd_per_hour=self.usd_per_hour)

    def cash_flow(self, demand: Demand, months: float) -> CashFlow:
        """Each block, paid when it begins. Raises UserError for a use too long or too wide for one block."""
        load = demand.over(months)
        payments, paid = [], 0.0
        for start, days, instances in blocks(load):
            hours = instances * days * DAY_HOURS
            paid += hours
            what = f"{instances} × {days} days"
            payments.append(Payment(start / HOURS_PER_MONTH, hours * self.usd_per_hour, what))
        return CashFlow(tuple(payments), float(load.sum()), paid)


def blocks(load: np.ndarray) -> list[tuple[int, int, int]]:
    """(first hour, days, instances) of each Capacity Block that a load [hours] needs, in order.

    Raises UserError where a use without a free day is longer than a block may be, or needs more instances.
    """
    used = np.flatnonzero(load > 0)
    found, covered = [], -1
    longest, most = term("capacity_block_longest").value, term("capacity_block_instances").value
    while (position := int(np.searchsorted(used, covered, side="right"))) < used.size:
        start, end = int(used[position]), int(used[position])
        while True:
            day_end = start + math.ceil((end + 1 - start) / DAY_HOURS) * DAY_HOURS
            last = int(np.searchsorted(used, day_end + DAY_HOURS - 1, side="right")) - 1
            if used[last] == end:
                break
            end = int(used[last])
            if end - start >= longest * DAY_HOURS:
                raise UserError(
                    f"more than {longest:g} days without a free one are needed; a Capacity Block lasts {longest:g} at "
                    "most: split the work or buy otherwise."
                )
        days = block_days((end + 1 - start) / DAY_HOURS)
        instances = math.ceil(load[start : start + days * DAY_HOURS].max() - 1e-9)
        if instances > most:
            raise UserError(
                f"{instances} instances are needed at once; a Capacity Block has {most:g} at most: buy several."
            )
        found.append((start, days, instances))
        covered = start + days * DAY_HOURS - 1
    return found


def block_days(days: float) -> int:
    """Days of the shortest Capacity Block that holds `days`: whole days up to 14, then whole weeks."""
    whole = max(1, math.ceil(days - 1e-9))
    if whole <= term("capacity_block_single_days").value:
        return whole
    step = int(term("capacity_block_step").value)
    return math.ceil(whole / step) * step


def cost(option: Option, demand: Demand, months: float, discount_rate: float = 0.0) -> float:
    """USD of a demand over a horizon of `months` under an option, worth today at `discount_rate` a year.

    Raises UserError where the option cannot meet the demand.
    """
    return option.cash_flow(demand, months).present_usd(discount_rate)


def by_month(usd: np.ndarray, months: float, what: str) -> list[Payment]:
    """Payments at the end of each month for USD of each hour [hours]; months without any are left out."""
    edges = np.arange(0, usd.size, int(HOURS_PER_MONTH))
    sums = np.add.reduceat(usd, edges) if usd.size else np.zeros(0)
    end = horizon_hours(months) / HOURS_PER_MONTH
    return [
        Payment(min(month, end), float(total), what) for month, total in enumerate(sums, 1) if total
    ]


def _price(**prices: float) -> None:
    for name, value in prices.items():
        if not (value > 0 and math.isfinite(value)):
            raise UserError(f"{name} is {value!r}; give USD an hour above 0.")
