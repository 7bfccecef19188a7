"""NVIDIA GPUs through NVML (nvidia-ml-py): names, memory, limits, clocks, MIG instances, links."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pynvml

from smml.hardware.machine import Gpu, Note

# What NVML answers where a field does not exist on this card, in this VM or for this user: unknown, no failure.
ABSENT = {
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_NO_PERMISSION,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NO_DATA,
    pynvml.NVML_ERROR_UNKNOWN,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
}
# FP32 lanes of one multiprocessor by compute capability: CUDA C++ Programming Guide, "Arithmetic Instructions".
LANES = {
    "7.0": 64,
    "7.5": 64,
    "8.0": 64,
    "8.6": 128,
    "8.9": 128,
    "9.0": 128,
    "10.0": 128,
    "10.3": 128,
    "12.0": 128,
}
RESTART = "run nvidia-smi: it must list every GPU; restart the machine if the driver was updated or a GPU was lost"
NVIDIA_PCI_VENDOR = "0x10de"


@dataclass(frozen=True)
class Nvml:
    """What NVML said. `problems` name devices that are there and cannot be used, and why."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    driver_cuda: str | None = None
    problems: tuple[Note, ...] = ()


@dataclass
class _Found:
    gpus: list[tuple[Gpu, str]] = field(default_factory=list)
    problems: list[Note] = field(default_factory=list)


def read(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> Nvml:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves visible; never raises for a missing or broken driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        problem = _initialisation_problem(error, root)
        return Nvml(problems=(problem,) if problem else ())
    try:
        found = _Found()
        for index in range(_ask(pynvml.nvmlDeviceGetCount) or 0):
            try:
                _add(found, index)
            except pynvml.NVMLError as error:
                found.problems.append(
                    Note(text=f"GPU {index} does not answer: {error}", fix=RESTART)
                )
        cuda = _ask(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        return Nvml(
            gpus=_visible(found.gpus, environ.get("CUDA_VISIBLE_DEVICES")),
            driver=_ask(pynvml.nvmlSystemGetDriverVersion),
            driver_cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
            problems=tuple(found.problems),
        )
    except pynvml.NVMLError as error:
        text = f"the NVIDIA driver answers, but not about its GPUs: {error}"
        return Nvml(problems=(Note(text=text, fix=RESTART),))
    finally:
        pynvml.nvmlShutdown()


def _ask(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's answer, or None where NVML says that there is none; real failures pass through."""
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        if error.value in ABSENT:
            return None
        raise


def _add(found: _Found, index: int) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    mode = _ask(pynvml.nvmlDeviceGetMigMode, handle)
    whole = _gpu(handle, index)
    if not mode or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        found.gpus.append((whole, _ask(pynvml.nvmlDeviceGetUUID, handle) or ""))
        return
    instances = []
    for slot in range(_ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        try:
            instances.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot))
        except pynvml.NVMLError_NotFound:
            continue  # an empty slot
    for instance in instances:
        found.gpus.append(
            (_mig_instance(whole, instance), _ask(pynvml.nvmlDeviceGetUUID, instance) or "")
        )
    if not instances:
        text = f"GPU {index} ({whole.name}) is in MIG mode without an instance: CUDA cannot use it"
        fix = "create an instance (sudo nvidia-smi mig -cgi 0 -C) or leave MIG mode (sudo nvidia-smi -mig 0)"
        found.problems.append(Note(text=text, fix=fix))


def _gpu(handle: Any, index: int) -> Gpu:
    capability = _ask(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    capability = f"{capability[0]}.{capability[1]}" if capability else None
    memory = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    milliwatts = _ask(pynvml.nvmlDeviceGetPowerUsage, handle)
    limit_milliwatts = _ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    lanes = _ask(pynvml.nvmlDeviceGetNumGpuCores, handle)
    return Gpu(
        index=index,
        name=_name(handle),
        memory_bytes=memory.total if memory else None,
        compute_capability=capability,
        multiprocessors=lanes // LANES[capability] if lanes and capability in LANES else None,
        power_watts=milliwatts / 1e3 if milliwatts else None,
        power_limit_watts=limit_milliwatts / 1e3 if limit_milliwatts else None,
        sm_clock_hz=_hertz(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        sm_clock_max_hz=_hertz(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
        memory_clock_hz=_hertz(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        pcie_generation=_ask(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, handle),
        pcie_lanes=_ask(pynvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
        nvlinks=_nvlinks(handle),
    )


def _mig_instance(whole: Gpu, handle: Any) -> Gpu:
    name = _name(handle)
    profile = re.search(r"\bMIG (\S+)", name)
    memory = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    attributes = _ask(pynvml.nvmlDeviceGetAttributes_v2, handle)
    return whole.model_copy(
        update={
            "name": name if profile else f"{whole.name} MIG",
            "mig": profile.group(1) if profile else "instance",
            "memory_bytes": memory.total if memory else None,
            "multiprocessors": attributes.multiprocessorCount if attributes else None,
            "nvlinks": None,
        }
    )


def _name(handle: Any) -> str:
    name = _ask(pynvml.nvmlDeviceGetName, handle) or "NVIDIA GPU"
    return name.decode() if isinstance(name, bytes) else name


def _hertz(function: Callable[..., Any], handle: Any, clock: int) -> float | None:
    megahertz = _ask(function, handle, clock)
    return megahertz * 1e6 if megahertz else None


def _nvlinks(handle: Any) -> int | None:
    """How many NVLinks are up; None where the card has none or does not tell."""
    states = []
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        state = _ask(pynvml.nvmlDeviceGetNvLinkState, handle, link)
        if state is None:
            break
        states.append(state)
    return states.count(pynvml.NVML_FEATURE_ENABLED) if states else None


def _visible(found: list[tuple[Gpu, str]], wanted: str | None) -> tuple[Gpu, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES names, by index or UUID; CUDA ignores all behind an unknown entry."""
    if wanted is None:
        return tuple(gpu for gpu, _ in found)
    chosen: list[int] = []
    for entry in (part.strip() for part in wanted.split(",")):
        if entry.isdecimal():
            matches = [place for place, (gpu, _) in enumerate(found) if gpu.index == int(entry)]
        else:
            matches = [
                place for place, (_, uuid) in enumerate(found) if entry and uuid.startswith(entry)
            ]
        if not matches:
            break
        chosen += [place for place in matches if place not in chosen]
    return tuple(found[place][0] for place in chosen)


def _initialisation_problem(error: pynvml.NVMLError, root: Path) -> Note | None:
    """Why NVML did not start, where there is an NVIDIA device at all; else None."""
    loaded = (root / "proc/driver/nvidia/version").exists() or (root / "dev/nvidiactl").exists()
    if not loaded and not _on_pci_bus(root):
        return None
    if error.value != pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return Note(text=f"the NVIDIA driver is installed but fails: {error}", fix=RESTART)
    if loaded:
        text = "the NVIDIA driver is loaded, but its library libnvidia-ml.so.1 is not visible here"
        return Note(text=text, fix="start the container with --gpus all (NVIDIA container toolkit)")
    text = "an NVIDIA device is on the PCI bus, but no driver is installed"
    return Note(
        text=text,
        fix="install the NVIDIA driver of your distribution, or start from a Deep Learning AMI",
    )


def _on_pci_bus(root: Path) -> bool:
    """Whether a display (class 0x03…) device of NVIDIA is on the PCI bus."""
    for device in (root / "sys/bus/pci/devices").glob("*"):
        try:
            vendor, kind = (
                (device / "vendor").read_text().strip(),
                (device / "class").read_text().strip(),
            )
        except OSError:
            continue  # a device that went away while we looked
        if vendor == NVIDIA_PCI_VENDOR and kind.startswith("0x03"):
            return True
    return False
