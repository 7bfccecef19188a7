"""The facts: complete, sourced, dense kept apart from sparse, matched by whole device names."""

import datetime
import tomllib
import warnings
from importlib import resources

import pytest

from smml.data import catalogue
from smml.data.catalogue import (
    accelerator,
    accelerators,
    age_days,
    instance,
    instances,
    match_accelerator,
)
from smml.errors import UserError

ACCELERATORS = (
    resources.files("smml.data").joinpath("accelerators.toml").read_text(encoding="utf-8")
)
INSTANCES = resources.files("smml.data").joinpath("instances.toml").read_text(encoding="utf-8")

KEYS = """v100-16gb v100-32gb t4 a100-40gb-sxm a100-80gb-sxm a100-80gb-pcie a10 a10g l4 l40s h100-sxm h100-pcie
h100-nvl h200-sxm b200 b300 rtx-pro-6000-server radeon-pro-v520 inferentia1 inferentia2 trainium1 trainium2"""
TYPES = """t3.micro t3.2xlarge m5.large m5.24xlarge c5.large c5.24xlarge c6g.medium c6g.16xlarge r5.large r5.24xlarge
x1e.xlarge x1e.32xlarge p3.2xlarge p3.8xlarge p3.16xlarge p3dn.24xlarge p4d.24xlarge p4de.24xlarge p5.4xlarge
p5.48xlarge p5e.48xlarge p5en.48xlarge p6-b200.48xlarge p6-b300.48xlarge g4dn.xlarge g4dn.12xlarge g4dn.metal
g4ad.xlarge g4ad.16xlarge g5.xlarge g5.48xlarge g6.xlarge g6.48xlarge g6e.xlarge g6e.48xlarge g7e.2xlarge
trn1.2xlarge trn1.32xlarge trn1n.32xlarge trn2.3xlarge trn2.48xlarge inf1.xlarge inf1.24xlarge inf2.xlarge
inf2.48xlarge"""


def quantities():
    """Every figure of both files, as (row, field, quantity)."""
    for entry in [*accelerators().values(), *instances().values()]:
        where = getattr(entry, "key", None) or entry.name
        for field in type(entry).model_fields:
            value = getattr(entry, field)
            if isinstance(value, catalogue.Quantity):
                yield where, field, value
            elif isinstance(value, dict):
                for key, part in value.items():
                    if isinstance(part, catalogue.Quantity):
                        yield where, f"{field}.{key}", part


@pytest.mark.parametrize("key", KEYS.split())
def test_accelerator_is_held(key):
    held = accelerator(key)
    assert held is not None
    assert held.key == key


@pytest.mark.parametrize("name", TYPES.split())
def test_instance_type_is_held(name):
    held = instance(name)
    assert held is not None
    assert held.price_usd_per_hour is not None
    assert (held.name, held.family) == (name, name.split(".")[0])


def test_unknown_keys_yield_none():
    assert accelerator("h900") is None
    assert instance("p99.metal") is None


def test_every_figure_has_unit_source_and_past_date():
    for where, field, figure in quantities():
        assert figure.value > 0, (where, field)
        assert figure.unit, (where, field)
        assert figure.source, (where, field)
        assert figure.url.startswith("http"), (where, field)
        assert datetime.date(2015, 1, 1) <= figure.date <= datetime.date(2026, 11, 21), (
            where,
            field,
        )


def test_unchecked_figures_are_the_known_ones():
    assert {(where, field) for where, field, figure in quantities() if not figure.checked} == {
        ("h100-pcie", "dense_peak_flops.fp8"),
        ("radeon-pro-v520", "bandwidth"),
        ("radeon-pro-v520", "power"),
        ("radeon-pro-v520", "dense_peak_flops.fp32"),
        ("radeon-pro-v520", "dense_peak_flops.fp16"),
    }


@pytest.mark.parametrize("text", [ACCELERATORS, INSTANCES], ids=["accelerators", "instances"])
def test_every_source_is_cited(text):
    body = text.split("[sources.")[-1]
    unused = [key for key in tomllib.loads(text)["sources"] if f'"{key}"' not in body]
    assert unused == []


def test_sparse_is_twice_dense_or_an_exception_is_stated():
    for device in accelerators().values():
        for dtype, sparse in device.sparse_peak_flops.items():
            dense = device.dense_peak_flops[dtype].value
            if dtype in device.sparse_exceptions:
                assert dense < sparse.value <= 4.1 * dense, (device.key, dtype)
            else:
                assert sparse.value == pytest.approx(2 * dense, rel=0.01), (device.key, dtype)


@pytest.mark.parametrize(
    ("key", "dtype", "peak"),
    [
        ("h100-sxm", "bf16", 989.4e12),
        ("h100-sxm", "fp32", 66.9e12),
        ("h100-sxm", "tf32", 494.7e12),
        ("h200-sxm", "bf16", 989.5e12),
        ("a100-80gb-sxm", "bf16", 312e12),
        ("a10g", "bf16", 70e12),
        ("l4", "fp16", 121e12),
        ("l40s", "fp8", 733e12),
        ("b200", "bf16", 2.25e15),
        ("b300", "fp4", 13.5e15),
        ("v100-16gb", "fp16", 125e12),
        ("trainium2", "fp8", 1299e12),
        ("t4", "bf16", None),
        ("v100-32gb", "bf16", None),
        ("b300", "int8", None),
        ("rtx-pro-6000-server", "fp4", None),
    ],
)
def test_peak_is_dense_or_none(key, dtype, peak):
    found = accelerator(key).peak_flops(dtype)
    assert (found.value if found else None) == peak


@pytest.mark.parametrize(
    ("torch_name", "dtype"),
    [
        ("bfloat16", "bf16"),
        ("torch.bfloat16", "bf16"),
        ("float16", "fp16"),
        ("half", "fp16"),
        ("float32", "fp32"),
        ("float64", "fp64"),
        ("float8_e4m3fn", "fp8"),
        ("float8_e5m2", "fp8"),
        ("int8", "int8"),
    ],
)
def test_torch_names_are_understood(torch_name, dtype):
    device = accelerator("h100-sxm")
    assert device.peak_flops(torch_name) == device.dense_peak_flops[dtype]


def test_a_misspelt_dtype_is_an_error_and_not_unknown_hardware():
    with pytest.raises(UserError, match=r"unknown dtype 'bf61'.*bf16"):
        accelerator("h100-sxm").peak_flops("bf61")


def test_physical_bounds():
    for device in accelerators().values():
        assert 5e9 <= device.memory.value <= 1e12, device.key
        assert 50e9 <= device.bandwidth.value <= 20e12, device.key
        assert device.power is None or 50 <= device.power.value <= 2000, device.key
        assert device.interconnect is None or 16e9 <= device.interconnect.value <= 4e12, device.key
        peaks = {dtype: peak.value for dtype, peak in device.dense_peak_flops.items()}
        # FLOPs per byte at the ridge of the roofline, at the fastest 16-bit rate.
        widest = max(peaks.get("bf16", 0), peaks.get("fp16", 0), peaks.get("fp32", 0))
        assert 10 <= widest / device.bandwidth.value <= 1500, device.key
        order = [
            peaks[dtype]
            for dtype in ("fp64", "fp32", "tf32", "bf16", "fp8", "fp4")
            if dtype in peaks
        ]
        assert order == sorted(order), device.key
        if "bf16" in peaks and "fp16" in peaks:
            assert peaks["bf16"] == peaks["fp16"], device.key


MATCHES = [
    ("NVIDIA H100 80GB HBM3", "h100-sxm"),
    ("NVIDIA H100 PCIe", "h100-pcie"),
    ("NVIDIA H100 NVL", "h100-nvl"),
    ("NVIDIA H200", "h200-sxm"),
    ("Tesla V100-SXM2-16GB", "v100-16gb"),
    ("Tesla V100-SXM2-32GB", "v100-32gb"),
    ("Tesla T4", "t4"),
    ("NVIDIA T4", "t4"),
    ("NVIDIA A100-SXM4-40GB", "a100-40gb-sxm"),
    ("A100-SXM4-40GB", "a100-40gb-sxm"),
    ("NVIDIA A100-SXM4-80GB", "a100-80gb-sxm"),
    ("NVIDIA A100 80GB PCIe", "a100-80gb-pcie"),
    ("NVIDIA A10", "a10"),
    ("NVIDIA A10G", "a10g"),
    ("NVIDIA L4", "l4"),
    ("NVIDIA L40S", "l40s"),
    ("NVIDIA B200", "b200"),
    ("NVIDIA B300 SXM6 AC", "b300"),
    ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000-server"),
    ("nvidia h200", "h200-sxm"),
    ("Trainium2", "trainium2"),
]


@pytest.mark.parametrize(("device_name", "key"), MATCHES)
def test_device_names_match(device_name, key):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert match_accelerator(device_name).key == key


@pytest.mark.parametrize(
    "device_name",
    [
        "NVIDIA L40",
        "NVIDIA L400",
        "NVIDIA A100",
        "NVIDIA A10M",
        "NVIDIA GB200",
        "NVIDIA GH200 480GB",
        "NVIDIA H200 NVL",
        "NVIDIA H20",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        "NVIDIA GeForce RTX 4090",
        "Tesla V100-PCIE-16GB",
        "NVIDIA",
        "",
    ],
)
def test_near_misses_and_unknown_names_yield_none_aloud(device_name):
    with pytest.warns(UserWarning, match=r"does not hold .*no MFU.*accelerators\.toml") as caught:
        assert match_accelerator(device_name) is None
    assert len(caught) == 1
    assert device_name in str(caught[0].message)
    assert "\n" not in str(caught[0].message)


@pytest.mark.parametrize(
    ("device_name", "memory_mib"),
    [
        ("Tesla T4", 15360),
        ("NVIDIA A10G", 22731),
        ("NVIDIA L40S", 46068),
        ("NVIDIA A100-SXM4-80GB", 81920),
        ("NVIDIA H100 80GB HBM3", 81559),
        ("NVIDIA H200", 143771),
        ("NVIDIA B200", 183359),
        ("NVIDIA B300 SXM6 AC", 275040),
    ],
)
def test_memory_as_drivers_report_it_agrees(device_name, memory_mib):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert match_accelerator(device_name, memory_mib * 2**20) is not None


def test_a_slice_of_the_memory_is_not_the_device():
    with pytest.warns(UserWarning, match=r"reports 10\.7 GB.*80\.0 GB"):
        assert match_accelerator("NVIDIA H100 80GB HBM3", 10 * 2**30) is None


def test_instances_name_accelerators_that_exist_and_status_and_region():
    for entry in instances().values():
        assert entry.accelerator is None or accelerator(entry.accelerator) is not None
        assert (entry.accelerator is None) == (entry.accelerator_count == 0)
        assert entry.network_baseline.value <= entry.network.value
        assert entry.price_usd_per_hour.unit == "USD/h"
        assert 0.004 < entry.price_usd_per_hour.value < 200
    assert {
        entry.price_kind for entry in instances().values() if entry.family in ("p5e", "trn2")
    } == {"capacity block"}
    assert {entry.status for entry in instances().values() if entry.family in ("p3", "g4ad")} == {
        "withdrawn"
    }
    assert instance("m5.large").status == "previous generation"


@pytest.mark.parametrize("family", ["t3", "m5", "c5", "c6g", "r5", "x1e"])
def test_price_is_linear_in_memory(family):
    sizes = [
        entry
        for entry in instances().values()
        if entry.family == family and "metal" not in entry.name
    ]
    rates = [entry.price_usd_per_hour.value / entry.memory.value for entry in sizes]
    assert len(rates) > 4
    assert max(rates) == pytest.approx(min(rates), rel=1e-6)


@pytest.mark.parametrize(
    ("family", "price"), [("p5", 6.88), ("p3", 3.06), ("trn1", 1.34375), ("trn2", 2.235)]
)
def test_price_per_accelerator_is_the_same_in_every_size(family, price):
    sizes = [entry for entry in instances().values() if entry.family == family]
    assert len(sizes) >= 2
    for entry in sizes:
        assert entry.price_usd_per_accelerator_hour == pytest.approx(price, rel=1e-4)


def test_price_per_accelerator_is_none_without_accelerators():
    assert instance("m5.large").price_usd_per_accelerator_hour is None


def test_age_in_days():
    price = instance("p5.48xlarge").price_usd_per_hour
    assert age_days(price, price.date) == 0
    assert age_days(price, price.date + datetime.timedelta(days=400)) == 400
