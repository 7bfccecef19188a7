"""One look at this machine: everything below put together, in well under a second, without importing torch."""

import os
import platform
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from smml.hardware import cpu, ec2, gpu, host, software
from smml.hardware.machine import Cpu, Machine


def detect(refresh: bool = False) -> Machine:
    """This machine. The answer is kept for the process; `refresh=True` looks again (free disk, clocks, load)."""
    if refresh:
        _kept.cache_clear()
    return _kept()


def read(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> Machine:
    """Look now, at the /proc, /sys and /dev under `root` and with the variables of `environ`."""
    nvml = gpu.read(root, environ)
    instance, ec2_problem = ec2.read(root, environ)
    notes = (*nvml.problems, *host.other_accelerators(root), ec2_problem)
    return Machine(
        cpu=_cpu(root),
        memory_bytes=host.memory_bytes(root),
        gpus=nvml.gpus,
        disks=host.disks(),
        interfaces=host.interfaces(root),
        software=software.read(nvml.driver, nvml.driver_cuda, root),
        ec2=instance,
        load_average=host.load_average(),
        notes=tuple(note for note in notes if note),
    )


@lru_cache(maxsize=1)
def _kept() -> Machine:
    return read()


def _cpu(root: Path) -> Cpu:
    if platform.system() == "Darwin":
        command = ["sysctl", "hw", "machdep.cpu"]
        return cpu.from_sysctl(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout
        )
    return cpu.read(root)
