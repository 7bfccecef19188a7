"""Profiles: the small tables of sizes with which every notebook runs, and which one suits a machine."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from smml.errors import UserError
from smml.hardware.detect import detect
from smml.hardware.machine import Machine

MI = 2**20


@dataclass(frozen=True)
class Profile:
    """Sizes of one kind of machine.

    gemm_sizes: n of [n, n]·[n, n]; linear_width, batches: [batch, width]·[width, width], its weight larger than
    the caches; elementwise_elements: length of an array; chain_lengths: operations one after another on it;
    decode_batches, training_batches: sequences of a Llama's step, in training of training_tokens each.
    """

    name: str
    device: str
    dtype: str
    gemm_sizes: tuple[int, ...]
    linear_width: int
    batches: tuple[int, ...]
    elementwise_elements: int
    chain_lengths: tuple[int, ...]
    decode_batches: tuple[int, ...]
    training_batches: tuple[int, ...]
    training_tokens: int
    why: str


CPU = Profile(
    name="cpu",
    device="cpu",
    dtype="float32",
    gemm_sizes=(128, 256, 512, 1024, 2048),
    linear_width=4096,
    batches=(1, 8, 64, 512),
    elementwise_elements=32 * MI,
    chain_lengths=(1, 2, 4, 8),
    decode_batches=(1, 2, 4, 8, 16, 32, 64),
    training_batches=(1, 2, 4, 8),
    training_tokens=16,
    why="no GPU that torch can use.",
)
GPU = Profile(
    name="gpu",
    device="cuda",
    dtype="bfloat16",
    gemm_sizes=(256, 512, 1024, 2048, 4096, 8192, 16384),
    linear_width=8192,
    batches=(1, 8, 64, 512, 4096),
    elementwise_elements=256 * MI,
    chain_lengths=(1, 2, 4, 8),
    decode_batches=(1, 4, 16, 64, 128, 256, 512, 1024),
    training_batches=(1, 2, 4, 8, 16),
    training_tokens=128,
    why="one GPU.",
)
PROFILES = {
    "cpu": CPU,
    "gpu": GPU,
    "multi_gpu": replace(GPU, name="multi_gpu", why="several GPUs in one machine."),
    "cluster": replace(GPU, name="cluster", why="a job on several nodes."),
}


def select(
    profile: str = "auto", machine: Machine | None = None, environ: Mapping[str, str] = os.environ
) -> Profile:
    """The profile asked for, or with "auto" the largest that `machine` (default: this one) can run.

    A cluster of nodes without GPUs gets the cluster profile with the CPU's sizes. Raises UserError for an
    unknown name and for a profile whose hardware is not there.
    """
    allowed = ("auto", *PROFILES)
    if profile not in allowed:
        raise UserError(
            f"unknown profile {profile!r}: allowed are {', '.join(allowed)}; use profile=auto if unsure."
        )
    machine = machine or detect()
    nodes = slurm_nodes(environ)
    gpus = machine.usable_gpus if machine.torch_device == "cuda" else 0
    if profile == "auto":
        name = "cluster" if nodes > 1 else "multi_gpu" if gpus > 1 else "gpu" if gpus else "cpu"
        return _fit(name, machine, f"chosen automatically: {_found(machine, nodes, gpus)}")
    lacking = {
        "gpu": gpus < 1 and "one GPU that torch can use",
        "multi_gpu": gpus < 2 and "two GPUs that torch can use together",
        "cluster": nodes < 2 and "a Slurm job on two nodes or more (SLURM_JOB_NUM_NODES)",
    }.get(profile)
    if lacking:
        raise UserError(
            f"profile={profile} needs {lacking}; this machine has {_found(machine, nodes, gpus)}: "
            "use profile=auto, or start it where that is there."
        )
    return _fit(profile, machine, f"asked for; this machine has {_found(machine, nodes, gpus)}")


def slurm_nodes(environ: Mapping[str, str] = os.environ) -> int:
    """Nodes of the Slurm job that this process runs in; 1 outside one."""
    text = environ.get("SLURM_JOB_NUM_NODES") or environ.get("SLURM_NNODES") or "1"
    return int(text) if text.isdecimal() else 1


def _fit(name: str, machine: Machine, why: str) -> Profile:
    table = PROFILES[name]
    if name == "cluster" and machine.torch_device == "cpu":
        table = replace(CPU, name=name)
    return replace(table, why=f"Profile {name} was {why}.")


def _found(machine: Machine, nodes: int, gpus: int) -> str:
    """What decides, in words."""
    if machine.cuda_problem:
        devices = f"{len(machine.gpus)} × {machine.device_name} that torch cannot use ({machine.cuda_problem})"
    elif any(gpu.mig for gpu in machine.gpus):
        devices = f"{len(machine.gpus)} MIG instance(s) of which a process can use one"
    elif gpus:
        devices = f"{gpus} × {machine.device_name}"
    else:
        devices = f"no GPU, {machine.cpu.usable_cores} CPU cores"
    return f"{nodes} Slurm nodes, {devices} on this one" if nodes > 1 else devices
