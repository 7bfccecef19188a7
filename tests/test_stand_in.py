"""The EC2 type that prices this machine: itself, the same accelerator, or as many cores of the same architecture."""

import pytest

from smml.cost.decisions.stand_in import stand_in
from smml.data import instance
from smml.errors import UserError
from smml.hardware.machine import Cpu, Ec2, Gpu, Machine, Software

GIB = 2**30


def machine(cores: int = 2, isa: tuple[str, ...] = ("avx2", "sse4_2"), **changes) -> Machine:
    cpu = Cpu(
        model="Test", vendor="Test", physical_cores=cores, logical_cores=cores, usable_cores=cores,
        isa=isa,
    )  # fmt: skip
    values = {"cpu": cpu, "memory_bytes": 24 * GIB, "software": Software(python="3.12.1")}
    return Machine(**(values | changes))


def gpus(name: str, memory_gib: float, number: int = 1) -> tuple[Gpu, ...]:
    return tuple(
        Gpu(index=index, name=name, memory_bytes=int(memory_gib * GIB)) for index in range(number)
    )


@pytest.mark.parametrize(
    ("cores", "isa", "expected"),
    [(2, ("avx2",), "c5.large"), (3, ("avx2",), "c5.xlarge"), (2, ("neon",), "c6g.large")],
)
def test_a_machine_is_priced_like_the_cheapest_that_lasts_with_as_many_cores(cores, isa, expected):
    found = stand_in(machine(cores, isa), "cpu")
    assert found.instance.name == expected
    assert found.usd_per_hour == instance(expected).price_usd_per_hour.value
    assert str(instance(expected).price_usd_per_hour.date) in found.why


def test_an_instance_of_ec2_stands_for_itself():
    found = stand_in(machine(ec2=Ec2(instance_type="m5.xlarge")), "cpu")
    assert (found.instance.name, found.copies) == ("m5.xlarge", 1)


def test_a_withdrawn_instance_is_stood_for_by_another():
    found = stand_in(machine(ec2=Ec2(instance_type="p3.2xlarge")), "cpu")
    assert found.instance.name == "c5.large"


def test_a_gpu_costs_its_share_of_the_instance_that_carries_it():
    one = stand_in(machine(gpus=gpus("NVIDIA L4", 22.5)), "cuda")
    assert (one.instance.name, one.copies) == ("g6.xlarge", 1)
    many = stand_in(machine(gpus=gpus("NVIDIA H200", 140)), "cuda")
    assert many.copies == many.instance.accelerator_count > 1
    assert many.usd_per_hour * many.copies == pytest.approx(many.instance.price_usd_per_hour.value)
    assert many.measurement(10.0, 0.1).tokens_per_s == 10.0 * many.copies
    assert many.measurement(10.0, 0.1).latency_s == 0.1


def test_without_such_a_type_the_error_says_what_to_do():
    with (
        pytest.warns(UserWarning, match="catalogue does not hold"),
        pytest.raises(UserError, match=r"carries NVIDIA GeForce RTX 4090; use profile=.cpu."),
    ):
        stand_in(machine(gpus=gpus("NVIDIA GeForce RTX 4090", 24)), "cuda")
    with pytest.raises(UserError, match="5000 cores"):
        stand_in(machine(5000), "cpu")
