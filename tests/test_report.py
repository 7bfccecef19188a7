"""The report page: its words, its numbers, its drawing."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st
from site_fixture import record, records

from smml.course import report, report_plot, wording
from smml.course.state import Outcome, RunState
from smml.measure.compare import compare

RUN = RunState(
    profile="cpu",
    machine="epyc-2c",
    device="AMD EPYC",
    started=datetime(2026, 11, 21, 8, 30, tzinfo=UTC),
    finished=datetime(2026, 11, 21, 8, 33, 5, tzinfo=UTC),
    notebooks={
        "00_a/01_b": Outcome("passed", 12.3),
        "00_a/02_c": Outcome("failed", 3.0, "ValueError: a | b"),
    },
)
TITLES = {"00_a/01_b": "What | why?", "01_leveraging_hardware/01_roofline": "Where is the roof?"}


def page(run=RUN, measured=(), comparisons=(), plots=None) -> str:
    return report.page(run, measured, comparisons, TITLES, plots or {})


def test_every_notebook_stands_with_result_time_and_error():
    text = page()
    assert r"[00/01 What \| why?](00_a/01_b.ipynb)" in text
    assert "12 s</span>" in text
    assert r"ValueError: a \| b" in text
    assert "**1 of 2 notebooks passed** on AMD EPYC." in text
    assert "08:30 UTC; profile `cpu`; took 3 min 5 s." in text


def test_prediction_row_holds_ratio_spread_and_shares():
    row = next(line for line in page(measured=records()).splitlines() if "gemm 1024<" in line)
    for words in (
        "150 GFLOP/s",
        "137 GFLOP/s",
        "130–144 GFLOP/s, n = 20",
        "0.913×",
        "91%",
        "62%",
        "dtype float32",
    ):
        assert words in row
    assert "◆" not in row


def test_prediction_that_is_off_is_marked_and_counted():
    text = page(measured=records())
    row = next(line for line in text.splitlines() if "gemm 128<" in line)
    assert "◆ 0.342×" in row
    assert "**3 of 4 predictions** came within 1.5×" in text


def test_measurement_without_prediction_has_its_own_table():
    text = page(measured=records())
    assert text.index("## Measured without a prediction") < text.index("812 tokens/s")


def test_baselines_are_told_in_words_and_symbols_worst_first():
    new = records()
    old = [
        r.model_copy(update={k: getattr(r, k) * 2 for k in ("value", "p20", "p80")})
        for r in new[:1]
    ] + new[1:3]
    text = page(measured=new, comparisons=compare(new, old))
    assert "▼ slower" in text
    assert text.index("▼ slower") < text.index("✓ within the band") < text.index("○ no baseline")
    assert "**1 of 3 quantities** fell below" in text


def test_no_baselines_says_where_they_would_be():
    new = records()
    assert "No baselines of this machine are kept yet (`results/epyc-2c/`)" in page(
        measured=new, comparisons=compare(new, [])
    )


def test_a_share_that_no_record_holds_has_no_column():
    assert "Of peak" in page(measured=records())
    bare = [r.model_copy(update={"share_of_physical": None}) for r in records()]
    assert "Of peak" not in page(measured=bare)
    assert "Of ceiling" in page(measured=bare)


def test_machine_table_leaves_out_what_is_empty():
    text = page(
        measured=[record("a", 1.0, environment={"clock_hz": [], "load_average": [1.23456, 2.0]})]
    )
    assert "clock hz" not in text
    assert "| load average | 1.23, 2.00 |" in text


def test_machine_table_comes_from_the_latest_record():
    text = page(
        measured=[
            record("a", 1.0),
            record("b", 1.0, environment={"torch": "9.9"}, date=datetime.now(UTC)),
        ]
    )
    assert "| torch | 9.9 |" in text


@pytest.mark.parametrize("run", [None, replace(RUN, finished=None), replace(RUN, notebooks={})])
def test_page_stands_whatever_is_missing(run):
    assert page(run=run).startswith("# Report of the last run")


def test_drawing_is_one_svg_a_unit_and_the_same_each_time():
    drawn = report_plot.drawings(records())
    assert sorted(drawn) == ["FLOP/s", "byte/s", "s"]
    assert all("<svg" in text for text in drawn.values())
    assert report_plot.drawings(records()) == drawn
    assert report_plot.drawings([record("a", 1.0)]) == {}


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (1.37e11, "FLOP/s", "137 GFLOP/s"),
        (9.996e8, "byte/s", "1.00 GB/s"),
        (12.0, "byte/s", "12.0 B/s"),
        (2.1e-4, "s", "210 µs"),
        (125.0, "s", "125 s"),
        (1234.4, "tokens/s", "1,230 tokens/s"),
        (0.0123, "", "0.0123"),
        (None, "s", "–"),
    ],
)
def test_quantities_read_with_si_prefixes(value, unit, words):
    assert wording.quantity(value, unit) == words


@given(st.floats(1e-12, 1e24), st.sampled_from(["s", "FLOP/s", "byte", "tokens/s", "USD"]))
def test_quantity_keeps_three_digits_of_its_value(value, unit):
    factor, _ = wording.scale(value, unit)
    number = wording.quantity(value, unit).split(" ")[0].replace(",", "")
    assert math.isclose(float(number) * factor, value, rel_tol=0.006)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (3720, "1 h 2 min"),
    ],
)
def test_durations(seconds, words):
    assert wording.duration(seconds) == words


@given(st.text(max_size=40))
def test_cell_text_cannot_break_out_of_its_table(text):
    shown = wording.cell(text)
    assert "\n" not in shown
    assert "<" not in shown
    assert "|" not in shown.replace("\\\\", "").replace("\\|", "")
