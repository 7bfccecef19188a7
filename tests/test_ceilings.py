"""Ceilings: measured for real once, cached by fingerprint and torch version, never trusted when damaged."""

import pytest

from smml.errors import UserError
from smml.hardware import Ceilings, ceilings, detect
from smml.hardware.ceiling_cache import cache_path
from smml.hardware.reach import (
    cache_bytes,
    drift,
    float32_precision,
    gemm_ceiling,
    measure,
    memory_test_bytes,
    thread_candidates,
    thread_count,
)


@pytest.fixture(scope="module")
def here() -> Ceilings:
    """The ceilings of this machine, measured once for this file."""
    return measure(detect())


def store(here: Ceilings) -> None:
    path = cache_path(detect())
    path.parent.mkdir(parents=True)
    path.write_text(here.model_dump_json())


def test_every_ceiling_is_there_with_its_spread_and_settings(here):
    assert {"float32", "bfloat16"} <= set(here.flops)
    for ceiling in (*here.flops.values(), here.bandwidth, here.cache_bandwidth):
        assert 0 < ceiling.p20 <= ceiling.value <= ceiling.p80
        assert ceiling.n >= 5
        assert ceiling.settings
    assert 0 <= here.write_allocate <= 1
    assert here.fingerprint == detect().fingerprint


def test_a_cached_file_is_used_and_refresh_is_not_needed(here, monkeypatch):
    store(here)
    monkeypatch.setattr(
        "smml.hardware.ceiling_cache.measure", lambda _: pytest.fail("measured again")
    )
    assert ceilings() == here


def test_a_damaged_cache_is_measured_anew_and_said(here, monkeypatch):
    store(here)
    path = cache_path(detect())
    path.write_text(path.read_text()[:50])
    monkeypatch.setattr("smml.hardware.ceiling_cache.measure", lambda _: here)
    with pytest.warns(UserWarning, match="measured anew"):
        assert ceilings() == here
    assert Ceilings.model_validate_json(path.read_text()) == here


def test_a_cache_that_cannot_be_written_still_gives_ceilings(here, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SMML_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("smml.hardware.ceiling_cache.measure", lambda _: here)
    with pytest.warns(UserWarning, match="for this process only"):
        assert ceilings() == here


def test_another_torch_version_has_a_file_of_its_own(monkeypatch):
    first = cache_path(detect())
    monkeypatch.setattr("smml.hardware.ceiling_cache.version", lambda _: "9.9.9")
    assert cache_path(detect()) != first


def test_an_unknown_dtype_names_the_known_ones(here):
    with pytest.raises(UserError, match=r"'float4'.*known: float32"):
        here.flops_per_s("float4")


def test_drift_is_small_against_ceilings_of_a_moment_ago_and_large_against_false_ones(here):
    false = here.model_copy(
        update={"bandwidth": here.bandwidth.model_copy(update={"value": here.bandwidth.value / 10})}
    )
    assert drift(false, "float32", "cpu") > 1
    assert drift(here, "float32", "cpu") < 5


def test_threads_and_precision_are_given_back():
    import torch

    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    with thread_count(1), float32_precision("high"):
        assert torch.get_num_threads() == 1
        assert torch.get_float32_matmul_precision() == "high"
    gemm_ceiling("float16", "cpu", [1])
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads, precision)


@pytest.mark.parametrize(
    ("usable", "physical", "expected"),
    [(1, 1, [1]), (2, 2, [1, 2]), (8, 4, [1, 2, 4, 8]), (96, 48, [1, 16, 32, 48, 64, 96])],
)
def test_thread_candidates_hold_one_the_physical_and_all_cores(usable, physical, expected):
    machine = detect()
    cpu = machine.cpu.model_copy(update={"usable_cores": usable, "physical_cores": physical})
    assert thread_candidates(machine.model_copy(update={"cpu": cpu})) == expected


def test_the_memory_test_outgrows_the_cache_but_not_the_memory():
    machine = detect()
    if machine.torch_device == "cpu":
        small = machine.model_copy(update={"memory_bytes": 2**30})
        assert memory_test_bytes(small) == 2**26
    assert memory_test_bytes(machine) > 4 * cache_bytes(machine)
