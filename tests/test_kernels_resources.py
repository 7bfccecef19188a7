"""Every kernel compiled for A100, Hopper and Blackwell without a GPU: registers, spills and shared memory within limits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smml.data.limits import limit
from smml.errors import UserError
from smml.kernels import resources


@pytest.fixture(scope="module")
def report() -> list[resources.Resources]:
    """All builds of all operations, compiled once for the tests of this file."""
    return resources.report()


@pytest.mark.timeout(900)
def test_every_operation_compiles_for_its_targets(report):
    named = {found.name for found in report}
    for operation in resources.OPERATIONS:
        prefix = operation.replace(".", "/") + "/"
        assert any(name.startswith(prefix) for name in named), operation
    assert {found.target for found in report} == set(resources.TARGETS)


@pytest.mark.timeout(900)
def test_kernels_fit_into_the_device(report):
    for found in report:
        limits = limit(f"shared_memory_sm_{found.target}"), limit("registers_per_thread")
        assert found.shared_bytes <= limits[0].value, found
        assert found.tensor_memory_columns <= limit("tensor_memory_columns").value, found
        assert 0 < found.registers <= limits[1].value, found


@pytest.mark.timeout(900)
def test_nothing_spills_beyond_what_its_build_states(report):
    over = [found for found in report if found.spill_bytes > found.spill_bytes_allowed]
    assert not [found for found in over if found.target == 90], "Hopper is what they are made for"
    assert not over


def test_a_kernel_that_is_too_large_is_seen():
    name = "softmax/32768/fp32/backward"
    (spilling,) = [r for r in resources.report(["softmax"], [90]) if r.name == name]
    assert spilling.spill_bytes > 0


def test_every_module_with_builds_is_listed():
    root = Path(resources.__file__).parent
    texts = {path: path.read_text() for path in root.rglob("*.py")}
    holders = {
        path.relative_to(root).with_suffix("").as_posix().replace("/", ".")
        for path, text in texts.items()
        if "def builds(" in text
    }
    inside = {
        "flash_attention.builds": "flash_attention",
        "matmul.fp8_rows": "matmul.fp8",
    }  # who lists them
    missing = {inside.get(name, name) for name in holders} - set(resources.OPERATIONS)
    assert not missing


def test_the_module_compiles_by_itself_where_kernels_are_interpreted():
    done = subprocess.run(
        [sys.executable, "-m", "smml.kernels.resources", "vector_add"],
        capture_output=True,
        text=True,
        env=os.environ | {"TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert '"name": "vector_add/fp32"' in done.stdout


def test_an_unknown_operation_is_refused():
    with pytest.raises(UserError, match="no kernels named warp; there are: vector_add"):
        resources.report(["warp"])
