"""AWS images: which one an instance family starts from, and which instance holds as much as a machine."""

import pytest

from smml.hardware import Cpu, Gpu, Machine, Software, images


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("g5.xlarge", images.GPU_X86),
        ("p6-b200.48xlarge", images.GPU_X86),
        ("g7e.2xlarge", images.GPU_X86),
        ("g5g.xlarge", images.GPU_ARM),
        ("p6e-gb200.36xlarge", images.GPU_ARM),
        ("trn2.48xlarge", images.NEURON),
        ("inf2.xlarge", images.NEURON),
        ("m7g.large", images.CPU_ARM),
        ("c8gn.16xlarge", images.CPU_ARM),
        ("a1.large", images.CPU_ARM),
        ("m7i.large", images.CPU_X86),
        ("m7i-flex.large", images.CPU_X86),
        ("p3.2xlarge", None),
        ("g4ad.xlarge", None),
    ],
)
def test_image_by_family(kind, expected):
    assert images.image(kind) == expected


def test_studio_list_comes_from_botocore():
    assert images.in_studio("g5.xlarge")
    assert not images.in_studio("m7g.large")


def machine(
    gpus: int = 0, name: str = "NVIDIA L4", cores: int = 2, isa: tuple[str, ...] = ("avx2",)
) -> Machine:
    return Machine(
        cpu=Cpu(
            model="CPU",
            vendor="V",
            physical_cores=cores,
            logical_cores=cores,
            usable_cores=cores,
            isa=isa,
        ),
        memory_bytes=int(7.7 * 2**30),
        gpus=tuple(Gpu(index=n, name=name) for n in range(gpus)),
        software=Software(python="3.12.1"),
    )


@pytest.mark.parametrize(
    ("gpus", "name", "key"),
    [(1, "NVIDIA L4", "l4"), (2, "NVIDIA L4", "l4"), (1, "NVIDIA H200", "h200-sxm")],
)
def test_counterpart_has_the_same_gpu_as_often(gpus, name, key):
    found = images.counterpart(machine(gpus, name))
    assert found.accelerator == key
    assert found.accelerator_count >= gpus


@pytest.mark.parametrize(
    ("isa", "image"), [(("avx2",), images.CPU_X86), (("neon",), images.CPU_ARM)]
)
def test_counterpart_of_a_cpu_keeps_the_architecture(isa, image):
    found = images.counterpart(machine(cores=4, isa=isa))
    assert found.accelerator is None
    assert found.vcpu >= 4
    assert found.memory.value >= 8
    assert images.image(found.name) == image


def test_counterpart_is_the_cheapest_that_fits():
    assert (
        images.counterpart(machine()).price_usd_per_hour.value
        <= images.counterpart(machine(cores=8)).price_usd_per_hour.value
    )


@pytest.mark.filterwarnings("ignore:the catalogue does not hold")
def test_no_counterpart_for_what_the_catalogue_does_not_hold():
    assert images.counterpart(machine(1, "NVIDIA Imaginary 9000")) is None
    assert images.counterpart(machine(cores=100_000)) is None
