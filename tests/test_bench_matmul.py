"""The matmul bench end to end on the CPU: interpreted rungs beside torch, named as such, and slabs of rows."""

import pytest
import torch
from kernel_cases import normal
from made_setting import made_setting

from smml.bench import matmul, row_tiles
from smml.errors import UserError
from smml.kernels.matmul import LADDER, tiled


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(matmul, "SQUARE", {"cpu": 16})
    monkeypatch.setattr(matmul, "NAIVE_SQUARE", {"cpu": 2})
    monkeypatch.setattr(matmul, "BUDGET_S", {"cpu": 0.01})
    monkeypatch.setattr(matmul, "layers", lambda model: {"out": (16, 8), "down": (8, 16)})


def test_every_rung_and_layer_has_a_record_and_the_ratios_a_mean(tiny):
    found = {r.name: r for r in matmul.run(made_setting())}
    rungs = [name for name in LADDER if name not in ("naive", "warp_specialised")]
    assert {f"matmul/16x16x16/interpreted/{name}/float32" for name in rungs} <= found.keys()
    assert {
        "matmul/2x2x2/interpreted/naive/float32",
        "matmul/16x16x16/torch/float32",
    } <= found.keys()
    assert not any("/smml" in name for name in found), (
        "an interpreted kernel's speed is no kernel's"
    )
    mean = found["gemm-llama/geomean/interpreted-to-torch/float32"]
    ratios = [found[name] for name in mean.inputs["over"]]
    assert len(ratios) == 2
    assert mean.value == pytest.approx((ratios[0].value * ratios[1].value) ** 0.5)
    down = found["gemm-llama/tiny/down/32x8x16/torch/float32"]
    assert (down.flops, down.unit) == (2 * 32 * 8 * 16, "FLOP/s")


def test_a_rung_with_a_wrong_result_is_not_timed(tiny, monkeypatch):
    monkeypatch.setattr(tiled, "matmul", lambda a, b: a @ b * 1.01)
    with pytest.raises(UserError, match=r"interpreted/tiled differs from torch\.matmul"):
        list(matmul.ladder(made_setting()))


def test_nothing_interpreted_stands_for_a_compiled_ladder():
    assert matmul.compiled_ladder(made_setting()) == []


def test_layers_are_those_of_the_model():
    assert matmul.layers("llama-3.1-8b") == {
        "qkv": (6144, 4096),
        "out": (4096, 4096),
        "gate_up": (28_672, 4096),
        "down": (4096, 14_336),
        "logits": (128_256, 4096),
    }


@pytest.mark.parametrize("height", row_tiles.HEIGHTS)
def test_slabs_of_rows_are_the_product_and_read_b_once_each(height):
    a, b = normal(row_tiles.ROWS, 24), normal(24, 24, seed=1)
    out = row_tiles.slabs(a, b, torch.empty_like(a), height)
    torch.testing.assert_close(out, a @ b, rtol=1e-4, atol=1e-5)
    slabs = row_tiles.ROWS // height
    assert row_tiles.work(24, 4, height).bytes_read == 4 * (row_tiles.ROWS * 24 + slabs * 24 * 24)


def test_slabs_are_predicted_one_after_the_other():
    setting = made_setting()
    one, all_ = (row_tiles.predict(setting, 64, 4, h) for h in (1, row_tiles.ROWS))
    assert one.launch_s == row_tiles.ROWS * all_.launch_s
    assert one.compute_s == pytest.approx(all_.compute_s)
    assert one.memory_s > all_.memory_s


def test_row_tiles_leave_records_with_predictions():
    records = list(row_tiles.run(made_setting(linear_width=32)))
    assert [r.name for r in records] == [f"row-tiles/{h}x32/float32" for h in row_tiles.HEIGHTS]
    assert all(r.predicted for r in records)
