"""Figures from records alone, and a suite of benches of which one that fails leaves the others standing."""

import sys
from datetime import UTC, datetime

import pytest
import torch

from smml.bench import (
    attention,
    collectives,
    cross_entropy,
    decode_attention,
    figures,
    llama_decode_fused,
    matmul_fp8,
    peers,
    quant,
    suite,
)
from smml.bench.figures import Figure, judge, plot_reached, table
from smml.errors import UserError
from smml.measure import MachineId, Record
from smml.measure.compare import accept


def made(name: str, value: float, **fields) -> Record:
    return Record(
        name=name,
        unit="×",
        better="higher",
        value=value,
        p20=value * 0.9,
        p80=value * 1.1,
        n=5,
        machine=MachineId(fingerprint="gpu", device="Test GPU"),
        date=datetime(2026, 1, 2, tzinfo=UTC),
        source="test",
        **fields,
    )


ASKED = (
    Figure("speed", "a/*/ratio", 1.0),
    Figure("memory", "m/ratio", 0.25, at_most=True),
    Figure("share", "d/*", 0.8, of="share_of_measured"),
)


def test_the_record_farthest_from_what_is_asked_decides():
    reached = judge([made("a/1/ratio", 1.2), made("a/2/ratio", 0.97), made("b/ratio", 0.1)], ASKED)
    assert [item.verdict for item in reached] == ["short", "not measured", "not measured"]
    assert reached[0].record.name == "a/2/ratio"


def test_a_bound_from_above_and_one_on_a_share():
    records = [
        made("m/ratio", 0.2),
        made("d/1", 5.0, share_of_measured=0.85),
        made("d/2", 5.0),  # without a share it cannot decide
    ]
    reached = judge(records, ASKED)[1:]
    assert [(item.verdict, item.value) for item in reached] == [("reached", 0.2), ("reached", 0.85)]


def test_the_table_says_what_was_not_measured():
    text = table(judge([made("a/1/ratio", 1.5)], ASKED))
    assert "| speed | ≥ 1 | 1.5 | reached | a/1/ratio | 2026-01-02 |" in text
    assert "| memory | ≤ 0.25 | — | not measured | — | — |" in text


def test_the_picture_shows_measured_figures_only(tmp_path):
    nothing = plot_reached(judge([], ASKED), "gpu", tmp_path / "f.png")
    assert "measured none" in nothing
    assert not (tmp_path / "f.png").exists()
    said = plot_reached(judge([made("m/ratio", 0.5)], ASKED), "gpu", tmp_path / "f.png")
    assert "1 figures" in said
    assert (tmp_path / "f.png").stat().st_size > 1000


def test_figures_have_names_of_their_own():
    assert len({f.name for f in figures.FIGURES}) == len(figures.FIGURES)


def names_on_a_gpu() -> list[str]:
    """Record names that the benches' own shapes give on a GPU whose kernels are compiled."""
    sizes = cross_entropy.SIZES["cuda"]
    return [
        "gemm-llama/geomean/smml-to-torch/bfloat16",
        *(f"matmul-fp8/mean/{adding}/smml-to-scaled_mm" for adding in matmul_fp8.TOLERANCE),
        *(
            f"fused/{operation}/{way}/16384x4096/smml-to-copy/bfloat16"
            for operation in ("rms_norm", "add_rms_norm", "rope", "swiglu")
            for way in ("forward", "backward")
        ),
        f"cross_entropy/{sizes[0]}x{sizes[1]}/smml-to-compiled/bfloat16",
        "linear_cross_entropy/8192x2048x128256/smml-to-liger/bfloat16",
        "linear_cross_entropy-memory/8192x2048x128256/smml-of-torch/bfloat16",
        *(
            f"attention/{shape.name}/{way}/smml-to-cudnn/bfloat16"
            for shape in attention.SHAPES["cuda"]
            for way in ("forward", "backward")
        ),
        *(
            f"decode-attention/batch-{batch}/tokens-{tokens}/smml/bfloat16"
            for batch, *_, tokens in decode_attention.SHAPES["cuda"]
        ),
        *(
            f"quant/int{bits}/{shape}/rows-{rows}/smml-to-torch/bfloat16"
            for bits in (4, 8)
            for shape in quant.SHAPES["cuda"]
            for rows in quant.ROWS
        ),
        "llama-step/smml/bfloat16",
        "llama-step/smml-to-compiled/bfloat16",
        *(
            f"llama-decode/{size.name}/batch-{batch}/smml/bfloat16"
            for size in llama_decode_fused.SIZES["cuda"]
            for batch in size.batches
        ),
    ]


def names_of_devices() -> list[str]:
    """Record names of the benches of many devices."""
    return [
        "data-parallel/ranks-2/micro-1/smml-to-torch",
        "data-parallel/ranks-2-to-1",
        "zero/ranks-4/zero-3-to-torch-fsdp2",
        "tensor-parallel/ranks-2/tensor-to-torch-tensor",
        *(
            f"collective/{name}/hand/ranks-{ranks}/bytes-{size}"
            for name in collectives.ALGORITHMS
            for ranks in (2, 4)
            for size in collectives.SIZES[1::2]
        ),
        "pipeline/bubble/ranks-2/1f1b/micro-4",
    ]


def test_every_figure_has_its_record_in_the_suite():
    shares = {"share_of_measured": 0.5, "share_of_physical": 0.5, "predicted": 1.0}
    names = [*names_on_a_gpu(), *names_of_devices()]
    # Those of cost are judged with the records of their own bench (test_planning_bench.py).
    asked = figures.KERNELS + figures.DEVICES
    reached = judge([made(name, 1.0, **shares) for name in names], asked)
    sizes = {r.record.name.rpartition("-")[2] for r in reached if "α–β" in r.figure.name}
    assert sizes <= {str(size) for size in collectives.SIZES if size >= 2**20}
    assert not [item.figure.name for item in reached if item.record is None]
    by_name = {item.figure.name: item.record.name for item in reached}
    causal = {s.name for s in attention.SHAPES["cuda"] if s.causal and s.head_dim == 128}
    assert by_name["attention forward ÷ cuDNN"].split("/")[1] in causal
    assert "tokens-32768" in by_name["split-KV decode, share of bandwidth"]
    assert "batch-1/" in by_name["Llama-8B decode, share of bandwidth"]


def test_the_command_prints_every_machine(smml, folders):
    none = smml("figures")
    assert none.returncode == 2
    assert "run smml bench kernels" in none.stderr
    accept([made("gemm-llama/geomean/smml-to-torch/bfloat16", 1.01)])
    shown = smml("figures", "--out", str(folders / "f.png"))
    assert shown.returncode == 0, shown.stderr
    assert "gpu" in shown.stdout
    assert "not measured" in shown.stdout
    assert (folders / "f.png").exists()


def test_a_bench_that_fails_leaves_the_others_standing(monkeypatch, capfd):
    real = suite.subprocess.Popen
    codes = {"good": "print('fine')", "bad": "import sys; sys.exit(3)", "slow": "while True: pass"}
    monkeypatch.setattr(
        suite.subprocess,
        "Popen",
        lambda command: real([sys.executable, "-c", codes[command[4]]]),
    )
    outcomes = suite.run_apart(["bad", "slow", "good"], [], limit_s=2.0)
    assert [o.verdict for o in outcomes] == [
        "failed with exit code 3",
        "stopped at its limit",
        "passed",
    ]
    assert "fine" in capfd.readouterr().out


def test_a_geometric_mean_of_ratios(setting):
    mean = peers.geometric_mean(setting, "all", [made("x", 0.5), made("y", 2.0)])
    assert mean.value == pytest.approx(1.0)
    assert mean.n == 10
    assert mean.inputs["over"] == ["x", "y"]
    with pytest.raises(UserError, match="no ratios"):
        peers.geometric_mean(setting, "all", [])


def test_side_by_side_yields_each_peer_and_each_ratio(setting):
    from smml.roofline import elementwise

    x = torch.randn(64)
    records = list(
        peers.side_by_side(
            setting,
            "thing",
            {peers.KERNEL: lambda: [x.exp() for _ in range(4)], "torch": lambda: x.exp()},
            amount=512,
            unit="B/s",
            work=elementwise(64, 4),
            inputs={"elements": 64},
            ours=peers.KERNEL,
            budget_s=0.01,
        )
    )
    names = [f"thing/{n}/float32" for n in (peers.KERNEL, "torch", f"{peers.KERNEL}-to-torch")]
    assert [r.name for r in records] == names
    assert records[2].value == pytest.approx(records[0].value / records[1].value, rel=0.5)
    assert records[0].predicted == records[1].predicted
    if peers.KERNEL != peers.OURS:
        assert all(r.inputs["interpreted"] for r in records)
        assert accept(records) == [], "an interpreted kernel's speed is no baseline"
    with pytest.raises(UserError, match="'nobody' is not among the calls torch"):
        list(
            peers.side_by_side(
                setting,
                "x",
                {"torch": x.exp},
                amount=1,
                unit="B/s",
                work=elementwise(1, 1),
                inputs={},
                ours="nobody",
            )
        )
