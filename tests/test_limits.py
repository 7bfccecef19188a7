"""Limits of services and CPUs: every figure with unit, source and date; a wrong file is named with its row."""

from importlib import resources

import pytest

from smml.data import instances, limits
from smml.data.schema import Quantity
from smml.errors import UserError

TEXT = resources.files("smml.data").joinpath(limits.LIMITS_FILE).read_text(encoding="utf-8")


def test_every_figure_has_unit_source_and_date():
    held = limits.read_limits(TEXT)
    figures = [*held.limits.values(), *held.baselines.values()]
    figures += [
        quantity for cpu in held.cpus.values() for quantity in (cpu.peak_flops, cpu.bandwidth)
    ]
    assert len(figures) > 20
    for figure in figures:
        assert isinstance(figure, Quantity)
        assert figure.unit
        assert figure.url.startswith("https://")
        assert figure.date.year >= 2018


def test_cpus_and_baselines_belong_to_instances_of_the_catalogue():
    held = limits.read_limits(TEXT)
    assert set(held.baselines) == {name for name in instances() if name.startswith("t3.")}
    families = {entry.family for entry in instances().values() if entry.accelerator is None}
    assert set(held.cpus) <= families
    assert limits.processor("x1e") is None, "unknown stays unknown"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("\n[limits]\n", "\n[limits\n", "is not TOML"),
        (
            'source = "lambda_gpu"',
            'source = "nowhere"',
            "row lambda_accelerators: missing 'nowhere'",
        ),
        ("value = 900,", "value = -900,", "row lambda_timeout: value"),
        ("value = 900,", 'value = "900",', "row lambda_timeout: value"),
        ("peak_flops = 40e9", "", "row c6g: missing 'peak_flops'"),
        ('architecture = "arm"', 'architecture = "risc"', "row c6g: architecture"),
    ],
)
def test_a_wrong_row_is_named(old, new, named):
    assert old in TEXT
    with pytest.raises(UserError, match=named):
        limits.read_limits(TEXT.replace(old, new, 1))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="lambda_timeout"):
        limits.limit("lambda_time")
    with pytest.raises(UserError, match="neuron_static_shapes"):
        limits.fact("neuron")
