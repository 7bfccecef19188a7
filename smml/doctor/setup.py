"""Is the software ready: Python, compilers, packages, torch, triton, writable folders, a browser?"""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

from smml import paths
from smml.doctor.finding import Finding
from smml.hardware import software
from smml.hardware.machine import GIB, MIB, Machine

FREE_WANTED, FREE_NEEDED = 2 * GIB, 200 * MIB
SHARED_MEMORY_WANTED = 1 * GIB
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
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


def python(machine: Machine) -> Iterator[Finding]:
    """Python itself, against what the package needs."""
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
            "block",
            "Python",
            f"{here}, needed {wanted}",
            f"install Python {wanted}, then make venv",
        )


def compiler(machine: Machine) -> Iterator[Finding]:
    """C and C++ compilers and Python headers: torch.compile and Triton build with them."""
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
        yield Finding(
            "warn", "Python headers", f"{header} is missing: Triton cannot launch kernels", fix
        )


def packages(machine: Machine) -> Iterator[Finding]:
    """Installed packages against the dependencies and the lock."""
    try:
        unmet = software.unmet()
    except metadata.PackageNotFoundError:
        return  # _python has said so
    if unmet:
        names = ", ".join(f"{need} ({here or 'not installed'})" for need, here in unmet)
        yield Finding("block", "dependencies", f"missing or out of range: {names}", "make venv")
    lock = paths.checkout() / "constraints.txt"
    if not lock.exists():
        yield Finding(
            "ok", "lock", f"no {lock.name} in {paths.checkout()}: versions are not compared"
        )
        return
    differing = software.differing(lock)
    if differing:
        names = ", ".join(f"{name} {here} (locked {version})" for name, version, here in differing)
        yield Finding(
            "warn",
            "lock",
            f"{len(differing)} packages differ from {lock.name}: {names}",
            "make venv",
        )
    else:
        yield Finding("ok", "lock", f"every installed package is the one in {lock.name}")


def torch(machine: Machine) -> Iterator[Finding]:
    """Does torch import here, and does it see the GPUs?"""
    if machine.software.torch is None:
        yield Finding("block", "torch", "not installed", "make venv")
        return
    probe = _probe_torch()
    if probe.returncode:
        why = (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[-1]
        yield Finding(
            "block", "torch", f"{machine.software.torch} cannot be imported: {why}", "make venv"
        )
        return
    version, available, why = probe.stdout.strip().splitlines()[-1].split("|", 2)
    yield Finding("ok", "torch", f"{version}, CUDA {machine.software.cuda or 'not built in'}")
    if machine.gpus and not machine.cuda_problem and available != "True":
        fix = "compare nvidia-smi with CUDA_VISIBLE_DEVICES; restart the machine after a driver update"
        yield Finding("warn", "torch on GPU", f"torch sees no GPU: {why or 'no reason given'}", fix)


def _probe_torch() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TORCH_PROBE], capture_output=True, text=True, check=False
    )


def triton(machine: Machine) -> Iterator[Finding]:
    """Is there a Triton that fits this torch?"""
    if machine.software.triton:
        yield Finding("ok", "triton", machine.software.triton)
    elif platform.system() == "Linux":
        yield Finding(
            "warn", "triton", "not installed: the kernel notebooks cannot run", "make venv"
        )
    else:
        yield Finding(
            "ok", "triton", f"there is none for {platform.system()}: records are shown instead"
        )


def folders(machine: Machine) -> Iterator[Finding]:
    """Build folder, disks and shared memory: writable, and large enough?"""
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
            size = (
                f"{disk.path} holds {disk.total_bytes / MIB:.0f} MiB: several processes need more"
            )
            fix = (
                "start the container with --shm-size=8g, or: sudo mount -o remount,size=8g /dev/shm"
            )
            yield Finding("warn", "shared memory", size, fix)


def browser(machine: Machine) -> Iterator[Finding]:
    """The browser that the tests of the site use."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path:
        yield Finding("ok", "browser", path)
    else:
        yield Finding(
            "warn", "browser", "no chromium: the site's tests are skipped", "make system-deps"
        )
