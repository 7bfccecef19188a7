"""Baselines: a 2× slowdown fails, noise inside the band does not, machines are never mixed."""

from datetime import timedelta

import pytest
from hypothesis import given, strategies as st
from make_record import MACHINE, made

from smml.errors import UserError
from smml.measure import compare, regressions
from smml.measure.compare import DEFAULT_BAND, accept, baselines, elsewhere


@given(st.floats(1e-6, 10), st.sampled_from(["B/s", "s"]))
def test_a_run_against_itself_is_ok(seconds, unit):
    (result,) = compare([made(seconds=seconds, unit=unit)], [made(seconds=seconds, unit=unit)])
    assert result.verdict == "ok"
    assert result.ratio == pytest.approx(1)


@given(st.floats(1e-6, 10), st.floats(2.0, 100), st.sampled_from(["B/s", "s"]), st.floats(0, 0.3))
def test_twice_as_slow_fails_and_twice_as_fast_does_not(seconds, factor, unit, spread):
    fast = made(seconds=seconds, unit=unit, spread=spread)
    slow = made(seconds=seconds * factor, unit=unit, spread=spread)
    assert [c.verdict for c in regressions(compare([slow], [fast]))] == ["slower"]
    assert regressions(compare([fast], [slow])) == []


def test_a_slow_median_with_a_fast_fifth_is_noise_not_a_regression():
    noisy = made(seconds=1.5e-3, spread=0.6)
    assert compare([noisy], [made(seconds=1e-3)])[0].verdict == "ok"


def test_the_baseline_may_carry_a_band_of_its_own():
    slower = made(seconds=1.2e-3)
    assert compare([slower], [made(seconds=1e-3)])[0].band == DEFAULT_BAND
    assert compare([slower], [made(seconds=1e-3)])[0].verdict == "ok"
    assert compare([slower], [made(seconds=1e-3, band=0.1)])[0].verdict == "slower"


def test_what_only_one_side_has_is_said_and_does_not_fail():
    results = {c.name: c.verdict for c in compare([made("a")], [made("b")])}
    assert results == {"a": "no baseline", "b": "not measured"}


def test_the_latest_of_several_records_counts():
    old = made(seconds=1e-3)
    new = made(seconds=3e-3).model_copy(update={"date": old.date + timedelta(days=1)})
    for order in ([old, new], [new, old]):
        assert compare(order, [made(seconds=1e-3)])[0].verdict == "slower"


def test_records_of_different_machines_are_never_compared():
    other = MACHINE.model_copy(update={"fingerprint": "nvidia-h200-x1-123456"})
    with pytest.raises(UserError, match=r"different machines.*nvidia-h200-x1-123456"):
        compare([made()], [made(machine=other)])


def test_a_changed_unit_asks_for_a_new_baseline():
    with pytest.raises(UserError, match="--accept"):
        compare([made(unit="s")], [made(unit="B/s")])


def test_accepted_records_become_the_baselines_of_their_machine_only():
    other = made(machine=MACHINE.model_copy(update={"fingerprint": "other"}))
    accept([made("a"), made("b"), other])
    assert [r.name for r in baselines(MACHINE.fingerprint)] == ["a", "b"]
    assert [r.machine.fingerprint for r in elsewhere(MACHINE.fingerprint)] == ["other"]
    assert baselines("never seen") == []
