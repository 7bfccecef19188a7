"""What a managed service asks beyond the machine under it, and what it must save in work to be worth that.

SageMaker's rates are those of its endpoints, for which a source was found; its jobs are counted at the same.
"""

import math
from dataclasses import dataclass

from smml.cost.decisions.decision import HOURS_PER_MONTH
from smml.data import limits
from smml.data.prices import price, prices
from smml.errors import UserError

PREFIX = "sagemaker/ml."


@dataclass(frozen=True)
class Premium:
    """The same machine for an hour: rented from EC2, and as an instance of the managed service, in USD.

    `checked`: the managed price was read in its source, or in the quotation that its title names.
    """

    instance: str
    rented_usd_per_hour: float
    managed_usd_per_hour: float
    checked: bool = True

    @property
    def ratio(self) -> float:
        """Managed ÷ rented, dimensionless."""
        return self.managed_usd_per_hour / self.rented_usd_per_hour

    @property
    def usd_per_hour(self) -> float:
        """What managed costs beyond the machine."""
        return self.managed_usd_per_hour - self.rented_usd_per_hour

    def usd_per_month(self, machines: float = 1, hours: float = HOURS_PER_MONTH) -> float:
        """The premium of `machines` that are up for `hours` of a month."""
        return machines * hours * self.usd_per_hour

    def machines_until(self, work_hours: float, pay_usd_per_hour: float) -> float:
        """Machines, always on, up to which managed is no dearer: work that it saves in a month ÷ a machine's premium."""
        _positive(work_hours=work_hours, pay_usd_per_hour=pay_usd_per_hour)
        if self.usd_per_hour <= 0:
            return math.inf
        return work_hours * pay_usd_per_hour / self.usd_per_month()


def premium(instance: str, region: str = "us-east-1") -> Premium:
    """The premium of one EC2 type in `region`. Raises UserError where one of both prices has no source."""
    rented, managed = price(instance, region), price(f"{PREFIX}{instance}", region)
    return Premium(instance, rented.value, managed.value, managed.checked)


def premiums(region: str = "us-east-1") -> list[Premium]:
    """Every type of which both prices are known in `region`, by name."""
    held = {row.item for row in prices(region=region, kind="on-demand")}
    known = (item.removeprefix(PREFIX) for item in held if item.startswith(PREFIX))
    return [premium(name, region) for name in sorted(known) if name in held]


def job_usd(
    run_s: float, instance: str, region: str = "us-east-1", memory_bytes: float = 0.0
) -> dict[str, float]:
    """USD of one job of `run_s` seconds by each way to run it on AWS whose price is known, start-up left out.

    EC2 bills by the second, and a minimum; SageMaker is counted by the second; Lambda by GiB-seconds of the memory
    that gives one vCPU at least, and only up to its longest run.
    """
    _positive(run_s=run_s)
    known = {row.item: row.price.value for row in prices(region=region, kind="on-demand")}
    found = {}
    if instance in known:
        billed = max(run_s, limits.limit("ec2_minimum_bill").value)
        found["EC2"] = billed / 3600 * known[instance]
    if PREFIX + instance in known:
        found["SageMaker"] = run_s / 3600 * known[PREFIX + instance]
    memory = max(memory_bytes, limits.limit("lambda_memory_per_vcpu").value)
    fits = (
        run_s <= limits.limit("lambda_timeout").value
        and memory <= limits.limit("lambda_memory").value
    )
    if fits and "lambda/x86/duration" in known:
        duration = memory / 2**30 * run_s * known["lambda/x86/duration"]
        found["Lambda"] = duration + known["lambda/x86/request"]
    if not found:
        raise UserError(
            f"no price of {instance} is known in {region}; give another type, or run `smml prices refresh`."
        )
    return found


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise UserError(f"{name} is {value!r}; give a number above 0.")
