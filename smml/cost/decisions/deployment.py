"""How to deploy a model on AWS: SageMaker, Lambda, ECS/EKS, AWS Batch, or Kinesis + SageMaker, and why."""

import math
from dataclasses import dataclass
from typing import Literal

from smml.cost.decisions.decision import (
    HOURS_PER_MONTH,
    Decision,
    Price,
    Rejected,
    amount,
    dollars,
    seconds,
)
from smml.cost.decisions.instances import Need, choose_instance
from smml.data import limits
from smml.data.prices import prices
from smml.data.services import service
from smml.errors import UserError

Service = Literal["SageMaker", "Lambda", "ECS/EKS", "AWS Batch", "Kinesis + SageMaker"]


@dataclass(frozen=True)
class Deployment:
    """What is to be deployed, and who uses it. Raises UserError naming the field.

    memory_bytes         of model and runtime in use; image_bytes of the container image
    package_bytes        of a .zip package with all dependencies, unzipped, where that is deployed instead of an image
    requests_per_month   and work_seconds_per_request, measured on one vCPU, or on the accelerator where one is needed
    latency_s            that every answer must keep, cold_start_s of a fresh Lambda included; None: nobody waits for it
    needs_accelerator    with accelerator_memory_bytes, where the latency cannot be met on a CPU (see `decide.choose`)
    batch                the requests are one data set, answers are collected later
    retrains_on_stream   data arrive in real time and the model is trained on them again
    managed_lifecycle    training, registry, deployment and monitoring shall come from one managed service
    own_infrastructure   the team runs its own containers and wants to shape the infrastructure
    behind_api_gateway   requests come through Amazon API Gateway, which waits for an answer only so long
    """

    memory_bytes: float
    requests_per_month: float
    work_seconds_per_request: float
    image_bytes: float = 2e9
    package_bytes: float | None = None
    latency_s: float | None = None
    cold_start_s: float = 0.0
    needs_accelerator: bool = False
    accelerator_memory_bytes: float = 0.0
    batch: bool = False
    retrains_on_stream: bool = False
    managed_lifecycle: bool = False
    own_infrastructure: bool = False
    behind_api_gateway: bool = False

    def __post_init__(self) -> None:
        for name in (
            "memory_bytes",
            "requests_per_month",
            "work_seconds_per_request",
            "image_bytes",
        ):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)!r}; give a number above 0.")
        for name in ("latency_s", "package_bytes"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise UserError(
                    f"{name} is {getattr(self, name)!r}; give a number above 0, or None."
                )
        if self.managed_lifecycle and self.own_infrastructure:
            raise UserError(
                "managed_lifecycle and own_infrastructure contradict each other; choose one of them."
            )


def choose_deployment(wanted: Deployment) -> Decision[Service]:
    """The service that suits, by what is excluded first, by kind of use second, by price last.

    Lambda and an instance that is always on are priced; which is cheaper turns at a number of requests that the
    reasons name. No free tier is counted.
    """
    excluded = lambda_exclusion(wanted)
    per_request = lambda_usd_per_request(wanted)
    serverless = None if excluded else per_request * wanted.requests_per_month
    name, always_on = host(wanted)
    managed = sagemaker_month(name, always_on)
    containers = f"one {name} always on costs {dollars(always_on)} a month"
    lambda_side = excluded or f"it would cost {dollars(serverless)} a month"

    if wanted.retrains_on_stream:
        return _decided(
            "Kinesis + SageMaker",
            "Data arrive in real time and the model is trained on them again: Kinesis carries the stream, SageMaker "
            "trains and serves; the stream outlives every Lambda invocation "
            f"({seconds(limits.limit('lambda_timeout').value)} at most).",
            {"Lambda": lambda_side, "ECS/EKS": f"nothing there retrains; {containers}"},
        )
    if wanted.batch:
        machine, hours, usd = batch_run(wanted)
        return _decided(
            "AWS Batch",
            f"Nobody waits for a single answer: {wanted.requests_per_month:,.0f} predictions take {hours:,.1f} h on one "
            f"{machine}, paid for those only, {dollars(usd)}; {containers}.",
            {
                "Lambda": lambda_side,
                "ECS/EKS": f"{containers}, idle between runs",
                "SageMaker": f"Batch Transform does the same; {managed}",
            },
            usd,
        )
    if wanted.managed_lifecycle:
        return _decided(
            "SageMaker",
            "Training, registry, deployment and monitoring from one managed service are wanted, and no other holds them "
            f"all; {managed}, for comparison {containers}.",
            {"Lambda": f"serves only; {lambda_side}", "ECS/EKS": f"serves only; {containers}"},
            remark=f"What belongs to it has changed: {service('SageMaker Model Monitor')}.",
        )
    if excluded is None and not wanted.own_infrastructure and serverless <= always_on:
        return _decided(
            "Lambda",
            f"{wanted.requests_per_month:,.0f} requests a month cost {dollars(serverless)} "
            f"({dollars(per_request)} each) and nothing while idle; {containers}. The instance becomes cheaper above "
            f"{always_on / per_request:,.0f} requests a month.",
            {
                "ECS/EKS": containers,
                "SageMaker": f"a very simple model needs no managed endpoint; {managed}",
            },
            serverless,
        )
    why = f"{containers.capitalize()}, for as many requests as it carries."
    if wanted.own_infrastructure:
        why += " The team wants to shape its own infrastructure."
    if wanted.needs_accelerator:
        why += f" An accelerator is needed: {limits.fact('fargate_accelerators').says}."
    elif excluded is None:
        lambda_side += f", the instance is cheaper above {always_on / per_request:,.0f} requests"
    return _decided(
        "ECS/EKS",
        why,
        {
            "Lambda": lambda_side,
            "SageMaker": f"the full lifecycle is not asked for; {managed}",
        },
        always_on,
    )


def lambda_exclusion(wanted: Deployment) -> str | None:
    """Which limit of Lambda the deployment breaks, with both numbers; None if none."""
    if wanted.needs_accelerator:
        return f"{limits.fact('lambda_accelerators').says}, and an accelerator is needed"
    memory, image = limits.limit("lambda_memory").value, limits.limit("lambda_image").value
    if wanted.memory_bytes > memory:
        return f"{amount(wanted.memory_bytes, 'B')} of memory are needed, Lambda gives {amount(memory, 'B')} at most"
    package = limits.limit("lambda_package").value
    if wanted.package_bytes is not None and wanted.package_bytes > package:
        return (
            f"the package has {amount(wanted.package_bytes, 'B')} unzipped, Lambda takes {amount(package, 'B')} at most "
            f"(as a container image {amount(image, 'B')})"
        )
    if wanted.package_bytes is None and wanted.image_bytes > image:
        return f"the image has {amount(wanted.image_bytes, 'B')}, Lambda takes {amount(image, 'B')} at most"
    run, timeout = lambda_seconds(wanted), limits.limit("lambda_timeout").value
    if run > timeout:
        return f"a request runs {seconds(run)}, Lambda stops it after {seconds(timeout)}"
    if wanted.latency_s is not None and run + wanted.cold_start_s > wanted.latency_s:
        return (
            f"a request after a cold start takes {seconds(run + wanted.cold_start_s)} "
            f"({seconds(wanted.cold_start_s)} of it the start), wanted are {seconds(wanted.latency_s)}"
        )
    return None


def lambda_seconds(wanted: Deployment) -> float:
    """Seconds that a request runs on Lambda, whose memory, a vCPU's worth at least, fixes its share of CPU."""
    return wanted.work_seconds_per_request / (
        _lambda_memory(wanted) / limits.limit("lambda_memory_per_vcpu").value
    )


def lambda_usd_per_request(wanted: Deployment) -> float:
    """USD of one request: GiB-seconds and the request's own price, the free tier left out."""
    gib_seconds = _lambda_memory(wanted) / 2**30 * lambda_seconds(wanted)
    per_gib_second = limits.limit("lambda_price_per_gib_second").value
    return gib_seconds * per_gib_second + limits.limit("lambda_price_per_request").value


def _lambda_memory(wanted: Deployment) -> float:
    return max(wanted.memory_bytes, limits.limit("lambda_memory_per_vcpu").value)


def _need(wanted: Deployment, busy: float) -> Need:
    """A machine on which `busy` vCPUs, or accelerators where they are needed, work on average."""
    if wanted.needs_accelerator:
        memory = wanted.accelerator_memory_bytes
        return Need(
            accelerator="gpu", accelerators=math.ceil(busy), accelerator_memory_bytes=memory
        )
    vcpu = math.ceil(busy)
    return Need(vcpu=vcpu, memory_gib=wanted.memory_bytes / 2**30, average_cpu=busy / vcpu)


def host(wanted: Deployment) -> tuple[str, float]:
    """The cheapest instance that carries the mean load and stays on, and its price a month."""
    busy = wanted.requests_per_month * wanted.work_seconds_per_request / (HOURS_PER_MONTH * 3600)
    decision = choose_instance(_need(wanted, busy))
    if decision.choice is None:
        raise UserError(
            f"no single instance holds {amount(wanted.memory_bytes, 'B')} with {busy:,.1f} busy vCPUs or accelerators of "
            f"{amount(wanted.accelerator_memory_bytes, 'B')}; spread it over several or ask for less."
        )
    return decision.choice.instance.name, decision.price.usd


def sagemaker_month(host: str, always_on: float) -> str:
    """What the same machine costs as a SageMaker instance for a month, or that its rate is not known."""
    known = prices(region="us-east-1", kind="on-demand")
    rate = next((row.price for row in known if row.item == f"sagemaker/ml.{host}"), None)
    if rate is None:
        return f"the rate of ml.{host} is not known"
    month = rate.value * HOURS_PER_MONTH
    return (
        f"ml.{host} always on costs {dollars(month)} a month, {month / always_on:.3g} times as much"
    )


def batch_run(wanted: Deployment) -> tuple[str, float, float]:
    """The cheapest instance for the batch, all of it at work; its hours and their price."""
    chosen = choose_instance(_need(wanted, 1.0)).choice
    if chosen is None:
        raise UserError(
            f"no single instance holds {amount(wanted.memory_bytes, 'B')} and accelerators of "
            f"{amount(wanted.accelerator_memory_bytes, 'B')}; spread it over several or ask for less."
        )
    at_work = (
        chosen.instance.accelerator_count if wanted.needs_accelerator else chosen.instance.vcpu
    )
    hours = wanted.requests_per_month * wanted.work_seconds_per_request / 3600 / at_work
    return chosen.instance.name, hours, hours * chosen.usd_per_hour


def _decided(
    chosen: Service,
    reason: str,
    others: dict[str, str],
    usd: float | None = None,
    remark: str | None = None,
) -> Decision[Service]:
    price = None if usd is None else Price(usd, "month")
    reasons = [reason] if remark is None else [reason, remark]
    return Decision(chosen, reasons, [Rejected(name, why) for name, why in others.items()], price)
