"""Versions of what is installed, read from package metadata (torch is not imported), and how they fit the lock."""

import platform
import re
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from smml.hardware.machine import Software


def read(
    driver: str | None = None, driver_cuda: str | None = None, root: Path = Path("/")
) -> Software:
    """Every version that a measurement may depend on; None for what is not installed."""
    cuda = torch_cuda()
    return Software(
        python=platform.python_version(),
        os=_os_name(root),
        kernel=platform.release(),
        torch=installed("torch"),
        triton=installed("triton"),
        cuda=cuda,
        cudnn=_nvidia_wheel("cudnn", cuda),
        nccl=_nvidia_wheel("nccl", cuda),
        driver=driver,
        driver_cuda=driver_cuda,
        efa=_efa(root),
    )


def installed(package: str) -> str | None:
    """Version of an installed package, None if it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def torch_cuda() -> str | None:
    """CUDA version that the installed torch was built for; None for a CPU build and without torch."""
    try:
        file = Path(str(metadata.distribution("torch").locate_file("torch/version.py")))
        return cuda_of(file.read_text())
    except (metadata.PackageNotFoundError, OSError):
        return None


def cuda_of(version_file: str) -> str | None:
    """The CUDA version in the text of a torch/version.py."""
    match = re.search(r"""^cuda\b[^=\n]*=\s*['"]([\d.]+)['"]""", version_file, re.MULTILINE)
    return match.group(1) if match else None


def locked(constraints: Path) -> dict[str, str]:
    """Package -> version of a pip constraints file that pins with ==; canonical names."""
    pins = (
        line.split("#")[0].split(";")[0].strip() for line in constraints.read_text().splitlines()
    )
    pairs = (pin.split("==", 1) for pin in pins if "==" in pin)
    return {canonicalize_name(name.strip()): version.strip() for name, version in pairs}


def differing(constraints: Path) -> list[tuple[str, str, str]]:
    """(package, locked, installed) where they differ; packages that are not installed do not count.

    The local part is left out: torch 2.13.0+cpu and 2.13.0+cu130 are both the locked 2.13.0.
    """
    found = []
    for name, version in sorted(locked(constraints).items()):
        here = installed(name)
        if here is not None and Version(here).public != Version(version).public:
            found.append((name, version, here))
    return found


def unmet(package: str = "smml") -> list[tuple[str, str | None]]:
    """(requirement, installed version or None) for each dependency of `package` that is missing or out of range."""
    found = []
    for text in metadata.requires(package) or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate(
            {**default_environment(), "extra": ""}
        ):
            continue
        here = installed(requirement.name)
        if here is None or not requirement.specifier.contains(here, prereleases=True):
            found.append((f"{requirement.name}{requirement.specifier}", here))
    return found


def _nvidia_wheel(library: str, cuda: str | None) -> str | None:
    """Version of the NVIDIA library that came as a wheel with torch; None where torch bundles it otherwise."""
    if cuda is None:
        return None
    return installed(f"nvidia-{library}-cu{cuda.split('.')[0]}") or installed(f"nvidia-{library}")


def _os_name(root: Path) -> str | None:
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    try:
        match = re.search(
            r'^PRETTY_NAME="?([^"\n]+)', (root / "etc/os-release").read_text(), re.MULTILINE
        )
    except OSError:
        return platform.system() or None
    return match.group(1) if match else None


def _efa(root: Path) -> str | None:
    """Version of AWS's EFA installer, else of the kernel's driver."""
    for path, pattern in (
        ("opt/amazon/efa_installed_packages", r"EFA installer version:\s*(\S+)"),
        ("sys/module/efa/version", r"(\S+)"),
    ):
        try:
            match = re.search(pattern, (root / path).read_text())
        except OSError:
            continue
        if match:
            return match.group(1)
    return None
