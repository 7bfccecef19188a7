"""The planner beside published runs: every calibration row within its bound, and rows that cannot be read say why."""

import csv
import io
import tomllib
from importlib import resources

import pytest

from smml.errors import UserError
from smml.plan.calibration import compare, predict, read_folder, read_text, summary
from smml.plan.constants import FILE, constant, constants, read_constants

ERRORS = compare(read_folder())
LARGEST = {"step time": 0.09, "activations": 0.02, "total memory": 0.05}
ROW = {
    "source": "a table",
    "model": "llama3.1-8b",
    "layers": "32",
    "hidden": "4096",
    "heads": "32",
    "kv_heads": "8",
    "ffn": "14336",
    "gated_mlp": "1",
    "vocab": "128256",
    "seq": "8192",
    "gpus": "8",
    "accelerator": "h100-80gb",
    "dtype": "bf16",
    "engine": "compile",
    "fsdp": "8",
    "micro_batch": "1",
    "global_batch": "16",
    "recompute": "selective",
    "metric": "tokens_per_s_per_gpu",
    "value": "6000",
    "unit": "tok/s",
}


def text(**cells) -> str:
    row = ROW | cells
    out = io.StringIO()
    writer = csv.DictWriter(out, row)
    writer.writeheader()
    writer.writerow(row)
    return out.getvalue()


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: str(e)[:62])
def test_every_calibration_row_is_within_its_bound(error):
    assert abs(error.error) <= LARGEST[error.kind], str(error)


def test_mean_errors_and_counts():
    sums = summary(ERRORS)
    assert {kind: count for kind, (_, _, count) in sums.items()} == {
        "step time": 11,
        "activations": 8,
        "total memory": 3,
    }
    assert sums["step time"][0] <= 0.04
    assert sums["activations"][1] <= 0.02
    assert sums["total memory"][0] <= 0.05


def test_rows_name_their_source():
    assert all(error.run.source for error in ERRORS)


def test_columns_may_be_mixed_and_missing():
    [run] = read_text(text(), "runs.csv")
    assert (run.layout.zero_stage, run.layout.data_parallel, run.job.engine) == (3, 8, "compiled")
    assert run.job.shape.parameters == pytest.approx(8.03e9, rel=0.001)
    both = read_text(text(peak_memory_gib="60"), "runs.csv")
    assert [r.metric for r in both] == ["tokens_per_s_per_gpu", "peak_memory"]
    [sharded] = read_text(text(gpus="16", fsdp="8"), "runs.csv")
    assert (sharded.layout.shard_ranks, sharded.layout.data_parallel) == (8, 16)
    [old] = read_text(text(gated_mlp="0", dtype="fp16", fsdp="", engine=""), "runs.csv")
    assert (old.job.attention, old.job.engine, old.layout.zero_stage) == ("unfused", "fused", 0)
    assert not old.layout.overlap_data
    assert old.job.shape.tie_embeddings


def test_what_a_row_does_not_state_is_assumed_as_documented():
    [late] = read_text(text(engine="", fsdp="", dp="2", tp="1", pp="4", cp="1"), "runs.csv")
    assert (late.job.attention, late.layout.overlap_pipeline) == ("flash3", True)
    assert (late.layout.interleave, late.layout.overlap_tensor) == (8, "backward")
    [scaled] = read_text(text(engine="", fsdp="", tp="2", dtype="fp8"), "runs.csv")
    assert scaled.layout.overlap_tensor == "full"
    [said] = read_text(
        text(engine="", fsdp="", pp="4", interleave="1", attention="flash", zero="0"), "runs.csv"
    )
    assert (said.layout.interleave, said.job.attention, said.layout.zero_stage) == (1, "flash", 0)


def test_metrics_agree_with_each_other():
    def figure(metric, **cells):
        [run] = read_text(text(metric=metric, **cells), "runs.csv")
        return predict(run)

    rate = figure("tokens_per_s_per_gpu")
    assert figure("tokens_per_s") == pytest.approx(8 * rate)
    assert figure("step_time", unit="s") == pytest.approx(16 * 8192 / 8 / rate)
    assert figure("step_time", unit="ms") == pytest.approx(16 * 8192 / 8 / rate * 1e3)
    assert figure("samples_per_s") == pytest.approx(8 * rate / 8192)
    # 57.9 GFLOP a token with attention in full: the convention that the calibration rows name.
    flops = figure("tflops_per_gpu", unit="TFLOP/s", flop_convention="attention counted in full")
    assert flops == pytest.approx(57.9e9 * rate / 1e12, rel=0.001)
    assert figure("mfu", unit="%") == pytest.approx(100 * flops / 989.4, rel=0.001)
    halved = figure("tflops_per_gpu", unit="TFLOP/s", flop_convention="causal attention halved")
    counted = figure("hfu", unit="%", flop_convention="recompute counted")
    assert halved < flops
    assert counted > 100 * halved / 989.4
    days = figure("training_days", tokens="1e12")
    assert days == pytest.approx(1e12 / (8 * rate) / 86400)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"gpus": "eight"}, r"runs\.csv, line 2, column gpus: 'eight'.*number"),
        ({"gpus": "7.5"}, r"line 2, column gpus.*whole"),
        ({"gpus": "12", "tp": "8"}, r"column gpus.*tp × pp × cp = 8"),
        ({"layers": ""}, r"column layers"),
        ({"hidden": "-1"}, r"column hidden"),
        ({"gated_mlp": "maybe"}, r"column gated_mlp.*1 or 0"),
        ({"accelerator": "h900"}, r"line 2: accelerator is 'h900'"),
        ({"accelerator": "h100, 900 horses"}, r"accelerator.*horses.*500 W"),
        ({"dtype": "int3"}, r"dtype is 'int3'"),
        ({"recompute": "some"}, r"recompute is 'some'"),
        ({"engine": "steam"}, r"engine is 'steam'"),
        ({"global_batch": "17"}, r"global_batch_size 17"),
        ({"cp": "2", "seq": "8191"}, r"context_parallel 2"),
    ],
)
def test_a_wrong_cell_is_named(cells, said):
    with pytest.raises(UserError, match=said) as caught:
        read_text(text(**cells), "runs.csv")
    assert "\n" not in str(caught.value)


def test_unknown_metric_and_unit_are_named():
    with pytest.raises(UserError, match=r"metric is 'speed'.*step_time"):
        predict(read_text(text(metric="speed"), "runs.csv")[0])
    with pytest.raises(UserError, match=r"unit is 'weeks'"):
        predict(read_text(text(metric="step_time", unit="weeks"), "runs.csv")[0])


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no \*\.csv"):
        read_folder(tmp_path)
    (tmp_path / "mine.csv").write_text(text())
    assert len(read_folder(tmp_path)) == 1


# ---------------------------------------------------------------------------------------------------- constants


def test_every_constant_is_used_and_within_its_range():
    code = "".join(
        path.read_text()
        for path in resources.files("smml.plan").iterdir()
        if path.name.endswith(".py")
    )
    for name, held in constants().items():
        assert held.low <= held.value <= held.high, name
        assert held.unit, name
        assert held.why, name
        assert held.fixed_by, name
        # What is looked up by a part of its name: an architecture, a chip, a tile, a side, a kind of link.
        pieces = [
            name,
            *(name.removesuffix(f"_{end}") for end in ("ampere", "hopper", "blackwell")),
        ]
        for family in ("multiprocessors", "tile_speed", "link_share", "latency"):
            pieces.append(family + "_{" if name.startswith(family) else name)
        pieces += [
            piece.replace("_forward", "_{side}").replace("_backward", "_{side}") for piece in pieces
        ]
        assert any(piece in code for piece in pieces), f"{name} is used nowhere"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("value = 0.82", "value = 1.82", r"memory_bandwidth_share, field value: 1\.82 is outside"),
        ("value = 0.82", 'value = "much"', r"memory_bandwidth_share, field value: 'much'"),
        ("value = 0.82", "value 0.82", r"not TOML"),
    ],
)
def test_a_wrong_constant_is_named(old, new, said):
    file = resources.files("smml.data").joinpath(FILE).read_text(encoding="utf-8")
    assert file.count(old) == 1
    with pytest.raises(UserError, match=said):
        read_constants(file.replace(old, new))
    assert tomllib.loads(file)["memory_bandwidth_share"]["value"] == 0.82


def test_an_unknown_constant_is_named():
    with pytest.raises(UserError, match=r"holds no 'luck'"):
        constant("luck")
