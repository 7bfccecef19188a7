"""Figures: every record and roof that goes in is on the axes, with its unit; drawing changes nothing."""

import pytest
from make_record import MACHINE, made

from smml import plot
from smml.errors import UserError
from smml.roofline import Roof, gemm

ROOFS = [Roof("here", 1e11, 2e10), Roof("sheet", 1e15, 4e12, "physical")]


def gemm_record(n: int, seconds: float, **fields):
    work = gemm(n, n, n, 4)
    return made(
        f"gemm/{n}",
        seconds,
        unit="FLOP/s",
        amount=work.flops,
        flops=work.flops,
        bytes=work.bytes,
        **fields,
    )


def labels(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_the_roofline_has_both_roofs_their_ridges_and_every_point():
    records = [gemm_record(64, 1e-4), gemm_record(1024, 3e-2), made()]
    figure = plot.roofline(ROOFS, records, expected={"product": gemm(8, 8, 8, 4)})
    axis = figure.axes[0]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    assert axis.get_xlabel() == "arithmetic intensity (FLOP per byte)"
    assert axis.get_ylabel() == "performance (FLOP/s)"
    assert {"here (measured)", "sheet (physical)", "gemm", "copy"} <= set(labels(figure))
    drawn = [(x, y) for c in axis.containers for x, y in zip(*c.lines[0].get_data(), strict=True)]
    expected = [(r.flops / r.bytes, plot.flops_per_s(r)) for r in records]
    assert [v for point in sorted(drawn) for v in point] == pytest.approx(
        [v for point in sorted(expected) for v in point]
    )
    texts = " ".join(t.get_text() for t in axis.texts)
    assert "ridge 5 FLOP/byte" in texts
    assert "product" in texts


def test_points_recorded_elsewhere_are_hollow_and_say_where_and_when():
    other = gemm_record(64, 1e-6, machine=MACHINE.model_copy(update={"device": "NVIDIA H200"}))
    figure = plot.roofline(ROOFS, [gemm_record(64, 1e-4)], [other])
    assert any("NVIDIA H200" in text and str(other.date.year) in text for text in labels(figure))
    faces = [c.lines[0].get_markerfacecolor() for c in figure.axes[0].containers]
    assert faces.count("white") == 1


def test_predicted_against_measured_holds_seconds_of_each_record():
    records = [gemm_record(64, 1e-4, predicted_s=2e-4), made(seconds=1e-3, predicted_s=1e-3)]
    axis = plot.predicted_against_measured(records).axes[0]
    points = [
        tuple(map(float, (line.get_xdata()[0], line.get_ydata()[0]))) for line in axis.lines[:2]
    ]
    assert points == [pytest.approx((2e-4, 1e-4)), pytest.approx((1e-3, 1e-3))]


def test_a_figure_is_900_pixels_wide_and_legible(tmp_path):
    from PIL import Image

    figure = plot.roofline(ROOFS, [gemm_record(64, 1e-4)])
    figure.savefig(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").width == 900
    sizes = [t.get_fontsize() for t in figure.axes[0].texts]
    assert min(sizes) >= 9


def test_bars_carry_their_values_and_a_peak_only_where_known():
    figure = plot.bars(
        {"float32": 1e11, "bfloat16": 2e11}, "FLOP/s", "t", {"bfloat16": 3e11, "fp8": 1e12}
    )
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts == ["100 GFLOP/s", "200 GFLOP/s"]
    assert list(figure.axes[0].lines[-1].get_xdata()) == [3e11]


@pytest.mark.parametrize(
    ("value", "text"), [(1.834e11, "183 GFLOP/s"), (989.4e12, "989 TFLOP/s"), (12.3, "12.3 FLOP/s")]
)
def test_si_has_three_digits_and_a_prefix(value, text):
    assert plot.si(value, "FLOP/s") == text


def test_si_of_short_times():
    assert plot.si(3.4e-6, "s") == "3.4 µs"


def test_a_record_that_holds_no_time_of_a_call_is_not_drawn():
    tokens = made("decode", unit="tokens/s", amount=8)
    figure = plot.roofline(ROOFS, [gemm_record(64, 1e-4), tokens])
    assert "decode" not in labels(figure)
    with pytest.raises(UserError, match="decode is in tokens/s"):
        plot.seconds(tokens, tokens.value)
