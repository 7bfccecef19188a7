"""What surrounds the processor: memory, disks, network devices with EFA, accelerators that are not GPUs."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import psutil

from smml import paths
from smml.hardware import cgroup
from smml.hardware.machine import Disk, Interface, Note

AMAZON_PCI_VENDOR = "0x1d0f"
EFA_PCI_DEVICE = "0xefa"  # 0xefa0 … 0xefa3: one device number a generation


def memory_bytes(root: Path = Path("/")) -> int:
    """Main memory that this process may use: the machine's, or the container's limit where that is less."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo") or "", re.MULTILINE)
    total = int(match.group(1)) * 1024 if match else psutil.virtual_memory().total
    limit = cgroup.memory_limit_bytes(root)
    return total if limit is None else min(total, limit)


def disks() -> tuple[Disk, ...]:
    """The places where the notebooks write: build folder, temporary folder, shared memory where there is one."""
    places = [
        ("build", paths.build()),
        ("temporary", Path(tempfile.gettempdir())),
        ("shared memory", Path("/dev/shm")),
    ]
    found = []
    for role, place in places:
        if role == "shared memory" and not place.is_dir():
            continue
        existing = next(
            folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists()
        )
        usage = shutil.disk_usage(existing)
        found.append(
            Disk(
                role=role,
                path=str(place),
                filesystem=_filesystem(existing),
                total_bytes=usage.total,
                free_bytes=usage.free,
            )
        )
    return tuple(found)


def interfaces(root: Path = Path("/")) -> tuple[Interface, ...]:
    """Network devices without the loopback, then EFA devices, then EFA devices that have no driver."""
    folder = root / "sys/class/net"
    if not folder.is_dir():
        return tuple(
            Interface(
                name=name, speed_bits_per_s=stats.speed * 1e6 or None, mtu=stats.mtu, up=stats.isup
            )
            for name, stats in sorted(psutil.net_if_stats().items())
            if not name.startswith("lo")
        )
    found = []
    for device in sorted(folder.iterdir()):
        up = (_text(device / "operstate") or "") in ("up", "unknown")
        physical = (device / "device").exists()
        # Idle virtual devices (bridges, tunnels, ifb) say nothing about the machine.
        if device.name == "lo" or not (up or physical):
            continue
        found.append(
            Interface(
                name=device.name,
                speed_bits_per_s=_speed(device),
                mtu=_number(device / "mtu"),
                up=up,
            )
        )
    return (*found, *_efa(root))


def other_accelerators(root: Path = Path("/")) -> tuple[Note, ...]:
    """Notes on accelerators that are there and that this package does not drive."""
    names = []
    neuron = len(list((root / "dev").glob("neuron[0-9]*")))
    if neuron:
        names.append(f"{neuron} AWS Neuron device{'s' if neuron > 1 else ''}")
    if (root / "dev/kfd").exists():
        names.append("an AMD GPU")
    fix = "use an instance with an NVIDIA GPU, or go on with the CPU"
    return tuple(
        Note(text=f"{name} found: only NVIDIA GPUs are driven here", fix=fix) for name in names
    )


def load_average() -> tuple[float, float, float] | None:
    """Processes that ran or waited over 1, 5 and 15 minutes; None where the system does not count them."""
    try:
        return os.getloadavg()
    except OSError:
        return None


def _efa(root: Path) -> list[Interface]:
    found, driven = [], set()
    for device in sorted((root / "sys/class/infiniband").glob("*")):
        address = (device / "device").resolve()
        if not _is_efa(address):
            continue
        driven.add(address.name)
        rate = re.match(r"([\d.]+) Gb/sec", _text(device / "ports/1/rate") or "")
        state = _text(device / "ports/1/state") or ""
        found.append(
            Interface(
                name=device.name,
                speed_bits_per_s=float(rate.group(1)) * 1e9 if rate else None,
                up="ACTIVE" in state,
                efa=True,
            )
        )
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        if device.name not in driven and _is_efa(device):
            found.append(Interface(name=device.name, up=False, efa=True))
    return found


def _is_efa(device: Path) -> bool:
    number = _text(device / "device") or ""
    return _text(device / "vendor") == AMAZON_PCI_VENDOR and number.startswith(EFA_PCI_DEVICE)


def _speed(device: Path) -> float | None:
    """Link speed in bit/s; virtual devices answer -1 or refuse to be read."""
    megabits = _number(device / "speed")
    return megabits * 1e6 if megabits and megabits > 0 else None


def _filesystem(path: Path) -> str | None:
    """Type of the file system that holds `path`: that of the longest mount point above it."""
    mounts = [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]
    resolved = path.resolve()
    above = [(len(point), kind) for point, kind in mounts if resolved.is_relative_to(point)]
    return max(above)[1] if above else None


def _number(path: Path) -> int | None:
    text = _text(path) or ""
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def _text(path: Path) -> str | None:
    """The file's text, stripped; None where it is missing or the kernel refuses to answer."""
    try:
        return path.read_text().strip()
    except OSError:
        return None
