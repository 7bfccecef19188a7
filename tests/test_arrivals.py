"""Traces of requests: as many as asked for, peaked where asked, the same for the same seed, more load never fewer."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from smml.cost.scaling.arrivals import DAY_S, Burst, Traffic, arrivals
from smml.errors import UserError

few = settings(max_examples=40, deadline=None)


@few
@given(st.floats(0.01, 1.0), st.floats(1.0, 20.0), st.floats(0, 23.9))
def test_the_day_keeps_its_mean_and_its_peak(mean, ratio, hour):
    traffic = Traffic(mean, ratio, hour)
    times = np.arange(0, DAY_S, 30.0)
    rate = traffic.rate_per_s(times)
    assert rate.mean() == pytest.approx(mean, rel=1e-3)
    assert rate.max() == pytest.approx(ratio * mean, rel=1e-3)
    assert abs(times[rate.argmax()] / 3600 - hour) < 0.05 or ratio < 1.01
    assert (rate > 0).all()


def test_a_poisson_stream_has_its_rate_and_its_variance():
    trace = arrivals(Traffic(1.0), 50_000.0, seed=3)
    assert len(trace) == pytest.approx(50_000, abs=4 * 50_000**0.5)
    gaps = np.diff(trace)
    assert gaps.mean() == pytest.approx(1.0, rel=0.02)
    assert gaps.std() == pytest.approx(1.0, rel=0.02)
    counts = np.histogram(trace, bins=500)[0]
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.2)


@few
@given(st.floats(0.01, 0.5), st.floats(1.0, 3.0), st.integers(0, 9))
def test_more_load_is_never_fewer_requests_and_the_seed_decides(mean, factor, seed):
    less, more = (arrivals(Traffic(m, 2.0), 3600.0, seed) for m in (mean, factor * mean))
    assert len(more) >= len(less)
    assert np.array_equal(less, arrivals(Traffic(mean, 2.0), 3600.0, seed))
    assert (np.diff(less) >= 0).all()
    assert len(less) == 0 or (less[0] >= 0 and less[-1] < 3600)


def test_seeds_differ():
    assert not np.array_equal(
        arrivals(Traffic(1.0), 100.0, 1)[:5], arrivals(Traffic(1.0), 100.0, 2)[:5]
    )


def test_a_burst_comes_on_top():
    calm = arrivals(Traffic(1.0), 30_000.0, 5)
    wild = arrivals(Traffic(1.0, bursts=(Burst(10_000, 5_000, 4.0),)), 30_000.0, 5)

    def within(trace):
        return ((trace >= 10_000) & (trace < 15_000)).sum()

    assert within(wild) / within(calm) == pytest.approx(4.0, rel=0.1)
    assert len(wild) - within(wild) == pytest.approx(25_000, rel=0.03)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"mean_per_s": 0}, "mean_per_s"),
        ({"mean_per_s": float("nan")}, "mean_per_s"),
        ({"mean_per_s": 1, "peak_to_mean": 0.5}, "peak_to_mean"),
        ({"mean_per_s": 1, "peak_hour": 24}, "peak_hour"),
        ({"mean_per_s": 1, "bursts": (Burst(0, 0, 2),)}, "duration_s"),
    ],
)
def test_bad_traffic_is_refused_by_name(fields, says):
    with pytest.raises(UserError, match=says):
        Traffic(**fields)


def test_a_trace_needs_time():
    with pytest.raises(UserError, match="duration_s"):
        arrivals(Traffic(1.0), 0.0)
