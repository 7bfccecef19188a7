"""The machine's models: fingerprint, nominal memory, names, what torch can use, the table for a reader."""

import re

import pytest
from hypothesis import given, strategies as st

from smml.hardware.machine import (
    GIB,
    MIB,
    Cpu,
    Disk,
    Gpu,
    Machine,
    Note,
    Software,
    nominal_gib,
    slug,
)


def machine(**changes: object) -> Machine:
    values: dict[str, object] = {
        "cpu": Cpu(
            model="AMD EPYC 7R13 Processor", vendor="AuthenticAMD", physical_cores=8, logical_cores=16,
            usable_cores=16, isa=("avx2", "fma"), l3_bytes=32 * MIB,
        ),
        "memory_bytes": int(62.1 * GIB),
        "software": Software(python="3.12.1", torch="2.13.0", cuda="13.0", driver="580.1", driver_cuda="13.0"),
    }  # fmt: skip
    return Machine(**(values | changes))


def h200(**changes: object) -> Gpu:
    return Gpu(**({"index": 0, "name": "NVIDIA H200", "memory_bytes": 143771 * MIB} | changes))


def test_fingerprint_reads_and_serves_as_a_file_name():
    assert re.fullmatch(r"amd-epyc-7r13-16c-64gib-[0-9a-f]{6}", machine().fingerprint)
    assert re.fullmatch(
        r"nvidia-h200-x2-[0-9a-f]{6}", machine(gpus=(h200(), h200(index=1))).fingerprint
    )


@given(
    free=st.integers(0, 2**44),
    clock=st.none() | st.floats(1e8, 3e9),
    limit=st.none() | st.floats(100, 1000),
    version=st.text(max_size=8),
    load=st.floats(0, 500),
    wobble_mib=st.integers(-8, 8),
)
def test_fingerprint_ignores_what_varies(free, clock, limit, version, load, wobble_mib):
    gpus = (h200(),)
    changed = machine(
        cpu=machine().cpu.model_copy(update={"governor": "powersave", "max_frequency_hz": clock}),
        memory_bytes=int(62.1 * GIB) + wobble_mib * MIB,
        gpus=(
            h200(
                sm_clock_hz=clock, power_limit_watts=limit, memory_bytes=(143771 + wobble_mib) * MIB
            ),
        ),
        disks=(Disk(role="build", path="/x", filesystem=None, total_bytes=2**44, free_bytes=free),),
        software=Software(python=version, torch=version, driver=version),
        load_average=(load, load, load),
    )
    assert changed.fingerprint == machine(gpus=gpus).fingerprint


@pytest.mark.parametrize(
    "update",
    [
        {"usable_cores": 8},
        {"model": "AMD EPYC 9R14"},
        {"isa": ("avx2", "avx512f", "fma")},
        {"l3_bytes": 64 * MIB},
    ],
)
def test_fingerprint_follows_the_processor(update):
    changed = machine(cpu=machine().cpu.model_copy(update=update))
    assert changed.fingerprint != machine().fingerprint


def test_fingerprint_follows_gpus_and_memory():
    base = machine(gpus=(h200(),))
    others = [
        machine(),
        machine(gpus=(h200(name="NVIDIA H100"),)),
        machine(gpus=(h200(), h200(index=1))),
        machine(gpus=(h200(memory_bytes=80 * GIB),)),
        machine(gpus=(h200(name="NVIDIA H200 MIG 1g.18gb", mig="1g.18gb"),)),
        machine(gpus=(h200(),), memory_bytes=128 * GIB),
    ]
    assert len({item.fingerprint for item in (base, *others)}) == len(others) + 1


@given(
    size_gib=st.sampled_from(
        [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048]
    ),
    kept_back=st.floats(0, 0.03),
    wobble_mib=st.integers(-8, 8),
)
def test_nominal_memory_forgives_what_the_kernel_keeps_back(size_gib, kept_back, wobble_mib):
    assert nominal_gib(int(size_gib * GIB * (1 - kept_back)) + wobble_mib * MIB) == size_gib


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Intel(R) Xeon(R) Platinum 8488C", "intel-xeon-platinum-8488c"),
        ("Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz", "intel-xeon-e5-2686-v4"),
        ("AMD EPYC 9R14 96-Core Processor", "amd-epyc-9r14"),
        ("NVIDIA A100-SXM4-80GB", "nvidia-a100-sxm4-80gb"),
        ("../..", "unknown"),
    ],
)
def test_slugs(name, expected):
    assert slug(name) == expected


@given(st.text(max_size=80))
def test_every_slug_is_file_system_safe(name):
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", slug(name))


@pytest.mark.parametrize(
    ("update", "problem"),
    [
        ({}, None),
        ({"cuda": None, "torch": "2.13.0+cpu"}, "build without CUDA"),
        ({"driver_cuda": "12.4"}, "serves CUDA 12.4"),
        ({"torch": None}, "not installed"),
    ],
)
def test_whether_torch_can_use_the_gpus(update, problem):
    found = machine(gpus=(h200(),), software=machine().software.model_copy(update=update))
    assert (found.cuda_problem is None) == (problem is None)
    assert problem is None or problem in found.cuda_problem
    assert found.torch_device == ("cpu" if problem else "cuda")
    assert machine(software=found.software).cuda_problem is None


def test_describe_says_what_is_missing():
    silent = dict(machine(gpus=(Gpu(index=0, name="NVIDIA H200"),)).describe())["GPU 0"]
    assert "memory not reported, power limit not reported, clocks not reported" in silent
    rows = dict(
        machine(cpu=machine().cpu.model_copy(update={"l3_bytes": None, "isa": ()})).describe()
    )
    assert rows["GPU"] == "none"
    assert rows["EC2"] == "not on EC2"
    assert rows["Caches"] == rows["Instruction sets"] == "not reported"
    assert "without triton" in rows["Software"]


def test_one_process_uses_one_mig_instance():
    slices = tuple(h200(name="NVIDIA H200 MIG 1g.18gb", mig="1g.18gb") for _ in range(2))
    assert machine(gpus=slices).usable_gpus == 1
    assert machine(gpus=(h200(), h200(index=1))).usable_gpus == 2


def test_a_machine_survives_json():
    found = machine(
        gpus=(h200(),), load_average=(0.5, 0.25, 0.125), notes=(Note(text="a", fix="b"),)
    )
    assert Machine.model_validate_json(found.model_dump_json()) == found


def test_accelerator_is_that_of_the_whole_gpu():
    assert machine(gpus=(h200(),)).accelerator.key == "h200-sxm"
    assert machine(gpus=(h200(name="NVIDIA H200 MIG 1g.18gb", mig="1g.18gb"),)).accelerator is None
    assert machine().accelerator is None
