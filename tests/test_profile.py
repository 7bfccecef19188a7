"""Profiles: which one a machine gets, and what is said where it cannot run the one asked for."""

import pytest
from hypothesis import given, strategies as st

from smml.errors import UserError
from smml.hardware import PROFILES, Cpu, Gpu, Machine, Software, select
from smml.hardware.profile import slurm_nodes


def machine(gpus: int = 0, cuda: str | None = "13.0", mig: str | None = None) -> Machine:
    return Machine(
        cpu=Cpu(
            model="AMD EPYC",
            vendor="AuthenticAMD",
            physical_cores=2,
            logical_cores=2,
            usable_cores=2,
        ),
        memory_bytes=24 * 2**30,
        gpus=tuple(Gpu(index=n, name="NVIDIA L4", mig=mig) for n in range(gpus)),
        software=Software(python="3.12.1", torch="2.13.0", cuda=cuda),
    )


@pytest.mark.parametrize(
    ("given_machine", "environ", "name", "device", "dtype"),
    [
        (machine(), {}, "cpu", "cpu", "float32"),
        (machine(1), {}, "gpu", "cuda", "bfloat16"),
        (machine(4), {}, "multi_gpu", "cuda", "bfloat16"),
        (machine(4, mig="1g.6gb"), {}, "gpu", "cuda", "bfloat16"),
        (machine(2, cuda=None), {}, "cpu", "cpu", "float32"),
        (machine(8), {"SLURM_JOB_NUM_NODES": "2"}, "cluster", "cuda", "bfloat16"),
        (machine(), {"SLURM_NNODES": "4"}, "cluster", "cpu", "float32"),
        (machine(1), {"SLURM_JOB_NUM_NODES": "1"}, "gpu", "cuda", "bfloat16"),
        (machine(1), {"SLURM_JOB_NUM_NODES": "1-4"}, "gpu", "cuda", "bfloat16"),
    ],
)
def test_auto(given_machine, environ, name, device, dtype):
    profile = select("auto", given_machine, environ)
    assert (profile.name, profile.device, profile.dtype) == (name, device, dtype)
    assert "chosen automatically" in profile.why


def test_auto_says_why_a_gpu_is_left_alone():
    assert "build without CUDA" in select("auto", machine(2, cuda=None), {}).why


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_that_fits_is_given_as_asked(name):
    environ = {"SLURM_JOB_NUM_NODES": "2"} if name == "cluster" else {}
    profile = select(name, machine(2), environ)
    assert profile.name == name
    assert profile.gemm_sizes == PROFILES[name].gemm_sizes
    assert "asked for" in profile.why


def test_cluster_without_gpus_takes_the_sizes_of_the_cpu():
    profile = select("cluster", machine(), {"SLURM_JOB_NUM_NODES": "2"})
    assert (profile.name, profile.gemm_sizes) == ("cluster", PROFILES["cpu"].gemm_sizes)


@pytest.mark.parametrize("name", ["", "GPU", "tpu", "large"])
def test_unknown_profile(name):
    with pytest.raises(UserError, match="allowed are auto, cpu, gpu, multi_gpu, cluster") as error:
        select(name, machine(), {})
    assert repr(name) in str(error.value)


@pytest.mark.parametrize(
    ("name", "given_machine", "missing"),
    [
        ("gpu", machine(), "one GPU"),
        ("gpu", machine(1, cuda=None), "build without CUDA"),
        ("multi_gpu", machine(1), "two GPUs"),
        ("multi_gpu", machine(3, mig="1g.6gb"), "MIG"),
        ("cluster", machine(8), "two nodes"),
    ],
)
def test_profile_without_its_hardware(name, given_machine, missing):
    with pytest.raises(UserError) as error:
        select(name, given_machine, {})
    text = str(error.value)
    assert text.startswith(f"profile={name} needs")
    assert missing in text
    assert "use profile=auto" in text
    assert "\n" not in text


@given(st.integers(0, 16), st.text(max_size=5))
def test_auto_never_fails(gpus, nodes):
    assert select("auto", machine(gpus), {"SLURM_JOB_NUM_NODES": nodes}).name in PROFILES
    assert slurm_nodes({"SLURM_JOB_NUM_NODES": nodes}) >= 0


def test_tables_are_ordered_and_fit_their_devices():
    for profile in PROFILES.values():
        for sizes in (
            *(profile.gemm_sizes, profile.chain_lengths, profile.batches),
            *(profile.decode_batches, profile.training_batches),
        ):
            assert list(sizes) == sorted(set(sizes))
        assert profile.decode_batches[0] == profile.training_batches[0] == 1, "what others gain on"
        assert profile.dtype == ("float32" if profile.device == "cpu" else "bfloat16")
    assert PROFILES["cpu"].elementwise_elements == 32 * 2**20
    assert PROFILES["gpu"].elementwise_elements == 256 * 2**20
