"""The benches: right counts, stable units and names, on sizes so small that nothing is measured in earnest."""

from dataclasses import replace

import pytest
import torch
from made_setting import made_setting

from smml.bench import Setting, elementwise, gemm
from smml.measure import load_folder
from smml.roofline import Roof


@pytest.fixture
def setting() -> Setting:
    """Profile of tiny sizes."""
    return made_setting(
        gemm_sizes=(8, 16),
        linear_width=32,
        batches=(1, 4),
        elementwise_elements=2**12,
        chain_lengths=(1, 3),
    )


def test_gemm_records_hold_their_counts_in_one_unit(setting):
    records = list(gemm.run(setting))
    assert [r.name for r in records] == [
        "gemm/8x8x8/float32",
        "gemm/16x16x16/float32",
        "linear/1x32x32/float32",
        "linear/4x32x32/float32",
    ]
    assert {r.unit for r in records} == {"FLOP/s"}, "on both sides of the ridge"
    assert records[1].flops == 2 * 16**3
    assert records[2].bytes == 4 * (32 + 32 * 32 + 32)


def test_elementwise_records_hold_their_counts_in_one_unit(setting):
    records = {r.name: r for r in elementwise.run(setting)}
    size = 4 * 2**12
    assert {r.unit for r in records.values()} == {"B/s"}
    assert records["copy/float32"].bytes == 2 * size
    assert records["add/float32"].bytes == 3 * size
    assert records["chain-plain/3/float32"].bytes == 6 * size
    assert records["chain-blocked/3/float32"].bytes == 2 * size
    assert records["chain-plain/3/float32"].flops == records["chain-blocked/3/float32"].flops


def test_shares_are_of_the_roof_at_the_kernels_intensity(setting):
    record = gemm.product(setting, 1, 32, 32)
    least = setting.roof().least_seconds(gemm.gemm(1, 32, 32, 4))
    assert record.share_of_measured == pytest.approx(record.value * least / record.flops)
    assert record.share_of_physical is None or setting.machine.accelerator


def test_a_blocked_chain_is_predicted_as_one_pass_through_memory_and_the_rest_through_the_cache(
    setting,
):
    elements, block = 2**12, 2**8
    prediction = elementwise.predict_chain(setting, elements, 4, 3, block)
    memory = 2.5 * 4 * elements / 2e10  # read, written, half of it fetched
    cache = 2 * 2 * 4 * elements / 1e11
    assert prediction.memory_s == pytest.approx(memory + cache)
    assert prediction.launch_s == pytest.approx(16 * 3 * 1e-6)
    whole = elementwise.predict_chain(setting, elements, 4, 3, elements)
    assert whole.memory_s == pytest.approx((2.5 + 4) * 4 * elements / 2e10)


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_blocks_do_not_change_the_chain(block):
    x = torch.linspace(-1, 1, 500)
    assert torch.equal(
        elementwise.chain_into(torch.empty(500), x, 4, block),
        elementwise.chain_into(torch.empty(500), x, 4, 500),
    )


def test_ceilings_become_records_from_which_the_roof_can_be_drawn_again(setting, tmp_path):
    for record in setting.ceiling_records():
        record.save(tmp_path)
    roof = Roof.recorded(load_folder(tmp_path), "float32")
    assert (roof.peak_flops, roof.bandwidth_bytes_per_s) == (1e11, 2e10)


def test_an_injected_slowdown_does_every_call_so_often(setting):
    calls = []
    work = gemm.gemm(8, 8, 8, 4)
    record = replace(setting, slowdown=3).measure(
        "x", lambda: calls.append(1), work, inputs={}, flush=True, budget_s=0
    )
    assert len(calls) == 3 * (
        record.n + 3
    )  # a flushed call is never looped: samples and three warm-ups
