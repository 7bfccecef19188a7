"""Bills as notebooks show them: what is drawn is named, every part stands in the table, ranks are never added up."""

from datetime import UTC, datetime

import pytest

from smml.cost.units.bill import Bill
from smml.course import unit_costs
from smml.measure import MachineId, Record
from smml.measure.compare import accept

BILLS = {
    "service": Bill({"used": 1.0, "idle time": 3.0, "transfer": 0.0001}),
    "training": Bill({"training": 900_000.0, "failures": 100_000.0}),
}


def test_bars_are_whole_and_name_what_can_be_seen():
    figure = unit_costs.shares(BILLS, "Bills")
    (axis,) = figure.axes
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["used", "idle time", "training", "failures"]
    widths = [patch.get_width() for patch in axis.patches]
    assert sum(widths) == pytest.approx(200, abs=0.1)
    assert [text.get_text() for text in axis.texts] == ["25 %", "75 %", "90 %", "10 %"]
    assert "%" in axis.get_xlabel()


def test_the_table_holds_every_part_and_the_sum():
    text = unit_costs.amounts(BILLS).data
    assert "| transfer | 0.0001 |  |" in text
    assert "| training |  | 900,000 |" in text
    assert "| **all** | **4** | **1,000,000** |" in text


def test_prices_over_load_carry_units():
    figure = unit_costs.over_load([0.1, 1.0], {"input": [10, 1], "output": [40, 4]}, "x")
    (axis,) = figure.axes
    assert "USD per million" in axis.get_ylabel()
    assert [line.get_label() for line in axis.lines] == ["input", "output"]


def recorded(setting, ranks, rate):
    return Record(
        name=f"scaling/ranks-{ranks}/data",
        unit="tokens/s",
        better="higher",
        value=rate,
        p20=rate,
        p80=rate,
        n=5,
        inputs={"ranks": ranks},
        machine=MachineId(fingerprint=setting.machine.fingerprint, device="made up"),
        date=datetime(2026, 1, 2, tzinfo=UTC),
        source="test",
    )


def test_ranks_that_were_recorded_are_priced_once_and_the_trap_is_as_many_times_too_cheap(
    folders, setting
):
    assert "No machine has left records" in unit_costs.recorded_ranks(setting, "data").data
    accept([recorded(setting, 1, 100.0), recorded(setting, 4, 200.0)])
    text = unit_costs.recorded_ranks(setting, "data").data
    assert "made up, 2026-01-02" in text
    assert "| 1 | 100 | 1 | 1 |" in text
    assert "| 4 | 200 | 0.5 | 0.125 |" in text
