"""GPUs through a stand-in for NVML: full cards, cards in VMs, MIG, lost ones, drivers that fail."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from smml.hardware import gpu
from smml.hardware.machine import GIB, MIB, Gpu

detect_module = sys.modules["smml.hardware.detect"]  # the package's `detect` is the function

CPUINFO = {
    "proc/cpuinfo": "processor : 0\nvendor_id : AuthenticAMD\nmodel name : AMD EPYC 9R14\nflags : avx2 fma",
    "proc/meminfo": f"MemTotal: {15 * 2**20} kB",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def refuse(code: int) -> Callable[..., object]:
    def call(*_: object) -> object:
        raise pynvml.NVMLError(code)

    return call


class Card(SimpleNamespace):
    """One card of the stand-in: an H200 unless told otherwise."""

    def __init__(self, **changes: object) -> None:
        values = {
            "name": "NVIDIA H200", "uuid": "GPU-1111", "memory": 143771 * MIB, "capability": (9, 0), "cores": 16896, "limit": 700_000,
            "mig": None, "instances": (), "lost": False, "multiprocessors": None,
        }  # fmt: skip
        super().__init__(**(values | changes))


def nvml(monkeypatch: pytest.MonkeyPatch, *cards: Card, missing: tuple[str, ...] = ()) -> None:
    """Put `cards` behind pynvml's functions; those in `missing` answer NOT_SUPPORTED."""

    def handle(index: int) -> Card:
        if cards[index].lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return cards[index]

    def mig_mode(card: Card) -> list[int]:
        if card.mig is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [card.mig, card.mig]

    def instance(card: Card, slot: int) -> Card:
        if slot >= len(card.instances):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return card.instances[slot]

    def link(card: Card, number: int) -> int:
        if number >= 18:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return pynvml.NVML_FEATURE_ENABLED

    functions = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: "580.159.04",
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 13000,
        "nvmlDeviceGetCount": lambda: len(cards),
        "nvmlDeviceGetHandleByIndex": handle,
        "nvmlDeviceGetName": lambda card: card.name,
        "nvmlDeviceGetUUID": lambda card: card.uuid,
        "nvmlDeviceGetMigMode": mig_mode,
        "nvmlDeviceGetMaxMigDeviceCount": lambda card: 7,
        "nvmlDeviceGetMigDeviceHandleByIndex": instance,
        "nvmlDeviceGetAttributes_v2": lambda card: SimpleNamespace(
            multiprocessorCount=card.multiprocessors
        ),
        "nvmlDeviceGetCudaComputeCapability": lambda card: card.capability,
        "nvmlDeviceGetMemoryInfo": lambda card: SimpleNamespace(total=card.memory),
        "nvmlDeviceGetPowerUsage": lambda card: 123_456,
        "nvmlDeviceGetEnforcedPowerLimit": lambda card: card.limit,
        "nvmlDeviceGetNumGpuCores": lambda card: card.cores,
        "nvmlDeviceGetClockInfo": lambda card, clock: (
            345 if clock == pynvml.NVML_CLOCK_SM else 3201
        ),
        "nvmlDeviceGetMaxClockInfo": lambda card, clock: 1980,
        "nvmlDeviceGetMaxPcieLinkGeneration": lambda card: 5,
        "nvmlDeviceGetMaxPcieLinkWidth": lambda card: 16,
        "nvmlDeviceGetNvLinkState": link,
    }
    for name, function in functions.items():
        absent = refuse(pynvml.NVML_ERROR_NOT_SUPPORTED)
        monkeypatch.setattr(pynvml, name, absent if name in missing else function)


def test_h200(monkeypatch, tmp_path):
    nvml(monkeypatch, Card())
    found = gpu.read(tmp_path, {})
    assert (found.driver, found.driver_cuda, found.problems) == ("580.159.04", "13.0", ())
    assert found.gpus == (
        Gpu(
            index=0, name="NVIDIA H200", memory_bytes=143771 * MIB, compute_capability="9.0", multiprocessors=132,
            power_watts=123.456, power_limit_watts=700.0, sm_clock_hz=345e6, sm_clock_max_hz=1.98e9, memory_clock_hz=3.201e9,
            pcie_generation=5, pcie_lanes=16, nvlinks=18,
        ),
    )  # fmt: skip


def test_gpu_in_a_vm_that_reports_little(monkeypatch, tmp_path):
    silent = (
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetNumGpuCores",
        "nvmlDeviceGetClockInfo",
    )
    silent += ("nvmlDeviceGetMaxClockInfo", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetNvLinkState")
    silent += (
        "nvmlDeviceGetMaxPcieLinkGeneration",
        "nvmlDeviceGetMaxPcieLinkWidth",
        "nvmlDeviceGetUUID",
    )
    nvml(monkeypatch, Card(), missing=silent)
    found = gpu.read(tmp_path, {})
    assert found.problems == ()
    assert found.gpus == (Gpu(index=0, name="NVIDIA H200", compute_capability="9.0"),)


def test_mig_instances_stand_for_their_gpu(monkeypatch, tmp_path):
    slices = tuple(
        Card(name="NVIDIA H200 MIG 1g.18gb", uuid=f"MIG-{n}", memory=16 * GIB, multiprocessors=16)
        for n in range(2)
    )
    nvml(monkeypatch, Card(mig=1, instances=slices), Card(uuid="GPU-2222", mig=0))
    found = gpu.read(tmp_path, {})
    assert [(item.index, item.mig, item.multiprocessors) for item in found.gpus] == [
        (0, "1g.18gb", 16),
        (0, "1g.18gb", 16),
        (1, None, 132),
    ]
    assert found.gpus[0].compute_capability == "9.0"
    assert [
        item.memory_bytes for item in gpu.read(tmp_path, {"CUDA_VISIBLE_DEVICES": "MIG-1"}).gpus
    ] == [16 * GIB]


def test_mig_mode_without_an_instance_is_a_problem(monkeypatch, tmp_path):
    nvml(monkeypatch, Card(mig=1))
    found = gpu.read(tmp_path, {})
    assert found.gpus == ()
    assert "MIG mode without an instance" in found.problems[0].text
    assert "nvidia-smi mig" in found.problems[0].fix


def test_lost_gpu_is_said_and_the_others_stay(monkeypatch, tmp_path):
    nvml(monkeypatch, Card(lost=True), Card(uuid="GPU-2222"))
    found = gpu.read(tmp_path, {})
    assert [item.index for item in found.gpus] == [1]
    assert found.problems[0].text.startswith("GPU 0 does not answer")


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("2,0", [2, 0]),
        ("1,9,0", [1]),
        ("GPU-33", [2]),
        ("0,0", [0]),
    ],
)
def test_cuda_visible_devices(monkeypatch, tmp_path, wanted, indices):
    nvml(monkeypatch, Card(), Card(uuid="GPU-2222"), Card(uuid="GPU-3333"))
    environ = {} if wanted is None else {"CUDA_VISIBLE_DEVICES": wanted}
    assert [item.index for item in gpu.read(tmp_path, environ).gpus] == indices


@pytest.mark.parametrize(
    ("code", "files", "text"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, {}, None),
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, {"proc/driver/nvidia/version": "580"}, "not visible here"),
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, {"sys/bus/pci/devices/0/vendor": "0x10de", "sys/bus/pci/devices/0/class": "0x030200"}, "no driver is installed"),
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, {"sys/bus/pci/devices/0/vendor": "0x10de", "sys/bus/pci/devices/0/class": "0x040300"}, None),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, {}, None),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, {"dev/nvidiactl": ""}, "installed but fails"),
    ],
)  # fmt: skip
def test_nvml_that_does_not_start(monkeypatch, tmp_path, code, files, text):
    monkeypatch.setattr(pynvml, "nvmlInit", refuse(code))
    found = gpu.read(write(tmp_path, files), {})
    assert found.gpus == ()
    assert (text is None) == (found.problems == ())
    assert all(text in problem.text and problem.fix for problem in found.problems)


def test_whole_tree_is_read(monkeypatch, tmp_path):
    nvml(monkeypatch, Card())
    dmi = {
        "sys/class/dmi/id/sys_vendor": "Amazon EC2",
        "sys/class/dmi/id/product_name": "p5en.48xlarge",
    }
    write(
        tmp_path,
        CPUINFO | dmi | {"etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.5 LTS"', "dev/neuron0": ""},
    )
    found = detect_module.read(tmp_path, {"AWS_EC2_METADATA_DISABLED": "true"})
    assert found.device_name == "NVIDIA H200"
    assert (found.memory_bytes, found.software.os, found.software.driver) == (
        15 * GIB,
        "Ubuntu 24.04.5 LTS",
        "580.159.04",
    )
    assert found.ec2.instance_type == "p5en.48xlarge"
    assert len(found.notes) == 1
    rows = found.describe()
    assert all(label and text for label, text in rows)
    assert ("EC2", "p5en.48xlarge, region not reported, purchase option not reported") in rows
    assert found.environment()["sm_clock_hz"] == [345e6]
