"""A job on spot: the simulator agrees with closed forms, costs grow with what they should, the best interval is Daly's."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from smml.cost.spot.run import (
    Market,
    SpotJob,
    Spread,
    best_interval_hours,
    expected,
    intervals,
    simulate,
)
from smml.data.limits import limit
from smml.errors import UserError
from smml.plan.goodput import Reliability, daly_interval_s, expected_goodput, young_interval_s

JOB = SpotJob(30.5, 2.0, 90.0, 300.0, 600.0)  # made up
MARKET = Market(1.5, 0.1)


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.02, 0.2, 0.5])
@pytest.mark.parametrize("use_notice", [False, True])
@pytest.mark.parametrize("work", [0.7, 30.5])
def test_simulated_means_are_those_of_the_closed_form(rate, use_notice, work):
    job, market = replace(JOB, work_hours=work, use_notice=use_notice), Market(1.5, rate)
    closed, runs = expected(job, market), simulate(job, market)
    assert runs.billed_hours.mean == pytest.approx(closed.billed_hours, rel=0.02)
    assert runs.finish_hours.mean == pytest.approx(closed.finish_hours, rel=0.02)
    assert runs.usd.mean == pytest.approx(closed.usd, rel=0.02)
    # Counts are rare at low rates: within four standard errors of a Poisson process, or 2 %.
    slack = max(0.02 * closed.interruptions, 4 * math.sqrt(closed.interruptions / runs.runs))
    assert runs.interruptions.mean == pytest.approx(closed.interruptions, abs=slack)


def test_a_long_job_agrees_with_the_goodput_of_the_planner():
    job = SpotJob(5000.0, 2.0, 90.0, 300.0)
    reliability = Reliability(10 * 3600.0, 90.0, restart_s=300.0)
    share = job.work_hours / expected(job, MARKET).billed_hours
    assert share == pytest.approx(expected_goodput(reliability, 2 * 3600.0), rel=1e-4)


def test_without_interruptions_nothing_is_added():
    still = simulate(JOB, Market(2.0, 0.0), runs=3)
    whole = JOB.uninterrupted_hours
    assert JOB.checkpoints == 16
    assert whole == pytest.approx(300 / 3600 + 30.5 + 16 * 90 / 3600)
    assert still.finish_hours == Spread(*[pytest.approx(whole)] * 4)
    assert still.usd.p80 == pytest.approx(2 * whole)
    assert expected(JOB, Market(2.0, 0.0)).usd == pytest.approx(2 * whole)


def test_quantiles_are_in_order_and_of_the_runs():
    runs = simulate(JOB, MARKET)
    for spread in (runs.usd, runs.finish_hours, runs.billed_hours):
        assert spread.p20 <= spread.p50 <= spread.p80
    assert runs.usd.p80 == pytest.approx(1.5 * runs.billed_hours.p80)
    assert Spread.of(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == Spread(3.0, 1.8, 3.0, 4.2)


def test_the_notice_saves_the_work_since_the_last_checkpoint():
    noticed = replace(JOB, use_notice=True)
    blind, warned = simulate(JOB, MARKET), simulate(noticed, MARKET)
    assert warned.redone_hours.mean == 0
    assert blind.redone_hours.mean > 1
    assert warned.finish_hours.mean < blind.finish_hours.mean
    # With the notice, checkpoints in between only cost time.
    rare = replace(noticed, interval_hours=JOB.work_hours)
    assert expected(rare, MARKET).usd < expected(noticed, MARKET).usd


def test_redone_work_is_what_time_lost_is_made_of():
    # No start-up, no wait: all that is billed beyond the uninterrupted run is work and checkpoints done again.
    job = replace(JOB, startup_s=0.0, wait_s=0.0)
    runs = simulate(job, MARKET)
    extra = runs.billed_hours.mean - job.uninterrupted_hours
    assert runs.redone_hours.mean == pytest.approx(extra, rel=1e-9)


def test_the_best_interval_is_dalys_and_near_youngs():
    for rate in (0.01, 0.05, 0.2):
        market = Market(1.0, rate)
        best, formula = best_interval_hours(JOB, market), intervals(JOB, market)
        assert best == pytest.approx(formula["Daly"], rel=0.05)
        usd = {
            hours: expected(replace(JOB, interval_hours=hours), market).usd
            for hours in (best / 3, best, formula["Daly"], formula["Young"], best * 3)
        }
        assert min(usd.values()) == usd[best]
        assert usd[formula["Young"]] < 1.01 * usd[best]
        assert usd[best / 3] > usd[best] < usd[best * 3]


def test_intervals_are_the_planners():
    reliability = Reliability(10 * 3600.0, 90.0, restart_s=300.0)
    found = intervals(JOB, MARKET)
    assert found["Young"] * 3600 == pytest.approx(young_interval_s(reliability))
    assert found["Daly"] * 3600 == pytest.approx(daly_interval_s(reliability))


jobs = st.builds(
    SpotJob,
    work_hours=st.floats(0.1, 200),
    interval_hours=st.floats(0.1, 20),
    checkpoint_s=st.floats(0, 120),
    startup_s=st.floats(0, 900),
    wait_s=st.floats(0, 3600),
    use_notice=st.booleans(),
)
rates = st.floats(0, 0.5)


@given(jobs, rates, st.floats(1, 3))
def test_a_higher_price_costs_in_proportion(job, rate, factor):
    cheap, dear = expected(job, Market(1.0, rate)), expected(job, Market(factor, rate))
    assert dear.usd == pytest.approx(factor * cheap.usd)
    assert dear.finish_hours == cheap.finish_hours


@given(jobs, rates, st.floats(0, 0.5))
def test_more_interruptions_never_shorten_a_job(job, rate, added):
    some, many = expected(job, Market(1.0, rate)), expected(job, Market(1.0, rate + added))
    assert many.finish_hours >= some.finish_hours * (1 - 1e-9)
    assert many.usd >= some.usd * (1 - 1e-9)
    assert many.billed_hours >= job.uninterrupted_hours * (1 - 1e-9)


@given(jobs, rates, st.floats(0.01, 50))
def test_a_longer_job_takes_longer_and_costs_more(job, rate, added):
    longer = replace(job, work_hours=job.work_hours + added)
    one, two = expected(job, Market(1.0, rate)), expected(longer, Market(1.0, rate))
    assert two.billed_hours > one.billed_hours
    assert two.finish_hours > one.finish_hours
    assert two.usd > one.usd


@given(jobs, rates, st.sampled_from(["checkpoint_s", "startup_s", "wait_s"]), st.floats(0.1, 100))
def test_every_overhead_costs_time(job, rate, name, added):
    job = replace(job, use_notice=False)
    slower = replace(job, **{name: getattr(job, name) + added})
    one, two = expected(job, Market(1.0, rate)), expected(slower, Market(1.0, rate))
    assert two.finish_hours >= one.finish_hours


@settings(max_examples=25)
@given(jobs, rates, st.floats(0.01, 50), st.integers(0, 5))
def test_simulated_runs_of_a_longer_job_are_never_shorter(job, rate, added, seed):
    longer = replace(job, work_hours=job.work_hours + added)
    market = Market(1.0, min(rate, 0.2))
    one, two = (simulate(run, market, runs=50, seed=seed) for run in (job, longer))
    assert two.finish_hours.mean > one.finish_hours.mean
    assert two.finish_hours.p80 >= one.finish_hours.p80


def test_the_same_seed_gives_the_same_runs():
    assert simulate(JOB, MARKET, seed=1) == simulate(JOB, MARKET, seed=1)
    assert simulate(JOB, MARKET, seed=1) != simulate(JOB, MARKET, seed=2)


def test_a_job_that_can_hardly_end_is_infinite_in_closed_form():
    hopeless = SpotJob(3000.0, 3000.0, 0.0)
    assert expected(hopeless, Market(1.0, 1.0)).finish_hours == math.inf
    assert expected(replace(hopeless, interval_hours=1.0), Market(1.0, 1.0)).finish_hours < 1e4
    never = replace(JOB, interval_hours=1e9)
    assert expected(never, Market(1.0, 0.01)).billed_hours < 40, "one checkpoint, at the end"


def test_a_job_that_does_not_end_is_refused(monkeypatch):
    monkeypatch.setattr("smml.cost.spot.run._MOST_INTERRUPTIONS", 200)
    with pytest.raises(UserError, match="not done after 200 interruptions: shorten interval_hours"):
        simulate(SpotJob(50.0, 50.0, 0.0), Market(1.0, 1.0), runs=10)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"work_hours": 0.0}, "work_hours is 0.0"),
        ({"interval_hours": -1.0}, "interval_hours is -1.0"),
        ({"checkpoint_s": -1.0}, "checkpoint_s is -1.0"),
        ({"startup_s": math.nan}, "startup_s is nan"),
        ({"wait_s": math.inf}, "wait_s is inf"),
    ],
)
def test_bad_jobs_are_named(changes, said):
    with pytest.raises(UserError) as error:
        replace(JOB, **changes)
    assert said in str(error.value)


def test_a_checkpoint_must_fit_into_the_notice():
    seconds = limit("spot_notice").value
    assert replace(JOB, checkpoint_s=seconds, use_notice=True).use_notice
    with pytest.raises(UserError, match="the notice comes 120 s ahead: make checkpoints shorter"):
        replace(JOB, checkpoint_s=seconds + 1, use_notice=True)


def test_other_bad_input_is_named():
    with pytest.raises(UserError, match=r"usd_per_hour is -1.0"):
        Market(-1.0, 0.1)
    with pytest.raises(UserError, match="interruptions_per_hour is inf"):
        Market(1.0, math.inf)
    with pytest.raises(UserError, match="runs is 0"):
        simulate(JOB, MARKET, runs=0)
    for job, market in ((JOB, Market(1.0, 0.0)), (replace(JOB, checkpoint_s=0.0), MARKET)):
        with pytest.raises(UserError, match="both must be above 0"):
            best_interval_hours(job, market)
