"""What the container's control groups (v1 and v2) allow this process: CPU quota and memory limit."""

from collections.abc import Iterator
from pathlib import Path

# v1 says "no limit" with the largest page-aligned 64-bit number.
UNLIMITED_BYTES = 2**60


def quota_cores(root: Path = Path("/")) -> float | None:
    """CPU quota in cores, the smallest of this group and those above it; None without one."""
    quotas = []
    for folder in _folders(root, "cpu"):
        fields = (_read(folder / "cpu.max") or "").split()
        if not fields:
            fields = [
                _read(folder / "cpu.cfs_quota_us") or "",
                _read(folder / "cpu.cfs_period_us") or "",
            ]
        if (
            len(fields) == 2
            and fields[0].isdigit()
            and fields[1].isdigit()
            and int(fields[0])
            and int(fields[1])
        ):
            quotas.append(int(fields[0]) / int(fields[1]))
    return min(quotas, default=None)


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Memory limit in bytes, the smallest of this group and those above it; None without one."""
    limits = []
    for folder in _folders(root, "memory"):
        text = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes") or ""
        if text.isdigit() and 0 < int(text) < UNLIMITED_BYTES:
            limits.append(int(text))
    return min(limits, default=None)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """This process's group and every group above it, in the v1 hierarchy of `controller` and in v2's.

    Inside a container the path that the kernel names may not exist; the mount's own root then stands for it.
    """
    base = root / "sys/fs/cgroup"
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "" and number == "0":
            tops = [base, base / "unified"]
        elif controller in controllers.split(","):
            tops = [base / controllers, base / controller]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for top in tops:
            for depth in range(len(parts), -1, -1):
                yield top.joinpath(*parts[:depth])


def _read(path: Path) -> str | None:
    """The file's text, stripped; None where it is missing or the container forbids reading it."""
    try:
        return path.read_text().strip()
    except OSError:
        return None
