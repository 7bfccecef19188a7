"""Whether a deployment can run on a target that somebody names: every limit that it breaks, with both numbers, or its price."""

from collections.abc import Callable
from typing import Literal

from smml.cost.decisions.decide_region import Capacity, spot_refusal
from smml.cost.decisions.decision import Decision, Price, amount, dollars, seconds
from smml.cost.decisions.deployment import (
    Deployment,
    batch_run,
    host,
    lambda_exclusion,
    lambda_seconds,
    lambda_usd_per_request,
)
from smml.data import Quantity, limits
from smml.data.service_rules import service_rules
from smml.data.services import service
from smml.errors import UserError

Target = Literal[
    "Lambda",
    "Fargate",
    "ECS/EKS on EC2",
    "SageMaker real-time",
    "SageMaker serverless",
    "SageMaker asynchronous",
    "AWS Batch",
]
_SPELLINGS = {
    "lambda": "Lambda",
    "fargate": "Fargate",
    "ecs": "ECS/EKS on EC2",
    "eks": "ECS/EKS on EC2",
    "ecs/eks": "ECS/EKS on EC2",
    "ecs/eks on ec2": "ECS/EKS on EC2",
    "endpoint": "SageMaker real-time",
    "sagemaker": "SageMaker real-time",
    "sagemaker real time": "SageMaker real-time",
    "sagemaker serverless": "SageMaker serverless",
    "sagemaker async": "SageMaker asynchronous",
    "sagemaker asynchronous": "SageMaker asynchronous",
    "batch": "AWS Batch",
    "aws batch": "AWS Batch",
}


def known_target(name: str) -> Target:
    """The target of that name. UserError lists the targets, and says what became of a service that has ended."""
    plain = " ".join(name.casefold().replace("-", " ").split())
    if plain in _SPELLINGS:
        return _SPELLINGS[plain]
    targets = ", ".join(dict.fromkeys(_SPELLINGS.values()))
    try:
        row = service(name)
    except UserError:
        raise UserError(
            f"no deployment target is called {name!r}; there are {targets}; give one of these."
        ) from None
    if not row.open_to_new_customers:
        raise UserError(f"{row}; the targets are {targets}; give one of these.")
    raise UserError(f"{row.name} serves no model by itself; the targets are {targets}; give one.")


def judge(wanted: Deployment, target: Target, capacity: Capacity = "on-demand") -> Decision[Target]:
    """The target with its price, where one is known; or no choice, and every reason that stands in the way."""
    reasons = refusals(wanted, target, capacity)
    if reasons:
        return Decision(None, [f"{target} cannot do it: {reason}." for reason in reasons])
    if target == "Lambda":
        each = lambda_usd_per_request(wanted)
        usd = each * wanted.requests_per_month
        why = f"{wanted.requests_per_month:,.0f} requests at {dollars(each)} each, nothing while idle."
        return Decision(target, [why], price=Price(usd, "month"))
    if target == "ECS/EKS on EC2" and capacity == "on-demand":
        name, usd = host(wanted)
        return Decision(target, [f"One {name}, always on."], price=Price(usd, "month"))
    if target == "AWS Batch" and capacity == "on-demand":
        name, hours, usd = batch_run(wanted)
        return Decision(target, [f"{hours:,.2f} h of one {name}."], price=Price(usd, "month"))
    return Decision(target, ["No limit stands in the way; it is not priced here."])


def refusals(wanted: Deployment, target: Target, capacity: Capacity = "on-demand") -> list[str]:
    """Every reason why the target cannot do it, with its numbers; empty if none."""
    found = [reason for reason in (check(wanted) for check in _CHECKS[target]) if reason]
    if capacity == "spot":
        found += _spot(wanted, target)
    gateway = limits.limit("api_gateway_timeout").value
    if wanted.behind_api_gateway and _run_seconds(wanted, target) > gateway:
        found.append(
            f"a request runs {seconds(_run_seconds(wanted, target))}, API Gateway waits {seconds(gateway)} unless its "
            "timeout is raised for a Regional REST API: stream, or answer asynchronously"
        )
    return found


def _spot(wanted: Deployment, target: Target) -> list[str]:
    if target.startswith("SageMaker"):
        return [limits.fact("sagemaker_endpoint_spot").says]
    if target == "Lambda":
        return ["Lambda has one price and no Spot capacity"]
    return [spot_refusal().rstrip(".")] if wanted.latency_s is not None else []


def _run_seconds(wanted: Deployment, target: Target) -> float:
    return lambda_seconds(wanted) if target == "Lambda" else wanted.work_seconds_per_request


def _no_accelerator(fact: str) -> Callable[[Deployment], str | None]:
    def check(wanted: Deployment) -> str | None:
        if not wanted.needs_accelerator:
            return None
        return f"an accelerator is needed, and {limits.fact(fact).says}"

    return check


def _at_most(field: str, limit: str, what: str) -> Callable[[Deployment], str | None]:
    """`field` against the limit of that name."""
    return lambda wanted: _over(getattr(wanted, field), limits.limit(limit), what)


def _over(asked: float, most: Quantity, what: str) -> str | None:
    if asked <= most.value:
        return None
    shown = [seconds(x) if most.unit == "s" else amount(x, "B") for x in (asked, most.value)]
    return f"{shown[0]} of {what}, at most {shown[1]} are allowed"


def _largest_task() -> Quantity:
    rules = service_rules()
    most = max(size.memory_gib for size in rules.fargate_sizes) * 2**30
    origin = rules.fargate_source
    return Quantity(
        value=most,
        unit="B",
        source=origin.title,
        url=origin.url,
        date=origin.date,
        checked=origin.checked,
    )


def _nobody_waits(why: str) -> Callable[[Deployment], str | None]:
    def check(wanted: Deployment) -> str | None:
        if wanted.latency_s is None:
            return None
        return f"{why}, and somebody waits {seconds(wanted.latency_s)} for the answer at most"

    return check


_WORK = "work_seconds_per_request"
_CHECKS: dict[Target, list[Callable[[Deployment], str | None]]] = {
    "Lambda": [lambda_exclusion],
    "Fargate": [
        _no_accelerator("fargate_accelerators"),
        lambda wanted: _over(wanted.memory_bytes, _largest_task(), "memory in a task"),
        _at_most("image_bytes", "fargate_storage", "image in a task's storage"),
    ],
    "ECS/EKS on EC2": [],
    "SageMaker real-time": [_at_most(_WORK, "sagemaker_realtime_timeout", "work for a request")],
    "SageMaker serverless": [
        _no_accelerator("sagemaker_serverless_accelerators"),
        _at_most("memory_bytes", "sagemaker_serverless_memory", "memory"),
        _at_most(_WORK, "sagemaker_serverless_timeout", "work for a request"),
    ],
    "SageMaker asynchronous": [
        _nobody_waits("the call returns where the answer will lie, not the answer"),
        _at_most(_WORK, "sagemaker_async_timeout", "work for a request"),
    ],
    "AWS Batch": [_nobody_waits("a job waits in a queue until capacity has come")],
}
