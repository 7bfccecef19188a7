"""What a machine is made of: plain frozen models, a fingerprint of the hardware, rows for a reader."""

import hashlib
import json
import math
import re
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from smml.data.catalogue import Accelerator

GIB = 2**30
MIB = 2**20


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cpu(_Frozen):
    """The processor as this process may use it; caches in bytes, None where the system does not tell."""

    model: str
    vendor: str
    physical_cores: int
    """Cores without their second threads; the logical ones where the system does not tell them apart."""
    logical_cores: int
    usable_cores: int
    """Whole cores left by the affinity mask and the container's quota, at least 1."""
    quota_cores: float | None = None
    """The container's CPU quota in cores; None without one."""
    isa: tuple[str, ...] = ()
    l1d_bytes: int | None = None
    l2_bytes: int | None = None
    l3_bytes: int | None = None
    """All last-level (L3) caches together; L1d and L2 are those of one core."""
    numa_nodes: int = 1
    max_frequency_hz: float | None = None
    governor: str | None = None


class Gpu(_Frozen):
    """One GPU, or one MIG instance of one (`mig` then holds the instance's profile, such as "1g.18gb")."""

    index: int
    name: str
    memory_bytes: int | None = None
    compute_capability: str | None = None
    multiprocessors: int | None = None
    power_watts: float | None = None
    """Drawn when it was read; the driver's mean over up to a second."""
    power_limit_watts: float | None = None
    sm_clock_hz: float | None = None
    sm_clock_max_hz: float | None = None
    memory_clock_hz: float | None = None
    mig: str | None = None
    pcie_generation: int | None = None
    pcie_lanes: int | None = None
    nvlinks: int | None = None


class Disk(_Frozen):
    """One place where the notebooks write: `role` is "build", "temporary" or "shared memory"."""

    role: str
    path: str
    filesystem: str | None
    total_bytes: int
    free_bytes: int


class Interface(_Frozen):
    """One network device; an EFA device without its driver is listed by its PCI address and is not up."""

    name: str
    speed_bits_per_s: float | None = None
    mtu: int | None = None
    up: bool
    efa: bool = False


class Software(_Frozen):
    """Versions, None for what is not installed. `cuda`, `cudnn`, `nccl` are those torch was built with;
    `driver_cuda` is the newest CUDA that the driver serves."""

    python: str
    os: str | None = None
    kernel: str | None = None
    torch: str | None = None
    triton: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    nccl: str | None = None
    driver: str | None = None
    driver_cuda: str | None = None
    efa: str | None = None


class Ec2(_Frozen):
    """Where on EC2 this is; everything but the instance type needs the metadata service."""

    instance_type: str
    region: str | None = None
    availability_zone: str | None = None
    lifecycle: str | None = None


class Note(_Frozen):
    """Something that is there and cannot be used or read: what, and what to do about it."""

    text: str
    fix: str


class Machine(_Frozen):
    """Everything that was detected; what could not be used or read stands in `notes`."""

    cpu: Cpu
    memory_bytes: int
    """Main memory that this process may use: the machine's, or the container's limit where that is less."""
    gpus: tuple[Gpu, ...] = ()
    disks: tuple[Disk, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    software: Software
    ec2: Ec2 | None = None
    load_average: tuple[float, float, float] | None = None
    notes: tuple[Note, ...] = ()

    @property
    def device_name(self) -> str:
        """Name of the device that computes: the first GPU, else the CPU model."""
        return self.gpus[0].name if self.gpus else self.cpu.model

    @property
    def accelerator(self) -> "Accelerator | None":
        """The catalogue's entry for the first GPU; None without one, for a MIG slice and for an unknown GPU."""
        from smml.data.catalogue import match_accelerator

        if not self.gpus or self.gpus[0].mig:
            return None
        return match_accelerator(self.gpus[0].name, self.gpus[0].memory_bytes)

    @property
    def usable_gpus(self) -> int:
        """GPUs that one job can use together: a CUDA process sees one MIG instance at most."""
        return 1 if any(gpu.mig for gpu in self.gpus) else len(self.gpus)

    @property
    def torch_device(self) -> str:
        """The device type that torch computes on here: "cuda" or "cpu"."""
        return "cuda" if self.gpus and not self.cuda_problem else "cpu"

    @property
    def cuda_problem(self) -> str | None:
        """Why the installed torch cannot use the GPUs of this machine; None where it can, or has no GPU."""
        software = self.software
        if not self.gpus:
            return None
        if software.torch is None:
            return "torch is not installed"
        if software.cuda is None:
            return f"torch {software.torch} is a build without CUDA"
        if software.driver_cuda and int(software.driver_cuda.split(".")[0]) < int(
            software.cuda.split(".")[0]
        ):
            return f"driver {software.driver} serves CUDA {software.driver_cuda}, torch is built for CUDA {software.cuda}"
        return None

    @property
    def fingerprint(self) -> str:
        """Short file-name-safe name of the hardware, e.g. "nvidia-h200-x1-3fa9c2" or "amd-epyc-2c-24gib-41b0d7".

        The six digits hash device names, count and nominal memory, CPU model, usable cores, ISA and L3.
        Versions, clocks, limits, disks and network do not enter: see `environment`.
        """
        memory_gib = nominal_gib(self.memory_bytes)
        gpus = sorted((gpu.name, nominal_gib(gpu.memory_bytes or 0)) for gpu in self.gpus)
        parts = [
            gpus,
            memory_gib,
            self.cpu.model,
            self.cpu.usable_cores,
            sorted(self.cpu.isa),
            self.cpu.l3_bytes,
        ]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:6]
        if self.gpus:
            return f"{slug(self.device_name)}-x{len(self.gpus)}-{digest}"
        return f"{slug(self.device_name)}-{self.cpu.usable_cores}c-{memory_gib}gib-{digest}"

    def environment(self) -> dict[str, object]:
        """What may differ between two runs on the same hardware: versions, clocks, limits, load, place."""
        return {
            **self.software.model_dump(),
            "governor": self.cpu.governor,
            "power_watts": [gpu.power_watts for gpu in self.gpus],
            "power_limit_watts": [gpu.power_limit_watts for gpu in self.gpus],
            "sm_clock_hz": [gpu.sm_clock_hz for gpu in self.gpus],
            "memory_clock_hz": [gpu.memory_clock_hz for gpu in self.gpus],
            "load_average": list(self.load_average) if self.load_average else None,
            "instance_type": self.ec2.instance_type if self.ec2 else None,
            "region": self.ec2.region if self.ec2 else None,
        }

    def describe(self) -> list[tuple[str, str]]:
        """Rows (label, text) of a notebook's "this machine" table; what is missing is said, not left out."""
        from smml.hardware.rows import rows

        return rows(self)


def nominal_gib(memory_bytes: int) -> int:
    """The size in GiB that the memory is sold as: rounded up on a grid of eight steps an octave.

    Kernel and driver keep back up to ~3 %, and not always the same amount; rounding to the nearest GiB would
    tip over, the grid does not. 64 MiB of slack keep a limit of exactly 16 GiB on 16.
    """
    gib = max(memory_bytes - 64 * MIB, 1) / GIB
    step = 1 if gib <= 8 else 2 ** (math.ceil(math.log2(gib)) - 4)
    return math.ceil(gib / step) * step


def slug(name: str) -> str:
    """A device's name in lower-case letters, digits and dashes, without trademarks, clocks and filler words."""
    name = re.sub(
        r"\((r|tm|c)\)|[®™]|@.*|\b\d+-core\b|\bprocessor\b|\bcpu\b", " ", name, flags=re.IGNORECASE
    )
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48].strip("-") or "unknown"
