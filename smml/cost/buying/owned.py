"""Servers of one's own as an option: price, depreciation, power, place, people, repairs; total cost of ownership.

What has a dated source stands in smml/data/owned_hardware.toml; what depends on the reader has no default.
"""

import math
from dataclasses import dataclass

import numpy as np

from smml.cost.buying.demand import Demand
from smml.cost.buying.options import CashFlow, Payment, by_month
from smml.cost.decisions.decision import HOURS_PER_MONTH
from smml.data.owned_hardware import figure, server
from smml.errors import UserError

_SHARES = ("idle_power_share", "repairs_per_year", "resale_share")
_AMOUNTS = (
    "price_usd",
    "power_kw",
    "electricity_usd_per_kwh",
    "space_usd_per_kw_month",
    "people_usd_per_month",
)


@dataclass(frozen=True)
class Owned:
    """Servers bought for a demand: as many as its peak needs, replaced when their life ends.

    price_usd, power_kw      of one server; `idle_power_share` of that power is drawn while it does nothing
    power_usage_effectiveness  kW of the site for each kW of the server (at least 1)
    electricity_usd_per_kwh  what the site pays
    space_usd_per_kw_month   place, cooling plant and connection, by the server's power
    people_usd_per_month     pay of those who look after all servers together
    repairs_per_year         share of the price spent on spares and repairs each year
    life_months              then it is replaced; its worth falls in a straight line to `resale_share` of the price
    sold_at_end              whether that worth comes back when the horizon ends

    Raises UserError naming the field.
    """

    price_usd: float
    power_kw: float
    idle_power_share: float
    power_usage_effectiveness: float
    electricity_usd_per_kwh: float
    space_usd_per_kw_month: float
    people_usd_per_month: float
    repairs_per_year: float
    life_months: float
    resale_share: float
    sold_at_end: bool
    name: str = "owned"

    def __post_init__(self) -> None:
        for name in _AMOUNTS:
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise UserError(f"{name} is {value!r}; give 0 or more.")
        for name in _SHARES:
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UserError(f"{name} is {value!r}; it is a share: give 0 to 1.")
        if not self.power_usage_effectiveness >= 1:
            raise UserError(
                f"power_usage_effectiveness is {self.power_usage_effectiveness!r}; a site draws no less than its "
                "servers: give 1 or more."
            )
        if not self.life_months > 0:
            raise UserError(f"life_months is {self.life_months!r}; give a number above 0.")

    @property
    def usd_per_busy_hour(self) -> float:
        """Electricity of a server at work for an hour, the site's share included."""
        return self.power_kw * self.power_usage_effectiveness * self.electricity_usd_per_kwh

    def standing_usd_per_month(self, servers: int) -> float:
        """What a month costs before any work is done, apart from the price: idle power, place, people, repairs."""
        idle = self.usd_per_busy_hour * self.idle_power_share * HOURS_PER_MONTH
        place = self.space_usd_per_kw_month * self.power_kw
        repairs = self.price_usd * self.repairs_per_year / 12
        return servers * (idle + place + repairs) + self.people_usd_per_month

    def worth_usd(self, age_months: float) -> float:
        """Worth of one server of that age, in a straight line from its price to what it fetches at its life's end."""
        lost = min(1.0, age_months / self.life_months) * (1 - self.resale_share)
        return self.price_usd * (1 - lost)

    def cash_flow(self, demand: Demand, months: float) -> CashFlow:
        """Price at the start of each life (less what the old ones fetch), standing costs and electricity by month."""
        load = demand.over(months)
        servers = math.ceil(demand.peak - 1e-9)
        used = float(load.sum())
        if not servers:
            return CashFlow((), 0.0, 0.0)
        payments, bought = [], 0.0
        while bought < months - 1e-9:
            payments.append(Payment(bought, servers * self.price_usd, "servers"))
            ends = min(bought + self.life_months, months)
            replaced = ends < months - 1e-9
            if self.sold_at_end or replaced:
                back = servers * self.worth_usd(ends - bought)
                payments.append(Payment(ends, -back, "sold"))
            bought += self.life_months
        standing = np.full(load.size, self.standing_usd_per_month(servers) / HOURS_PER_MONTH)
        standing[-1] *= 1 - max(0.0, load.size - months * HOURS_PER_MONTH)
        work = load * self.usd_per_busy_hour * (1 - self.idle_power_share)
        payments += by_month(standing, months, "place, people, repairs, idle power")
        payments += by_month(work, months, "power of work")
        return CashFlow(tuple(payments), used, servers * months * HOURS_PER_MONTH)


def owned(
    name: str,
    *,
    electricity_usd_per_kwh: float,
    idle_power_share: float,
    people_usd_per_month: float,
    repairs_per_year: float,
    life_months: float,
    resale_share: float,
    sold_at_end: bool,
) -> Owned:
    """The server of that name with its quoted price and power, in a site of average efficiency at the average rent.

    Price, power, PUE and colocation rent come from smml/data/owned_hardware.toml. Raises UserError for an unknown name.
    """
    held = server(name)
    return Owned(
        price_usd=held.price.value,
        power_kw=held.power.value,
        idle_power_share=idle_power_share,
        power_usage_effectiveness=figure("power_usage_effectiveness").value,
        electricity_usd_per_kwh=electricity_usd_per_kwh,
        space_usd_per_kw_month=figure("colocation").value,
        people_usd_per_month=people_usd_per_month,
        repairs_per_year=repairs_per_year,
        life_months=life_months,
        resale_share=resale_share,
        sold_at_end=sold_at_end,
        name=f"owned ({held.name})",
    )
