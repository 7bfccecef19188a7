"""Tokens per second of a workload on an EC2 instance: bounded by memory, compute and network, or as measured.

Optimistic where nothing was measured: devices of one instance are taken to work together without loss, and the network
to send while they compute; `Workload.utilization` stands for all that is lost. Latency bounds hold at any utilization.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from smml.cost.decisions.decision import amount, count, seconds
from smml.cost.decisions.standing import Kind, kind
from smml.cost.decisions.workload import Workload
from smml.data import Instance, accelerators, limits
from smml.data.catalogue import dtype_key

# Gradients cross the network in the dtype of the products, of which training has no smaller one than bf16.
_GRADIENT_BYTES = {"fp64": 8, "fp64_tensor": 8, "fp32": 4, "tf32": 4}


class Infeasible(Exception):
    """An instance type cannot do the workload; the message is the reason, with its numbers."""


class Unjudged(Infeasible):
    """Nothing is known to be in the way, but a figure is missing."""


@dataclass(frozen=True)
class Measurement:
    """What one whole instance was measured to do: tokens per second, and seconds per token of one sequence."""

    tokens_per_s: float
    latency_s: float | None = None


@dataclass(frozen=True)
class Engine:
    """What computes in one instance: `devices` of them, figures per device. A CPU is one device."""

    kind: Kind
    name: str
    devices: int
    peak_flops: float
    bandwidth_bytes_per_s: float
    memory_bytes: float


@dataclass(frozen=True)
class Rate:
    """Tokens per second of `instances` together, what bounds them, and whether that was measured."""

    tokens_per_s: float
    bound: Literal["compute", "memory", "network", "measured"]
    instances: int = 1
    latency_s: float | None = None
    devices_per_copy: int | None = None


def engine(instance: Instance, workload: Workload) -> Engine:
    """The instance's engine for the workload. Raises Infeasible for what its software or hardware does not support."""
    what = kind(instance)
    if what != "gpu" and workload.operators == "CUDA or Triton":
        raise Infeasible(
            f"the model needs CUDA or Triton operators, which run on GPUs, not on {what}"
        )
    if instance.accelerator is None:
        cpu = limits.processor(instance.family)
        if cpu is None:
            raise Unjudged(
                f"{instance.family}'s CPU speed is not in the catalogue; judge it by a measurement there"
            )
        if cpu.architecture == "arm" and not workload.runs_on_arm:
            raise Infeasible(f"{cpu.processor} is an Arm processor, and the workload needs x86")
        memory = instance.memory.value * 2**30 - workload.host_memory_bytes
        rates = (instance.vcpu * cpu.peak_flops.value, instance.vcpu * cpu.bandwidth.value)
        return Engine(
            "cpu", f"{instance.vcpu} vCPU of {cpu.processor}", 1, *rates, max(memory, 0.0)
        )
    device = accelerators()[instance.accelerator]
    if what == "neuron":
        _check_neuron(instance, workload)
    if device.vendor == "AMD":
        raise Infeasible(f"{device.name} has no CUDA; this package's GPU path needs it")
    peak = device.peak_flops(workload.dtype)
    if peak is None:
        raise Infeasible(
            f"dtype not supported: the catalogue states no {dtype_key(workload.dtype)} peak of {device.name}, only "
            f"{', '.join(device.dense_peak_flops)}"
        )
    return Engine(
        what,
        device.name,
        instance.accelerator_count,
        peak.value,
        device.bandwidth.value,
        device.memory.value,
    )


def inference_rate(
    instance: Instance, workload: Workload, measured: Measurement | None = None
) -> Rate:
    """Rate of one instance: as many model copies as fit, each on the fewest devices that hold it and meet the latency.

    A step of a copy on d devices reads its memory once and takes at least max(bytes ÷ d·bandwidth, batch·FLOPs ÷ d·peak).
    Raises Infeasible where the model does not fit or the latency is out of reach.
    """
    unit = engine(instance, workload)
    memory, batch = workload.memory_bytes, workload.batch_size
    if memory > unit.devices * unit.memory_bytes:
        raise Infeasible(_does_not_fit(instance, unit, memory))
    target = math.inf if workload.latency_s is None else workload.latency_s
    floor = max(
        workload.weight_bytes / (unit.devices * unit.bandwidth_bytes_per_s),
        batch * workload.token_flops / (unit.devices * unit.peak_flops),
    )
    if floor > target:
        raise Infeasible(
            f"latency unreachable: a step on all of {instance.name} takes at least {seconds(floor)} (reading "
            f"{amount(workload.weight_bytes, 'B')} at {amount(unit.devices * unit.bandwidth_bytes_per_s, 'B/s')}, "
            f"computing {amount(batch * workload.token_flops, 'FLOP')} at "
            f"{amount(unit.devices * unit.peak_flops, 'FLOP/s')}), wanted are {seconds(target)}"
        )
    if measured is not None:
        if workload.latency_s is not None and measured.latency_s is None:
            raise Unjudged(
                f"its throughput was measured, its latency was not; {seconds(target)} are wanted"
            )
        if measured.latency_s is not None and measured.latency_s > target:
            raise Infeasible(
                f"measured latency {seconds(measured.latency_s)} exceeds the wanted {seconds(target)}"
            )
        return Rate(measured.tokens_per_s, "measured", latency_s=measured.latency_s)
    for devices in _divisors(unit.devices):
        if memory > devices * unit.memory_bytes:
            continue
        reading = memory / (devices * unit.bandwidth_bytes_per_s)
        computing = batch * workload.token_flops / (devices * unit.peak_flops)
        latency = max(reading, computing) / workload.utilization
        if latency <= target:
            rate = unit.devices // devices * batch / latency
            return Rate(rate, "memory" if reading > computing else "compute", 1, latency, devices)
    raise Infeasible(
        f"latency unreachable: at {workload.utilization:.0%} of the roof a step on all of {instance.name} takes "
        f"{seconds(latency)}, wanted are {seconds(target)} (the bound itself is {seconds(floor)})"
    )


def training_rate(
    instance: Instance, workload: Workload, instances: int, measured: Measurement | None = None
) -> Rate:
    """Rate of `instances` that share the state (fully sharded) and reduce their gradients over the network each step.

    A ring moves 2·(n−1)/n of the gradient's bytes through every instance's lasting network bandwidth, while it
    computes. Raises Infeasible where the state does not fit.
    """
    unit = engine(instance, workload)
    held = instances * unit.devices * unit.memory_bytes
    if workload.memory_bytes > held:
        raise Infeasible(_does_not_fit(instance, unit, workload.memory_bytes, instances))
    if measured is not None:
        computing = workload.tokens_per_step / (instances * measured.tokens_per_s)
    else:
        flops = instances * unit.devices * unit.peak_flops * workload.utilization
        computing = workload.tokens_per_step * workload.token_flops / flops
    gradient = workload.parameters * _GRADIENT_BYTES.get(dtype_key(workload.dtype), 2)
    network = instance.network_baseline.value * 1e9 / 8
    sending = 2 * (instances - 1) / instances * gradient / network
    rate = workload.tokens_per_step / max(computing, sending)
    alone = "compute" if measured is None else "measured"
    return Rate(rate, "network" if sending > computing else alone, instances)


def instances_to_hold(instance: Instance, workload: Workload) -> int:
    """Fewest instances whose devices together hold the training state."""
    unit = engine(instance, workload)
    if unit.memory_bytes == 0:
        raise Infeasible(_does_not_fit(instance, unit, workload.memory_bytes))
    return math.ceil(workload.memory_bytes / (unit.devices * unit.memory_bytes))


def _check_neuron(instance: Instance, workload: Workload) -> None:
    if workload.purpose == "training" and instance.family.startswith("inf"):
        raise Infeasible(limits.fact("inferentia_training").says)
    if not workload.static_shapes:
        raise Infeasible(
            f"{limits.fact('neuron_static_shapes').says}, and the workload's shapes vary: pad or bucket them"
        )
    if workload.operators == "custom C++" and instance.accelerator == "inferentia1":
        raise Infeasible(limits.fact("neuron_custom_operators").says)


def _does_not_fit(instance: Instance, unit: Engine, needed: float, instances: int = 1) -> str:
    held = f"{count(instances * unit.devices, 'device')} of {amount(unit.memory_bytes, 'B')}"
    if unit.kind == "cpu":
        held = f"{instances} × {amount(unit.memory_bytes, 'B')} free of the runtime"
    return f"does not fit: {amount(needed, 'B')} are needed, {instance.name} has {held}"


def _divisors(number: int) -> Iterator[int]:
    return (d for d in range(1, number + 1) if number % d == 0)
