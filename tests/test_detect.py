"""Detection from the /proc and /sys trees of other machines, and of this one."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from smml.hardware import cgroup, cpu, detect, host
from smml.hardware.machine import GIB, MIB

detect_module = sys.modules["smml.hardware.detect"]

GRAVITON3 = """processor\t: {n}
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes fphp asimdhp asimddp sve i8mm bf16 svebf16
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
CPU revision\t: 1
"""
SAPPHIRE_RAPIDS = """processor\t: {n}
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8488C
physical id\t: 0
core id\t\t: {core}
cpu cores\t: 2
flags\t\t: fpu sse4_2 avx avx2 fma f16c avx512f avx512bw avx512_vnni avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8
"""
EPYC = """processor\t: {n}
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC 7R13 Processor
physical id\t: 0
core id\t\t: {n}
flags\t\t: fpu sse4_2 avx avx2 fma f16c
"""
GVISOR = """processor\t: {n}
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: unknown
flags\t\t: fpu sse4_2 avx2 amx_tile
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def cpuinfo(template: str, count: int, threads: int = 1) -> dict[str, str]:
    blocks = [template.format(n=n, core=n // threads) for n in range(count)]
    return {
        "proc/cpuinfo": "\n".join(blocks),
        "proc/meminfo": f"MemTotal:       {15 * 2**20} kB\nMemFree: 1 kB",
    }


def caches(count: int, sizes: dict[str, str], share: int) -> dict[str, str]:
    """Cache files of `count` CPUs; each L3 is shared by `share` of them."""
    files = {"sys/devices/system/cpu/online": f"0-{count - 1}"}
    for n in range(count):
        for index, (kind, size) in enumerate(sizes.items()):
            folder = f"sys/devices/system/cpu/cpu{n}/cache/index{index}"
            first = n // share * share
            sharers = f"{first}-{first + share - 1}" if kind[0] == "3" else f"{n}"
            files |= {
                f"{folder}/level": kind[0],
                f"{folder}/type": kind[1:],
                f"{folder}/size": size,
            }
            files |= {f"{folder}/shared_cpu_list": sharers}
    return files


SIZES = {"1Data": "48K", "1Instruction": "32K", "2Unified": "2048K", "3Unified": "32M"}


# ------------------------------------------------------------------------------------------------------- processors


def test_graviton_is_named_by_its_part_number(tmp_path):
    write(tmp_path, cpuinfo(GRAVITON3, 4) | caches(4, SIZES, 4))
    found = cpu.read(tmp_path, affinity=4)
    assert (found.model, found.vendor) == ("Arm Neoverse-V1", "ARM")
    assert found.isa == ("bf16", "dotprod", "fp16", "i8mm", "neon", "sve")
    assert (found.physical_cores, found.logical_cores, found.usable_cores) == (4, 4, 4)
    assert (found.l1d_bytes, found.l2_bytes, found.l3_bytes) == (48 * 1024, 2 * MIB, 32 * MIB)


def test_unknown_arm_part_keeps_its_numbers(tmp_path):
    write(
        tmp_path,
        {
            "proc/cpuinfo": "processor : 0\nCPU implementer : 0x99\nCPU part : 0x001\nFeatures : asimd"
        },
    )
    assert cpu.read(tmp_path, affinity=1).model == "Arm implementer 0x99 part 0x001"


def test_intel_with_amx_counts_cores_without_their_second_threads(tmp_path):
    topology = {
        f"sys/devices/system/cpu/cpu{n}/topology/core_cpus_list": f"{n // 2 * 2}-{n // 2 * 2 + 1}"
        for n in range(4)
    }
    more = {"sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3800000"}
    more |= {"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave"}
    more |= {f"sys/devices/system/node/node{n}/cpulist": "0" for n in range(2)}
    write(tmp_path, cpuinfo(SAPPHIRE_RAPIDS, 4, threads=2) | caches(4, SIZES, 4) | topology | more)
    found = cpu.read(tmp_path, affinity=4)
    assert (found.physical_cores, found.logical_cores, found.numa_nodes) == (2, 4, 2)
    assert {"amx_tile", "amx_bf16", "avx512_bf16", "avx512_vnni"} <= set(found.isa)
    assert found.max_frequency_hz == 3.8e9
    assert found.governor == "powersave"


def test_cores_come_from_cpuinfo_where_sys_has_no_topology(tmp_path):
    write(tmp_path, cpuinfo(SAPPHIRE_RAPIDS, 4, threads=2))
    found = cpu.read(tmp_path, affinity=4)
    assert (found.physical_cores, found.logical_cores, found.l3_bytes) == (2, 4, None)


def test_last_level_caches_of_all_chiplets_are_added(tmp_path):
    write(tmp_path, cpuinfo(EPYC, 16) | caches(16, SIZES, 8))
    found = cpu.read(tmp_path, affinity=16)
    assert found.l3_bytes == 2 * 32 * MIB
    assert found.isa == ("avx", "avx2", "f16c", "fma", "sse4_2")


def test_sandbox_without_names_caches_and_topology(tmp_path):
    write(tmp_path, cpuinfo(GVISOR, 2))
    found = cpu.read(tmp_path, affinity=2)
    assert found.model == "GenuineIntel family 6 model 143"
    assert (found.physical_cores, found.l1d_bytes, found.l2_bytes, found.max_frequency_hz) == (
        2,
        None,
        None,
        None,
    )


def test_mac_from_sysctl():
    text = (
        "hw.physicalcpu: 10\nhw.logicalcpu: 10\nhw.l1dcachesize: 65536\nhw.l2cachesize: 4194304\n"
        "hw.perflevel0.l1dcachesize: 131072\nhw.perflevel0.l2cachesize: 16777216\nhw.optional.AdvSIMD: 1\n"
        "hw.optional.arm.FEAT_BF16: 1\nhw.optional.arm.FEAT_SME: 0\nmachdep.cpu.brand_string: Apple M3"
    )
    found = cpu.from_sysctl(text)
    assert (found.model, found.usable_cores, found.l3_bytes) == ("Apple M3", 10, None)
    assert (found.l1d_bytes, found.l2_bytes) == (131072, 16777216)
    assert found.isa == ("bf16", "neon")


# ------------------------------------------------------------------------------------------------- container limits


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, None),
        (
            {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
                "sys/fs/cgroup/a/cpu.max": "400000 100000",
            },
            4.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/0123",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        ({}, None),
    ],
)
def test_cpu_quota_of_both_cgroup_versions(tmp_path, files, quota):
    assert cgroup.quota_cores(write(tmp_path, files)) == quota


@given(affinity=st.integers(1, 256), quota=st.none() | st.floats(0.01, 300))
def test_usable_cores_are_whole_and_within_both_limits(affinity, quota):
    cores = cpu.usable_cores(affinity, quota)
    assert 1 <= cores <= affinity
    assert quota is None or cores <= max(1, quota)


def test_quota_reduces_usable_cores(tmp_path):
    files = cpuinfo(EPYC, 8) | {
        "proc/self/cgroup": "0::/",
        "sys/fs/cgroup/cpu.max": "250000 100000",
    }
    found = cpu.read(write(tmp_path, files), affinity=8)
    assert (found.logical_cores, found.usable_cores, found.quota_cores) == (8, 2, 2.5)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [({}, 15 * GIB), ({"memory.max": str(4 * GIB)}, 4 * GIB), ({"memory.max": "max"}, 15 * GIB)],
)
def test_memory_is_the_smaller_of_machine_and_container(tmp_path, limit, expected):
    files = cpuinfo(EPYC, 1) | {"proc/self/cgroup": "0::/"}
    write(tmp_path, files | {f"sys/fs/cgroup/{name}": text for name, text in limit.items()})
    assert host.memory_bytes(tmp_path) == expected


def test_memory_without_a_v1_limit(tmp_path):
    files = cpuinfo(EPYC, 1) | {
        "proc/self/cgroup": "4:memory:/",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
    }
    assert host.memory_bytes(write(tmp_path, files)) == 15 * GIB


# ---------------------------------------------------------------------------------------------------------- network


def test_interfaces_leave_out_loopback_and_idle_virtual_devices(tmp_path):
    net = "sys/class/net"
    files = {
        f"{net}/lo/operstate": "unknown",
        f"{net}/ifb0/operstate": "down",
        f"{net}/eth0/operstate": "up",
    }
    files |= {
        f"{net}/eth0/speed": "25000",
        f"{net}/eth0/mtu": "9001",
        f"{net}/eth1/operstate": "down",
    }
    files |= {f"{net}/eth1/speed": "-1", f"{net}/eth1/device/vendor": "0x1d0f"}
    found = {item.name: item for item in host.interfaces(write(tmp_path, files))}
    assert set(found) == {"eth0", "eth1"}
    assert (found["eth0"].speed_bits_per_s, found["eth0"].mtu, found["eth0"].up) == (
        25e9,
        9001,
        True,
    )
    assert (found["eth1"].speed_bits_per_s, found["eth1"].up) == (None, False)


def test_efa_with_and_without_its_driver(tmp_path):
    pci = tmp_path / "sys/bus/pci/devices"
    for address in ("0000:00:06.0", "0000:00:07.0"):
        write(pci / address, {"vendor": "0x1d0f", "device": "0xefa2"})
    write(pci / "0000:00:05.0", {"vendor": "0x1d0f", "device": "0xec20"})
    write(tmp_path, {"sys/class/infiniband/rdmap0s6/ports/1/rate": "100 Gb/sec (4X EDR)"})
    write(
        tmp_path,
        {
            "sys/class/infiniband/rdmap0s6/ports/1/state": "4: ACTIVE",
            "sys/class/net/eth0/operstate": "up",
        },
    )
    (tmp_path / "sys/class/infiniband/rdmap0s6/device").symlink_to(pci / "0000:00:06.0")
    efa = [item for item in host.interfaces(tmp_path) if item.efa]
    assert [(item.name, item.up, item.speed_bits_per_s) for item in efa] == [
        ("rdmap0s6", True, 100e9),
        ("0000:00:07.0", False, None),
    ]


def test_neuron_devices_are_said(tmp_path):
    write(tmp_path, {"dev/neuron0": "", "dev/neuron1": ""})
    assert [note.text for note in host.other_accelerators(tmp_path)] == [
        "2 AWS Neuron devices found: only NVIDIA GPUs are driven here"
    ]


# ----------------------------------------------------------------------------------------------------- this machine


def test_detect_keeps_its_answer_until_told_to_look_again():
    first = detect()
    assert detect() is first
    assert detect(refresh=True) is not first
    assert first.fingerprint == detect().fingerprint
    assert {disk.role for disk in first.disks} >= {"build", "temporary"}
    assert 1 <= first.cpu.usable_cores <= first.cpu.logical_cores


def test_detection_does_not_import_torch():
    code = "import sys; from smml.hardware import detect; detect().describe(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
