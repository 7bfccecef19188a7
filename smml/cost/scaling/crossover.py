"""Lambda, Fargate, EC2 or SageMaker by requests a month: what each costs, and at which traffic two cost the same.

Hosts follow the load: on average as many as keep their target utilization, never fewer than a minimum, billed while they
are up. So every curve is max(floor, slope × requests), and two of them cross once at most.
"""

import math
from dataclasses import dataclass

from smml.cost.decisions.decide import surplus_usd_per_hour
from smml.cost.decisions.decision import HOURS_PER_MONTH, Decision, Price, Rejected, dollars
from smml.cost.decisions.deployment import Deployment, lambda_exclusion, lambda_seconds
from smml.cost.decisions.instances import Need, choose_instance
from smml.cost.decisions.standing import kind
from smml.data import Instance, accelerators, instance, limits
from smml.data.prices import price, prices
from smml.data.service_rules import fargate_size, rule
from smml.errors import UserError

SECONDS_PER_MONTH = HOURS_PER_MONTH * 3600


@dataclass(frozen=True)
class Curve:
    """USD a month: `floor_usd` at least, `usd_per_request` where the traffic pays for it. `unit` is what is rented."""

    service: str
    unit: str
    floor_usd: float
    usd_per_request: float

    def usd(self, requests_per_month: float) -> float:
        """What so many requests a month cost. Raises UserError for a negative number."""
        if not requests_per_month >= 0:
            raise UserError(f"requests_per_month is {requests_per_month!r}; give 0 or more.")
        return max(self.floor_usd, self.usd_per_request * requests_per_month)

    def __str__(self) -> str:
        return f"{self.service} ({self.unit})"


def curves(
    wanted: Deployment,
    *,
    utilization: float = 0.6,
    minimum: int = 1,
    region: str = "us-east-1",
) -> tuple[list[Curve], list[Rejected]]:
    """The services that can do `wanted`, each with its curve, and why the others cannot.

    `utilization` is the busy share that the hosts keep, `minimum` how many stay up. Requests of `wanted` run on one vCPU,
    or on one accelerator where it needs one; its requests_per_month is not looked at. Raises UserError naming the field.
    """
    if not 0 < utilization <= 1:
        raise UserError(
            f"utilization is {utilization!r}; it is a share: give 0 < utilization <= 1."
        )
    if not minimum >= 0:
        raise UserError(f"minimum is {minimum!r}; give 0 or more.")
    found: list[Curve] = []
    rejected: list[Rejected] = []
    for name, make in (
        ("Lambda", _lambda),
        ("Fargate", _fargate),
        ("EC2", _ec2),
        ("SageMaker", _sagemaker),
    ):
        try:
            found.append(make(wanted, utilization, minimum, region))
        except UserError as error:
            rejected.append(Rejected(name, str(error)))
    return found, rejected


def crossover(one: Curve, other: Curve) -> float | None:
    """Requests a month at which both cost the same and the cheaper one changes; None where one is never dearer."""
    low, high = sorted((one, other), key=lambda curve: (curve.floor_usd, curve.usd_per_request))
    if low.floor_usd == high.floor_usd or low.usd_per_request <= high.usd_per_request:
        return None
    return high.floor_usd / low.usd_per_request


def cheapest(
    wanted: Deployment,
    *,
    utilization: float = 0.6,
    minimum: int = 1,
    region: str = "us-east-1",
) -> Decision[Curve]:
    """The cheapest service at the requests_per_month of `wanted`, and the traffic from which on another would be."""
    found, rejected = curves(wanted, utilization=utilization, minimum=minimum, region=region)
    if not found:
        reasons = [f"No {entry.option}: {entry.why}" for entry in rejected]
        return Decision(None, reasons, rejected)
    traffic = wanted.requests_per_month
    best = min(found, key=lambda curve: (curve.usd(traffic), curve.service))
    reasons = [f"{traffic:,.0f} requests a month cost {dollars(best.usd(traffic))} with {best}."]
    for curve in found:
        if curve is best:
            continue
        turn = crossover(best, curve)
        where = "at no traffic" if turn is None else f"at {turn:,.0f} requests a month"
        reasons.append(f"{best.service} and {curve} cost the same {where}.")
        rejected.append(Rejected(curve.service, f"{curve}: {dollars(curve.usd(traffic))}", True))
    return Decision(best, reasons, rejected, Price(best.usd(traffic), "month"))


def _lambda(wanted: Deployment, utilization: float, minimum: int, region: str) -> Curve:
    if excluded := lambda_exclusion(wanted):
        raise UserError(excluded)
    step = rule("lambda_billing_step").value
    billed = math.ceil(lambda_seconds(wanted) / step - 1e-9) * step
    memory = max(wanted.memory_bytes, limits.limit("lambda_memory_per_vcpu").value)
    duration = memory / 2**30 * billed * price("lambda/x86/duration", region).value
    usd = duration + price("lambda/x86/request", region).value
    return Curve("Lambda", f"{memory / 2**30:.3g} GiB", 0.0, usd)


def _fargate(wanted: Deployment, utilization: float, minimum: int, region: str) -> Curve:
    if wanted.needs_accelerator:
        raise UserError(limits.fact("fargate_accelerators").says)
    size = fargate_size(1.0, wanted.memory_bytes / 2**30)
    if size is None:
        raise UserError(f"no Fargate task holds {wanted.memory_bytes / 2**30:.3g} GiB")
    hourly = (
        size.vcpu * price("fargate/x86/vcpu", region).value
        + size.memory_gib * price("fargate/x86/memory", region).value
    )
    unit = f"tasks of {size.vcpu:g} vCPU, {size.memory_gib:g} GiB"
    return _host("Fargate", unit, hourly, size.vcpu, wanted, utilization, minimum)


def _ec2(wanted: Deployment, utilization: float, minimum: int, region: str) -> Curve:
    chosen = choose_instance(_need(wanted, utilization)).choice
    if chosen is None:
        raise UserError("no EC2 type of the catalogue holds it")
    entry = chosen.instance
    # The catalogue chooses; the region prices, with what bursting costs beyond it.
    hourly = price(entry.name, region).value
    hourly += surplus_usd_per_hour(entry, utilization)
    at_work = _at_work(entry, wanted)
    return _host("EC2", entry.name, hourly, at_work, wanted, utilization, minimum)


def _sagemaker(wanted: Deployment, utilization: float, minimum: int, region: str) -> Curve:
    offers = []
    for row in prices("sagemaker/", region, "on-demand"):
        entry = instance(row.item.removeprefix("sagemaker/ml."))
        if entry is not None and _holds(entry, wanted):
            at_work = _at_work(entry, wanted)
            offers.append((row.price.value, row.item.removeprefix("sagemaker/"), at_work))
    if not offers:
        raise UserError(f"no ml.* type that holds it has a known price in {region}")
    hourly, unit, at_work = min(offers)
    return _host("SageMaker", unit, hourly, at_work, wanted, utilization, minimum)


def _host(
    service: str,
    unit: str,
    usd_per_hour: float,
    at_work: float,
    wanted: Deployment,
    utilization: float,
    minimum: int,
) -> Curve:
    """The curve of hosts that serve `at_work` requests at a time each."""
    per_month = usd_per_hour * HOURS_PER_MONTH
    capacity = at_work * utilization * SECONDS_PER_MONTH / wanted.work_seconds_per_request
    return Curve(service, unit, minimum * per_month, per_month / capacity)


def _need(wanted: Deployment, utilization: float) -> Need:
    if wanted.needs_accelerator:
        return Need(
            memory_gib=wanted.memory_bytes / 2**30,
            accelerator="gpu",
            accelerators=1,
            accelerator_memory_bytes=wanted.accelerator_memory_bytes,
        )
    return Need(memory_gib=wanted.memory_bytes / 2**30, average_cpu=utilization, runs_on_arm=False)


def _holds(entry: Instance, wanted: Deployment) -> bool:
    if entry.memory.value < wanted.memory_bytes / 2**30:
        return False
    if not wanted.needs_accelerator:
        return kind(entry) == "cpu"
    if kind(entry) != "gpu":
        return False
    return accelerators()[entry.accelerator].memory.value >= wanted.accelerator_memory_bytes


def _at_work(entry: Instance, wanted: Deployment) -> float:
    return entry.accelerator_count if wanted.needs_accelerator else entry.vcpu
