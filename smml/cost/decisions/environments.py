"""Development, staging and production of one service: type, number, hours and monthly price of each, with the reasons."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from smml.cost.decisions.decide import Option, choose, option
from smml.cost.decisions.decision import Decision, dollars
from smml.cost.decisions.instances import Need, choose_instance
from smml.cost.decisions.throughput import Infeasible, Measurement
from smml.cost.decisions.workload import Workload
from smml.data import instances
from smml.errors import UserError

# 22 working days of 8 hours: an environment that nobody uses at night is switched off.
WORKING_HOURS_PER_MONTH = 176.0
# A developer's machine: an editor, tests and the tiny model, idle most of the time.
DEVELOPMENT = Need(vcpu=2, memory_gib=4, average_cpu=0.1, runs_on_arm=False)


@dataclass(frozen=True)
class Environment:
    """`count` instances of one type, up for `hours_per_month`; `interruptible` says that spot capacity would do."""

    name: Literal["development", "staging", "production"]
    instance: str
    count: int
    hours_per_month: float
    usd_per_month: float
    interruptible: bool
    reasons: list[str]

    def __str__(self) -> str:
        return f"{self.name}: {self.count} × {self.instance}, {dollars(self.usd_per_month)} a month"


def environments(
    workload: Workload,
    *,
    development: Need = DEVELOPMENT,
    staging_share: float = 0.1,
    minimum_production: int = 2,
    measured: Mapping[str, Measurement] | None = None,
) -> list[Environment]:
    """The three environments of a service, smallest first.

    Staging takes production's family, so that the same code path is tested, in the cheapest size that carries
    `staging_share` of the traffic at the same latency. Production has `minimum_production` instances at least, so
    that losing one does not stop it. Raises UserError for a job, and where nothing will do for production.
    """
    if not workload.is_service:
        raise UserError(
            f"{workload.purpose} has no environments that stay up; give a real-time inference."
        )
    if not 0 < staging_share <= 1:
        raise UserError(
            f"staging_share is {staging_share!r}; it is a share: give 0 < staging_share <= 1."
        )
    decision = choose(workload, measured=measured)
    if decision.choice is None:
        raise UserError(
            f"nothing will do for production: {decision.reasons[0]} Relax the workload."
        )
    return [
        _development(development),
        _staging(workload, decision.choice, staging_share, measured or {}),
        _production(workload, decision, minimum_production),
    ]


def _development(need: Need) -> Environment:
    decision = choose_instance(need, WORKING_HOURS_PER_MONTH)
    if decision.choice is None:
        raise UserError(
            f"nothing will do for development: {decision.rejected[0].why}. Ask for less."
        )
    reasons = [
        *decision.reasons,
        "Spot capacity will do: an interruption costs a restart; this on-demand price is the upper bound.",
    ]
    return Environment(
        "development",
        decision.choice.instance.name,
        1,
        WORKING_HOURS_PER_MONTH,
        decision.price.usd,
        True,
        reasons,
    )


def _staging(
    workload: Workload, production: Option, share: float, measured: Mapping[str, Measurement]
) -> Environment:
    small = replace(
        workload,
        tokens_per_s=workload.tokens_per_s * share,
        hours_per_month=WORKING_HOURS_PER_MONTH,
        budget_usd=None,
    )
    family, options = production.instance.family, []
    for name, entry in instances().items():
        if entry.family == family:
            try:
                options.append(option(entry, small, measured.get(name)))
            except Infeasible:
                continue  # this size is too small for the model; production's own size is not
    best = min(options, key=lambda one: (one.price.usd, one.instance.name))
    hourly = best.price.usd / best.rate.instances
    # Two, where production has several: one instance cannot show a fault of distribution.
    number = max(best.rate.instances, 2 if production.rate.instances > 1 else 1)
    reasons = [
        f"The family of production ({family}), the same engine and code path, in the cheapest size that carries "
        f"{share:.0%} of the traffic: {best.instance.name}.",
        f"{number} × {dollars(hourly)} for {WORKING_HOURS_PER_MONTH:g} working hours instead of "
        f"{workload.hours_per_month:g}.",
    ]
    return Environment(
        "staging",
        best.instance.name,
        number,
        WORKING_HOURS_PER_MONTH,
        number * hourly,
        False,
        reasons,
    )


def _production(workload: Workload, decision: Decision[Option], minimum: int) -> Environment:
    chosen = decision.choice
    number = max(chosen.rate.instances, minimum)
    usd = chosen.price.usd / chosen.rate.instances * number
    reasons = list(decision.reasons)
    if number > chosen.rate.instances:
        reasons.append(
            f"{number} instances where {chosen.rate.instances} would carry the load: losing one must not stop the service."
        )
    if workload.budget_usd is not None and usd > workload.budget_usd:
        raise UserError(
            f"production needs {number} × {chosen.instance.name} at {dollars(usd)} a month, budget_usd is "
            f"{dollars(workload.budget_usd)}; raise it or accept minimum_production=1."
        )
    return Environment(
        "production", chosen.instance.name, number, workload.hours_per_month, usd, False, reasons
    )
