"""`smml doctor`: is this machine ready for `make run`, and what to do about what is not."""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.specifiers import SpecifierSet

from smml import paths
from smml.data.catalogue import instance, match_accelerator
from smml.hardware import images, software
from smml.hardware.ceilings import cache_path
from smml.hardware.machine import GIB, MIB, Machine

Level = Literal["ok", "warn", "block"]
MARKS = {"ok": "ok   ", "warn": "WARN ", "block": "BLOCK"}
FREE_WANTED, FREE_NEEDED = 2 * GIB, 200 * MIB
MEMORY_WANTED = 4 * GIB
SHARED_MEMORY_WANTED = 1 * GIB
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HOW_TO_ADD = "add it to smml/data with value, unit, source and date"
COMPILER_FIX = "sudo apt-get install build-essential (macOS: xcode-select --install)"
# Prints "version|True or False|why not": in a process of its own, so that a broken torch cannot take doctor down.
TORCH_PROBE = """
import torch
why = ""
if torch.version.cuda:
    try:
        torch.cuda.init()
    except RuntimeError as error:
        why = str(error).splitlines()[0]
print(torch.__version__, torch.cuda.is_available(), why, sep="|")
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `fix` names what to do, and is empty where there is nothing to do."""

    level: Level
    subject: str
    found: str
    fix: str = ""


def examine(machine: Machine) -> list[Finding]:
    """Every check, in the order in which a reader would mend things. Only what stops `make run` is "block"."""
    checks = (_python, _compiler, _packages, _torch, _triton, _folders, _memory, _cpu, _gpus)
    checks += (_notes, _efa, _catalogue, _ceilings, _browser, _aws)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what the catalogue lacks becomes a finding
        return [finding for check in checks for finding in check(machine)]


def exit_code(findings: list[Finding]) -> int:
    """1 where something blocks `make run`, else 0."""
    return int(any(finding.level == "block" for finding in findings))


def render(findings: list[Finding]) -> str:
    """The findings as plain lines, each with its fix, and one line that sums up."""
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.level]} {finding.subject}: {finding.found}")
        if finding.fix:
            lines.append(f"      {'fix' if finding.level != 'ok' else 'how'}: {finding.fix}")
    counts = {level: sum(finding.level == level for finding in findings) for level in MARKS}
    ready = "not ready for make run" if counts["block"] else "ready for make run"
    lines.append(
        f"doctor: {ready}: {counts['block']} blocking, {counts['warn']} warnings, {counts['ok']} fine."
    )
    return "\n".join(lines)


def _python(machine: Machine) -> Iterator[Finding]:
    here = machine.software.python
    try:
        wanted = metadata.metadata("smml")["Requires-Python"]
    except metadata.PackageNotFoundError:
        yield Finding("block", "package", "smml is not installed in this Python", "make venv")
        return
    if SpecifierSet(wanted).contains(here, prereleases=True):
        yield Finding("ok", "Python", here)
    else:
        yield Finding(
            "block", "Python", f"{here}, needed {wanted}", f"install Python {wanted}, then make venv"
        )


def _compiler(machine: Machine) -> Iterator[Finding]:
    for subject, names in (
        ("C compiler", (os.environ.get("CC"), "cc", "gcc", "clang")),
        ("C++ compiler", (os.environ.get("CXX"), "c++", "g++", "clang++")),
    ):
        path = next((found for name in names if name and (found := shutil.which(name))), None)
        if path:
            yield Finding("ok", subject, path)
        else:
            yield Finding(
                "block", subject, "none found; torch.compile and Triton call it", "make system-deps"
            )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if machine.gpus and not header.exists():
        fix = f"install Python's headers: sudo apt-get install python{sysconfig.get_python_version()}-dev"
        yield Finding("warn", "Python headers", f"{header} is missing: Triton cannot launch kernels", fix)


def _packages(machine: Machine) -> Iterator[Finding]:
    try:
        unmet = software.unmet()
    except metadata.PackageNotFoundError:
        return  # _python has said so
    if unmet:
        names = ", ".join(f"{need} ({here or 'not installed'})" for need, here in unmet)
        yield Finding("block", "dependencies", f"missing or out of range: {names}", "make venv")
    lock = paths.checkout() / "constraints.txt"
    if not lock.exists():
        yield Finding("ok", "lock", f"no {lock.name} in {paths.checkout()}: versions are not compared")
        return
    differing = software.differing(lock)
    if differing:
        names = ", ".join(f"{name} {here} (locked {version})" for name, version, here in differing)
        yield Finding(
            "warn", "lock", f"{len(differing)} packages differ from {lock.name}: {names}", "make venv"
        )
    else:
        yield Finding("ok", "lock", f"every installed package is the one in {lock.name}")


def _torch(machine: Machine) -> Iterator[Finding]:
    if machine.software.torch is None:
        yield Finding("block", "torch", "not installed", "make venv")
        return
    probe = _probe_torch()
    if probe.returncode:
        why = (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[-1]
        yield Finding("block", "torch", f"{machine.software.torch} cannot be imported: {why}", "make venv")
        return
    version, available, why = probe.stdout.strip().splitlines()[-1].split("|", 2)
    yield Finding("ok", "torch", f"{version}, CUDA {machine.software.cuda or 'not built in'}")
    if machine.gpus and not machine.cuda_problem and available != "True":
        fix = "compare nvidia-smi with CUDA_VISIBLE_DEVICES; restart the machine after a driver update"
        yield Finding("warn", "torch on GPU", f"torch sees no GPU: {why or 'no reason given'}", fix)


def _probe_torch() -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", TORCH_PROBE], capture_output=True, text=True, check=False)


def _triton(machine: Machine) -> Iterator[Finding]:
    if machine.software.triton:
        yield Finding("ok", "triton", machine.software.triton)
    elif platform.system() == "Linux":
        yield Finding("warn", "triton", "not installed: the kernel notebooks cannot run", "make venv")
    else:
        yield Finding("ok", "triton", f"there is none for {platform.system()}: records are shown instead")


def _folders(machine: Machine) -> Iterator[Finding]:
    build = paths.build().absolute()
    existing = next(folder for folder in (build, *build.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            yield Finding("ok", "build folder", f"{build} can be written")
    except OSError as error:
        fix = "make it writable, or choose another one: SMML_BUILD=/some/folder"
        yield Finding("block", "build folder", f"{build} cannot be written: {error.strerror}", fix)
    for disk in machine.disks:
        free = f"{disk.free_bytes / GIB:.1f} GiB free in {disk.path}"
        if disk.role == "build" and disk.free_bytes < FREE_WANTED:
            level = "block" if disk.free_bytes < FREE_NEEDED else "warn"
            fix = "free 2 GiB, or choose another folder: SMML_BUILD=/some/folder"
            yield Finding(level, "disk", free, fix)
        elif disk.role == "build":
            yield Finding("ok", "disk", free)
        elif disk.role == "shared memory" and disk.total_bytes < SHARED_MEMORY_WANTED:
            size = f"{disk.path} holds {disk.total_bytes / MIB:.0f} MiB: several processes need more"
            fix = "start the container with --shm-size=8g, or: sudo mount -o remount,size=8g /dev/shm"
            yield Finding("warn", "shared memory", size, fix)


def _memory(machine: Machine) -> Iterator[Finding]:
    size = f"{machine.memory_bytes / GIB:.1f} GiB"
    if machine.memory_bytes >= MEMORY_WANTED:
        yield Finding("ok", "memory", size)
    else:
        fix = "give the machine or container 4 GiB, or run one notebook at a time"
        yield Finding("warn", "memory", f"{size}: some notebooks may be killed", fix)


def _cpu(machine: Machine) -> Iterator[Finding]:
    cpu = machine.cpu
    cores = f"{cpu.model}, {cpu.usable_cores} of {cpu.logical_cores} cores usable"
    if cpu.usable_cores < cpu.logical_cores:
        limit = (
            "the affinity mask"
            if cpu.quota_cores is None
            else f"a container quota of {cpu.quota_cores:g} cores"
        )
        yield Finding("ok", "CPU", f"{cores}, by {limit}", "docker run --cpus, or taskset, gives more")
    else:
        yield Finding("ok", "CPU", cores)
    if cpu.governor == "powersave":
        found = "governor powersave: clocks rise late, timings spread"
        yield Finding("ok", "CPU clock", found, "sudo cpupower frequency-set -g performance")


def _gpus(machine: Machine) -> Iterator[Finding]:
    for gpu in machine.gpus:
        yield Finding("ok", f"GPU {gpu.index}", f"{gpu.name}, driver {machine.software.driver}")
    problem = machine.cuda_problem
    if problem is None:
        return
    if machine.software.torch and machine.software.cuda is None:
        wheel = f"torch=={machine.software.torch.split('+')[0]}"
        fix = f"from an index with CUDA builds: pip install --force-reinstall -c constraints.txt {wheel}"
    elif machine.software.cuda:
        fix = f"update the NVIDIA driver until nvidia-smi shows CUDA {machine.software.cuda} or newer"
    else:
        fix = "make venv"
    yield Finding("warn", "GPU and torch", problem, fix)


def _notes(machine: Machine) -> Iterator[Finding]:
    for note in machine.notes:
        yield Finding("warn", "hardware", note.text, note.fix)


def _efa(machine: Machine) -> Iterator[Finding]:
    for item in machine.interfaces:
        if item.efa and not item.up:
            fix = "install the EFA software (aws-efa-installer) or start from a Deep Learning AMI"
            yield Finding("warn", "EFA", f"{item.name} is there but has no working driver", fix)
        elif item.efa:
            yield Finding("ok", "EFA", f"{item.name}, software {machine.software.efa or 'not found'}")


def _catalogue(machine: Machine) -> Iterator[Finding]:
    whole = {gpu.name: gpu.memory_bytes for gpu in machine.gpus if not gpu.mig}
    for name, memory in whole.items():
        if match_accelerator(name, memory) is None:
            yield Finding("warn", "catalogue", f"{name} is not in it: no datasheet peak is shown", HOW_TO_ADD)
    if machine.ec2 and instance(machine.ec2.instance_type) is None:
        yield Finding(
            "warn", "catalogue", f"{machine.ec2.instance_type} is not in it: no price is known", HOW_TO_ADD
        )


def _ceilings(machine: Machine) -> Iterator[Finding]:
    if machine.software.torch is None:
        return
    path = cache_path(machine)
    state = (
        f"measured, in {path}"
        if path.exists()
        else "not measured yet: the first notebook that needs them does"
    )
    yield Finding("ok", "ceilings", state)


def _browser(machine: Machine) -> Iterator[Finding]:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path:
        yield Finding("ok", "browser", path)
    else:
        yield Finding("warn", "browser", "no chromium: the site's tests are skipped", "make system-deps")


def _aws(machine: Machine) -> Iterator[Finding]:
    subject, region = "AWS image", None
    if machine.ec2:
        kind, region = machine.ec2.instance_type, machine.ec2.region
        text = kind
    elif found := images.counterpart(machine):
        kind, price = found.name, found.price_usd_per_hour
        subject = "AWS counterpart"
        text = f"{kind}, {price.value:.2f} USD/h {found.price_kind} in {found.region} ({price.date})"
    else:
        yield Finding(
            "ok", "AWS counterpart", "no priced type of the catalogue holds as much as this machine"
        )
        return
    image = images.image(kind)
    if image is None:
        fix = "choose a newer GPU family, such as g5, g6 or p5"
        yield Finding("warn", subject, f"{text}: no current Deep Learning AMI serves it", fix)
        return
    studio = f"ml.{kind} in SageMaker Studio" if images.in_studio(kind) else "not offered in SageMaker Studio"
    yield Finding("ok", subject, f"{text}: {image.name}; {studio}", image.lookup(region))
