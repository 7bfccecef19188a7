"""Checks of what services offer and promise: memory, CPUs, accelerators, limits, availability, requests in flight."""

from smml.cost.audit.checks import WORDS, Finding, check
from smml.cost.audit.physics import kv_bytes_per_token, latency, weight_bytes
from smml.cost.decisions.decision import HOURS_PER_MONTH, amount
from smml.cost.decisions.deployment import Deployment, lambda_exclusion
from smml.cost.decisions.throughput import Engine
from smml.data import instances, limits
from smml.data.limits import Processor
from smml.data.service_rules import service_rules
from smml.errors import UserError
from smml.plan.shape import named_shape

SERVICES = ("fargate", "lambda")


@check(
    None,
    service=WORDS,
    model=WORDS,
    memory="B",
    context="token",
    concurrency="1",
    latency_s="s",
    accelerators="1",
)
def fits_on(
    service: str,
    model: str | None = None,
    memory: float | None = None,
    context: float = 0.0,
    concurrency: float = 1.0,
    latency_s: float | None = None,
    accelerators: float = 0.0,
) -> Finding:
    """Whether a service that runs CPUs holds the model with its KV cache, reads `context` in time, offers accelerators.

    Memory is `memory`, or the model's weights with `concurrency` KV caches of `context` tokens.
    """
    if service not in SERVICES:
        raise UserError(f"check.fits_on.service is {service!r}; allowed are {', '.join(SERVICES)}")
    if (model is None) == (memory is None):
        raise UserError("check.fits_on takes either model or memory; give one of them")
    shape = None if model is None else named_shape(model)
    needed = (
        memory
        if shape is None
        else weight_bytes(shape) + concurrency * context * kv_bytes_per_token(shape)
    )
    reasons = _limits_broken(service, needed, accelerators)
    if shape is not None and latency_s is not None:
        vcpu = _vcpu(service)
        cpu = _fastest_cpu()
        unit = Engine(
            "cpu", cpu.processor, 1, vcpu * cpu.peak_flops.value, vcpu * cpu.bandwidth.value, needed
        )
        name = f"{vcpu:.3g} vCPU, the most of a {service} task, each as fast as {cpu.processor}"
        slow = latency(latency_s, shape, unit, max(context, 1.0), 1, name)
        if slow.verdict != "agrees":
            reasons.append(slow.arithmetic)
    if reasons:
        return Finding("physically impossible", "; ".join(reasons))
    return Finding("agrees", f"{amount(needed, 'B')} fit {service}")


def _limits_broken(service: str, needed: float, accelerators: float) -> list[str]:
    if service == "lambda":
        wanted = Deployment(max(needed, 1.0), 1, 1e-3, 1e9, needs_accelerator=accelerators > 0)
        broken = lambda_exclusion(wanted)
        return [broken] if broken else []
    reasons = []
    if accelerators > 0:
        said = limits.fact("fargate_accelerators")
        reasons.append(f"{said.says} ({said.source}, {said.date})")
    rules = service_rules()
    most = rules.fargate_sizes[-1].memory_gib * 2**30
    if needed > most:
        reasons.append(
            f"{amount(needed, 'B')} of memory are needed, a task has {amount(most, 'B')} at most ({rules.fargate_source.date})"
        )
    return reasons


def _vcpu(service: str) -> float:
    if service == "fargate":
        return service_rules().fargate_sizes[-1].vcpu
    return limits.limit("lambda_memory").value / limits.limit("lambda_memory_per_vcpu").value


def _fastest_cpu() -> Processor:
    """What a service computes on is not published: the fastest CPU whose speed is known, in its favour."""
    families = {entry.family for entry in instances().values()}
    return max(
        filter(None, map(limits.processor, sorted(families))), key=lambda cpu: cpu.peak_flops.value
    )


@check("1", replicas="1", zones="1")
def availability(claimed: float, replicas: float, zones: float) -> Finding:
    """What AWS promises of compute: replicas in one zone fail together with it, those in two or more seldom do."""
    if replicas < 1 or zones < 1:
        raise UserError("check.availability: replicas and zones must be 1 or more")
    spread = min(replicas, zones) >= 2
    promised = limits.limit("compute_sla_two_zones" if spread else "compute_sla_one_instance")
    where = "two or more zones" if spread else "one zone, where all of them fail together"
    said = (
        f"{replicas:,.0f} replicas in {where}: AWS promises {promised.value:.2%} ({promised.source}), "
        f"{(1 - promised.value) * HOURS_PER_MONTH:.2g} h a month down; {claimed:.2%} are claimed, "
        f"{(1 - claimed) * HOURS_PER_MONTH:.2g} h"
    )
    return Finding("agrees" if claimed <= promised.value else "contradicts", said, promised.value)


@check("1", requests="request/s", latency_s="s")
def in_flight(claimed: float, requests: float, latency_s: float) -> Finding:
    """Requests that are in the system on average, by Little's law: rate × time. A capacity must be at least that."""
    mean = requests * latency_s
    said = f"{requests:.3g} requests/s × {latency_s:g} s = {mean:.2g} in flight on average, {claimed:,.0f} are claimed"
    return Finding("agrees" if claimed >= mean else "contradicts", said, mean)


@check("B", limit=WORDS)
def within_bytes(claimed: float, limit: str) -> Finding:
    """A number of bytes against a service's limit, such as lambda_memory or lambda_image."""
    return _within("B", claimed, limit)


@check("s", limit=WORDS)
def within_seconds(claimed: float, limit: str) -> Finding:
    """A duration against a service's limit, such as lambda_timeout."""
    return _within("s", claimed, limit)


def _within(unit: str, claimed: float, limit: str) -> Finding:
    most = limits.limit(limit)
    if most.unit != unit:
        raise UserError(f"{limit} is a figure in {most.unit}, not in {unit}; name another limit")
    said = f"{limit} is {amount(most.value, unit)} ({most.source}, {most.date}), {amount(claimed, unit)} are claimed"
    return Finding("agrees" if claimed <= most.value else "physically impossible", said)
