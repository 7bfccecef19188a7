"""A fact file that breaks a rule is rejected in one line that names file, row and field."""

import datetime
import re
from importlib import resources

import pytest
from hypothesis import given, strategies as st

from smml.data import catalogue
from smml.data.catalogue import instances, read_accelerators, read_instances
from smml.errors import UserError

ACCELERATORS = (
    resources.files("smml.data").joinpath("accelerators.toml").read_text(encoding="utf-8")
)
INSTANCES = resources.files("smml.data").joinpath("instances.toml").read_text(encoding="utf-8")

# A small file with one row, into which the tests put figures.
ROW = """
[columns]
memory = "B"
bandwidth = "B/s"
interconnect = "B/s"
power = "W"
dense_peak_flops = "FLOP/s"
sparse_peak_flops = "FLOP/s"
[sources.sheet]
title = "A datasheet"
url = "https://example.org/sheet.pdf"
date = 2026-01-31
checked = true
[accelerators.thing]
name = "Thing"
vendor = "Maker"
architecture = "New"
released = 2026
match = ["Thing 1"]
source = "sheet"
memory = 80e9
bandwidth = 3e12
matrix_unit_dtypes = ["bf16"]
dense_peak_flops = { bf16 = DENSE }
sparse_peak_flops = { bf16 = SPARSE }
"""


def row(dense: float = 1e15, sparse: float = 2e15) -> str:
    return ROW.replace("DENSE", repr(float(dense))).replace("SPARSE", repr(float(sparse)))


MUTATIONS = [
    (
        "bf16 = 989.4e12\nfp16",
        "bf16 = 1978.9e12\nfp16",
        "h100-sxm",
        r"dense_peak_flops\.bf16 = 1\.9789e\+15",
    ),
    ("bandwidth = 3.35e12", "bandwidth = -3.35e12", "h100-sxm", "bandwidth"),
    ("bandwidth = 3.35e12", "bandwidth = nan", "h100-sxm", "bandwidth"),
    ("bandwidth = 3.35e12", 'bandwidth = "3.35 TB/s"', "h100-sxm", "bandwidth"),
    ("bandwidth = 3.35e12", "bandwidth = true", "h100-sxm", "bandwidth"),
    ("bandwidth = 3.35e12", "", "h100-sxm", "bandwidth"),
    ("bandwidth = 3.35e12", "bandwith = 3.35e12", "h100-sxm", "bandwi"),
    ("bandwidth = 3.35e12", "bandwidth = { value = 3.35e12 }", "h100-sxm", "bandwidth"),
    (
        "bandwidth = 3.35e12",
        'bandwidth = { value = 3.35e12, source = "hearsay" }',
        "h100-sxm",
        "bandwidth.*hearsay",
    ),
    ('source = "h100_whitepaper"', 'source = "nowhere"', "h100-sxm", "nowhere"),
    ('match = ["H100 80GB HBM3"]', 'match = ["L40S"]', "h100-sxm", "match.*l40s"),
    ("fp8 = 1978.9e12\nint8", "fp7 = 1978.9e12\nint8", "h100-sxm", "fp7"),
    ('fp4 = "dense NVFP4', '# fp4 = "dense NVFP4', "b300", "fp4"),
    ("date = 2022-02-17", 'date = "in winter"', r"sources\.a10g_datasheet", "date"),
    ('memory = "B" ', 'memory = "GB" ', "columns", "memory.*GB"),
]


@pytest.mark.parametrize(("old", "new", "where", "what"), MUTATIONS)
def test_a_mutated_accelerator_file_is_rejected_with_row_and_field(old, new, where, what):
    assert old in ACCELERATORS
    with pytest.raises(
        UserError, match=rf"accelerators\.toml, row {where}, field .*{what}"
    ) as caught:
        read_accelerators(ACCELERATORS.replace(old, new, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("price = 55.04", "price = -55.04", r"p5\.48xlarge", "price"),
        ("price = 55.04", "price = 55.04, colour = 1", r"p5\.48xlarge", "colour"),
        ("accelerators = 8, network = 3200, efa = true, local_nvme = 30400, price = 55.04", "network = 3200", r"p5\.48xlarge", "accelerators"),
        ("vcpu = 16, memory = 256", 'vcpu = "16", memory = 256', r"p5\.4xlarge", "vcpu"),
        ('price_kind = "on-demand"', 'price_kind = "cheap"', r"t3\.nano", "price_kind"),
        ("network_baseline = 0.032", "network_baseline = 32", r"t3\.nano", "network_baseline"),
        ('region = "us-east-1"', 'region = "Virginia"', r"t3\.nano", "region"),
    ],
)  # fmt: skip
def test_a_mutated_instance_file_is_rejected_with_row_and_field(old, new, where, what):
    assert old in INSTANCES
    with pytest.raises(UserError, match=rf"instances\.toml, row {where}, field .*{what}"):
        read_instances(INSTANCES.replace(old, new, 1))


def test_a_file_that_is_no_toml_is_rejected_with_the_line():
    with pytest.raises(UserError, match=r"accelerators\.toml is not TOML: .*line 2"):
        read_accelerators("[columns]\nmemory = = 1\n")


def test_an_instance_with_an_unknown_accelerator_is_rejected(monkeypatch):
    text = INSTANCES.replace('accelerator = "l40s"', 'accelerator = "l40"')
    monkeypatch.setattr(
        catalogue, "text_of", {"instances.toml": text, "accelerators.toml": ACCELERATORS}.get
    )
    with pytest.raises(UserError, match=r"row g6e\.\w+, field accelerator: 'l40'"):
        instances.__wrapped__()


@given(
    dense=st.floats(1e9, 1e17, allow_nan=False),
    ratio=st.one_of(st.floats(0.1, 10), st.floats(1.97, 2.03), st.just(2.0)),
)
def test_sparse_is_accepted_exactly_when_twice_dense(dense, ratio):
    sparse = dense * ratio
    if abs(sparse - 2 * dense) <= 0.01 * sparse:
        assert read_accelerators(row(dense, sparse))["thing"].peak_flops("bf16").value == dense
    else:
        with pytest.raises(UserError, match=r"row thing, field .*bf16"):
            read_accelerators(row(dense, sparse))


REQUIRED = [line for line in row().splitlines() if re.match(r"\w+ = ", line)]
REQUIRED = REQUIRED[REQUIRED.index('name = "Thing"') :]


@given(line=st.sampled_from([line for line in REQUIRED if not line.startswith("sparse")]))
def test_a_row_without_a_required_field_is_rejected(line):
    with pytest.raises(UserError, match=r"row thing, field "):
        read_accelerators(row().replace(line + "\n", "", 1))


def test_the_small_row_itself_is_accepted():
    held = read_accelerators(row())["thing"]
    assert held.memory.value == 80e9
    assert held.memory.unit == "B"
    assert held.memory.date == datetime.date(2026, 1, 31)
    assert held.compute_capability is None
