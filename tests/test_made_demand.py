"""Demands from a seed: the same again, around their means, and overflow as the closed form says."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from smml.cost.buying.made_demand import drawn, expected_overflow, expected_use, office_week
from smml.cost.buying.options import Commitment, best_commitment, cost
from smml.errors import UserError

WEEK = office_week(6.0, 1.5)


def test_the_same_seed_draws_the_same():
    assert (drawn(WEEK, 4, 1).load == drawn(WEEK, 4, 1).load).all()
    assert (drawn(WEEK, 4, 1).load != drawn(WEEK, 4, 2).load).any()


def test_the_week_has_its_office_hours():
    assert WEEK.mean() == pytest.approx((45 * 6 + 123 * 1.5) / 168)
    assert drawn(WEEK, 200, 0).load.mean() == pytest.approx(WEEK.mean(), rel=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 8), st.integers(0, 99))
def test_overflow_within_two_percent_of_the_closed_form(instances, seed):
    load = drawn(WEEK, 400, seed).load
    measured = np.maximum(load - instances, 0).mean()
    assert measured == pytest.approx(
        expected_overflow(WEEK, instances), rel=0.02 + 0.01 * instances
    )
    assert (load >= instances).mean() == pytest.approx(expected_use(WEEK, instances), abs=0.01)


def test_a_bill_is_what_overflow_says():
    plan = Commitment("plan", 0.6, 1.0, 12, 3)
    predicted = 8760 * (3 * 0.6 + expected_overflow(WEEK, 3))
    bills = [cost(plan, drawn(WEEK, 53, seed), 12) for seed in range(9)]
    assert np.mean(bills) == pytest.approx(predicted, rel=0.02)


@given(st.floats(0.05, 1.2))
def test_the_best_commitment_is_the_critical_ratio(ratio):
    by_formula = next(n for n in range(60) if expected_use(WEEK, n + 1) <= ratio)
    assert abs(best_commitment(drawn(WEEK, 60, 0), ratio) - by_formula) <= 1


@given(st.integers(0, 12))
def test_overflow_falls_with_each_instance(instances):
    assert expected_overflow(WEEK, instances) >= expected_overflow(WEEK, instances + 1) >= 0
    assert expected_overflow(WEEK, 0) == pytest.approx(WEEK.mean())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: office_week(-1, 1), "day is -1"),
        (lambda: office_week(1, 1, begins=18, ends=9), "begins is 18"),
        (lambda: drawn(WEEK, 0, 0), "weeks is 0"),
        (lambda: drawn(WEEK[:5], 1, 0), "shape"),
        (lambda: expected_overflow(WEEK, -1), "instances is -1"),
    ],
)
def test_what_is_wrong_is_named(make, words):
    with pytest.raises(UserError, match=words):
        make()
