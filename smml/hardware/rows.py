"""A machine in words: the rows of a notebook's "this machine" table."""

from smml.hardware.machine import GIB, MIB, Cpu, Disk, Ec2, Gpu, Interface, Machine, Software


def rows(machine: Machine) -> list[tuple[str, str]]:
    """Rows (label, text); what is missing is said, not left out."""
    table = [
        ("Fingerprint", machine.fingerprint),
        ("CPU", _cpu_text(machine.cpu)),
        ("Instruction sets", ", ".join(machine.cpu.isa) or "not reported"),
        ("Caches", _cache_text(machine.cpu)),
        ("Memory", _gib(machine.memory_bytes)),
    ]
    table += [(f"GPU {gpu.index}", _gpu_text(gpu)) for gpu in machine.gpus] or [("GPU", "none")]
    table += [(f"Disk ({disk.role})", _disk_text(disk)) for disk in machine.disks]
    table += [(f"Network {item.name}", _interface_text(item)) for item in machine.interfaces]
    table.append(("Software", _software_text(machine.software)))
    table.append(("EC2", _ec2_text(machine.ec2)))
    table += [("Note", note.text) for note in machine.notes]
    return table


def _known(value: object, text: str) -> str | None:
    return None if value is None else text


def _join(parts: list[str | None]) -> str:
    return ", ".join(part for part in parts if part)


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"


def _cpu_text(cpu: Cpu) -> str:
    cores = f"{cpu.usable_cores} of {cpu.logical_cores} logical cores usable"
    quota = _known(cpu.quota_cores, f"container quota {cpu.quota_cores} cores")
    nodes = f"{cpu.numa_nodes} NUMA node{'s' if cpu.numa_nodes > 1 else ''}"
    clock = (
        f"up to {cpu.max_frequency_hz / 1e9:.2f} GHz"
        if cpu.max_frequency_hz
        else "top clock not reported"
    )
    return _join([cpu.model, cores, f"{cpu.physical_cores} physical", quota, nodes, clock])


def _cache_text(cpu: Cpu) -> str:
    sizes = [("L1d", cpu.l1d_bytes), ("L2", cpu.l2_bytes), ("L3", cpu.l3_bytes)]
    if all(size is None for _, size in sizes):
        return "not reported"
    texts = {name: _cache_size(size) for name, size in sizes}
    return f"L1d {texts['L1d']} and L2 {texts['L2']} a core, L3 {texts['L3']} in all"


def _cache_size(size: int | None) -> str:
    if size is None:
        return "none reported"
    return f"{size / MIB:g} MiB" if size >= MIB else f"{size / 1024:g} KiB"


def _gpu_text(gpu: Gpu) -> str:
    return _join(
        [
            gpu.name,
            _gib(gpu.memory_bytes) if gpu.memory_bytes else "memory not reported",
            _known(gpu.mig, f"MIG instance {gpu.mig}"),
            _known(gpu.compute_capability, f"compute capability {gpu.compute_capability}"),
            _known(gpu.multiprocessors, f"{gpu.multiprocessors} multiprocessors"),
            f"limit {gpu.power_limit_watts:.0f} W"
            if gpu.power_limit_watts
            else "power limit not reported",
            f"up to {gpu.sm_clock_max_hz / 1e6:.0f} MHz"
            if gpu.sm_clock_max_hz
            else "clocks not reported",
            f"PCIe {gpu.pcie_generation} x{gpu.pcie_lanes}"
            if gpu.pcie_generation and gpu.pcie_lanes
            else None,
            f"{gpu.nvlinks} NVLinks up" if gpu.nvlinks else None,
        ]
    )


def _disk_text(disk: Disk) -> str:
    kind = disk.filesystem or "file system not reported"
    return f"{disk.path}: {_gib(disk.free_bytes)} free of {_gib(disk.total_bytes)} ({kind})"


def _interface_text(interface: Interface) -> str:
    speed = interface.speed_bits_per_s
    return _join(
        [
            "EFA" if interface.efa else None,
            f"{speed / 1e9:g} Gbit/s" if speed else "speed not reported",
            _known(interface.mtu, f"MTU {interface.mtu}"),
            "up" if interface.up else "down",
        ]
    )


def _software_text(software: Software) -> str:
    shown = {
        "torch": software.torch,
        "triton": software.triton,
        "CUDA": software.cuda,
        "cuDNN": software.cudnn,
    }
    shown |= {"NCCL": software.nccl, "NVIDIA driver": software.driver, "EFA": software.efa}
    texts = [f"Python {software.python}", software.os or "OS not reported"]
    texts += [f"{name} {version}" for name, version in shown.items() if version]
    missing = [name for name, version in shown.items() if not version]
    return _join([*texts, f"without {', '.join(missing)}" if missing else None])


def _ec2_text(ec2: Ec2 | None) -> str:
    if ec2 is None:
        return "not on EC2"
    place = ec2.availability_zone or ec2.region or "region not reported"
    return _join([ec2.instance_type, place, ec2.lifecycle or "purchase option not reported"])
