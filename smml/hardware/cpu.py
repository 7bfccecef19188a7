"""The processor: model, cores that may be used, instruction sets, caches; from /proc and /sys, or macOS's sysctl."""

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

from smml.hardware import cgroup
from smml.hardware.machine import Cpu

# Flag of /proc/cpuinfo or name of macOS's sysctl -> the name used here; only sets that matter to matrix work.
FLAGS = {
    **{
        name: name
        for name in ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni")
    },
    **{
        name: name
        for name in ("avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8")
    },
    **{name: name for name in ("sve", "sve2", "bf16", "i8mm", "sme")},
    **{"asimd": "neon", "neon": "neon", "asimdhp": "fp16", "asimddp": "dotprod"},
    **{
        "FEAT_BF16": "bf16",
        "FEAT_I8MM": "i8mm",
        "FEAT_FP16": "fp16",
        "FEAT_DotProd": "dotprod",
        "FEAT_SME": "sme",
    },
    **{"AdvSIMD": "neon", "avx1_0": "avx", "avx2_0": "avx2"},
}
# MIDR_EL1 implementer and part numbers, as the Linux kernel lists them (arch/arm64/include/asm/cputype.h).
ARM_PARTS = {
    ("0x41", "0xd0c"): "Arm Neoverse-N1",
    ("0x41", "0xd40"): "Arm Neoverse-V1",
    ("0x41", "0xd49"): "Arm Neoverse-N2",
    ("0x41", "0xd4f"): "Arm Neoverse-V2",
    ("0x41", "0xd83"): "Arm Neoverse-V3AE",
    ("0x41", "0xd84"): "Arm Neoverse-V3",
    ("0x41", "0xd8e"): "Arm Neoverse-N3",
    ("0x41", "0xd08"): "Arm Cortex-A72",
    ("0x41", "0xd0b"): "Arm Cortex-A76",
}
VENDORS = {"0x41": "ARM", "0x4e": "NVIDIA", "0x61": "Apple", "0x51": "Qualcomm", "0xc0": "Ampere"}


def read(root: Path = Path("/"), affinity: int | None = None) -> Cpu:
    """The processor described by the /proc and /sys under `root`; `affinity` is the count of allowed CPUs."""
    processors = _processors(_text(root / "proc/cpuinfo") or "")
    first = processors[0] if processors else {}
    online = (
        _count(_text(root / "sys/devices/system/cpu/online"))
        or len(processors)
        or os.cpu_count()
        or 1
    )
    if affinity is None:
        affinity = len(os.sched_getaffinity(0))
    quota = cgroup.quota_cores(root)
    folders = sorted(
        (root / "sys/devices/system/cpu").glob("cpu[0-9]*"), key=lambda path: int(path.name[3:])
    )
    one = root / "sys/devices/system/cpu/cpu0"
    flags = (first.get("flags") or first.get("Features") or "").split()
    frequency_khz = _text(one / "cpufreq/cpuinfo_max_freq")
    return Cpu(
        model=_model(first),
        vendor=first.get("vendor_id") or VENDORS.get(first.get("CPU implementer", ""), "unknown"),
        physical_cores=_physical_cores(folders, processors) or online,
        logical_cores=online,
        usable_cores=usable_cores(affinity, quota),
        quota_cores=quota,
        isa=isa(flags),
        l1d_bytes=_cache_bytes(one, "1", "Data"),
        l2_bytes=_cache_bytes(one, "2", "Unified"),
        l3_bytes=_last_level_bytes(folders),
        numa_nodes=len(list((root / "sys/devices/system/node").glob("node[0-9]*"))) or 1,
        max_frequency_hz=float(frequency_khz) * 1e3 if frequency_khz else None,
        governor=_text(one / "cpufreq/scaling_governor"),
    )


def from_sysctl(text: str) -> Cpu:
    """The processor of a Mac from the lines of `sysctl hw machdep.cpu`; no quota and no affinity exist there."""
    values = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    names = [
        name.rsplit(".", 1)[-1]
        for name, value in values.items()
        if ".optional." in name and value == "1"
    ]
    names += (
        (
            values.get("machdep.cpu.features", "")
            + " "
            + values.get("machdep.cpu.leaf7_features", "")
        )
        .lower()
        .split()
    )
    logical = int(values.get("hw.logicalcpu", os.cpu_count() or 1))

    def number(*keys: str) -> int | None:
        return next((int(values[key]) for key in keys if int(values.get(key, 0)) > 0), None)

    return Cpu(
        model=values.get("machdep.cpu.brand_string", "unknown"),
        vendor=values.get("machdep.cpu.vendor", "Apple"),
        physical_cores=number("hw.physicalcpu") or logical,
        logical_cores=logical,
        usable_cores=logical,
        isa=isa(names),
        l1d_bytes=number("hw.perflevel0.l1dcachesize", "hw.l1dcachesize"),
        l2_bytes=number("hw.perflevel0.l2cachesize", "hw.l2cachesize"),
        l3_bytes=number("hw.l3cachesize"),
        max_frequency_hz=number("hw.cpufrequency_max"),
    )


def isa(flags: Iterable[str]) -> tuple[str, ...]:
    """The instruction sets that matter to matrix work, under one name on every system, sorted."""
    return tuple(sorted({FLAGS[flag] for flag in flags if flag in FLAGS}))


def usable_cores(affinity: int, quota: float | None) -> int:
    """Whole cores that may be used: the smaller of the allowed CPUs and the container's quota, at least 1."""
    return max(1, min(affinity, int(quota) if quota is not None else affinity))


def _processors(text: str) -> list[dict[str, str]]:
    blocks = [
        dict(
            (part.strip() for part in line.split(":", 1))
            for line in block.splitlines()
            if ":" in line
        )
        for block in re.split(r"\n\s*\n", text)
    ]
    return [block for block in blocks if "processor" in block]


def _model(first: dict[str, str]) -> str:
    name = first.get("model name", "")
    if name and name != "unknown":
        return name
    if "CPU implementer" in first:
        pair = (first["CPU implementer"], first.get("CPU part", ""))
        return ARM_PARTS.get(pair) or f"Arm implementer {pair[0]} part {pair[1]}"
    if "vendor_id" in first:
        return f"{first['vendor_id']} family {first.get('cpu family')} model {first.get('model')}"
    return platform.machine()


def _physical_cores(folders: list[Path], processors: list[dict[str, str]]) -> int | None:
    groups = {
        _text(folder / "topology/core_cpus_list") or _text(folder / "topology/thread_siblings_list")
        for folder in folders
    } - {None}
    if groups:
        return len(groups)
    pairs = {
        (block.get("physical id"), block["core id"]) for block in processors if "core id" in block
    }
    return len(pairs) or None


def _caches(folder: Path) -> list[tuple[str, str, int, str]]:
    """(level, type, bytes, CPUs that share it) of one CPU's caches."""
    found = []
    for index in sorted((folder / "cache").glob("index[0-9]*")):
        size = _text(index / "size")
        if size:
            fields = [_text(index / name) or "" for name in ("level", "type", "shared_cpu_list")]
            found.append((fields[0], fields[1], _bytes(size), fields[2]))
    return found


def _cache_bytes(folder: Path, level: str, kind: str) -> int | None:
    return next(
        (
            size
            for lvl, typ, size, _ in _caches(folder)
            if lvl == level and typ in (kind, "Unified")
        ),
        None,
    )


def _last_level_bytes(folders: list[Path]) -> int | None:
    shared = {
        sharers: size
        for folder in folders
        for level, _, size, sharers in _caches(folder)
        if level == "3"
    }
    return sum(shared.values()) or None


def _bytes(size: str) -> int:
    factor = {"K": 2**10, "M": 2**20, "G": 2**30}.get(size[-1:], 1)
    return int(size.rstrip("KMG")) * factor


def _count(ranges: str | None) -> int | None:
    """How many numbers a list such as "0-3,8" holds."""
    if not ranges:
        return None
    bounds = [part.split("-") for part in ranges.split(",")]
    return sum(int(bound[-1]) - int(bound[0]) + 1 for bound in bounds)


def _text(path: Path) -> str | None:
    """The file's text, stripped; None where it is missing, empty or closed to this user."""
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
