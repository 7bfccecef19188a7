"""Records: written whole, read back equal, rejected with the file's name when they are not records."""

import json

import pytest
from hypothesis import given, strategies as st
from make_record import made

from smml import atomic
from smml.errors import UserError
from smml.measure import Record, load_folder
from smml.measure.record import slug


def test_a_record_comes_back_as_it_was_written(tmp_path):
    record = made(
        inputs={"n": 3}, environment={"torch": "2.13.0"}, physical_ceiling=2e9, measured_ceiling=2e9
    )
    path = record.save(tmp_path)
    assert path == tmp_path / "copy" / "float32.json"
    assert Record.load(path) == record
    assert load_folder(tmp_path) == [record]


def test_a_rate_swaps_the_quantiles_and_a_time_does_not():
    rate, time = made(spread=0.5), made(spread=0.5, unit="s", predicted_s=1e-3)
    assert rate.p20 < rate.value < rate.p80
    assert time.p20 < time.value < time.p80
    assert rate.value == pytest.approx(1e6 / time.value)
    assert (rate.better, time.better) == ("higher", "lower")


@given(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3))
def test_the_error_is_of_times_whatever_the_unit(measured, predicted):
    rate = made(seconds=measured, predicted_s=predicted)
    time = made(seconds=measured, predicted_s=predicted, unit="s")
    assert rate.error == pytest.approx(abs(predicted - measured) / measured, rel=1e-6, abs=1e-9)
    assert time.error == pytest.approx(rate.error, rel=1e-6, abs=1e-9)


def test_a_record_saves_under_its_source_by_default(folders):
    assert (
        made().save()
        == folders / "build" / "records" / "bench" / "elementwise" / "copy" / "float32.json"
    )


def test_shares_are_of_the_ceilings_given_and_unknown_without_them():
    record = made(measured_ceiling=4e9, physical_ceiling=None)
    assert record.share_of_measured == pytest.approx(record.value / 4e9)
    assert record.share_of_physical is None


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda text: text[: len(text) // 2], "not a record"),
        (lambda text: "", "not a record"),
        (lambda text: text.replace('"value"', '"valeu"'), "value"),
        (lambda text: _with(text, value=-1), "value"),
        (lambda text: _with(text, n=2), "n:"),
        (lambda text: _with(text, p20=1e99), "p20"),
        (lambda text: _with(text, schema=2), "schema"),
        (lambda text: _with(text, surprise=1), "surprise"),
    ],
)
def test_a_damaged_record_is_an_error_that_names_file_and_field(tmp_path, damage, named):
    path = made().save(tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=r"float32\.json is not a record") as caught:
        load_folder(tmp_path)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_binary_file_and_a_missing_one_are_named(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"x\.json"):
        load_folder(tmp_path)
    with pytest.raises(UserError, match=r"cannot read record .*missing\.json"):
        Record.load(tmp_path / "missing.json")


def test_a_failed_write_leaves_the_old_file_and_nothing_half_written(tmp_path, monkeypatch):
    path = made(seconds=1e-3).save(tmp_path)
    before = path.read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*SMML_BUILD"):
        made(seconds=2e-3).save(tmp_path)
    assert path.read_text() == before
    assert [p.name for p in path.parent.iterdir()] == ["float32.json"]


def test_an_interrupted_write_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_text(tmp_path / "a.json", "text")
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=40))
def test_a_slug_is_a_safe_path(text):
    result = slug(text)
    assert ".." not in result.split("/")
    assert not result.startswith("/")
    assert set(result) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/")


def _with(text: str, **fields) -> str:
    return json.dumps(json.loads(text) | fields)
