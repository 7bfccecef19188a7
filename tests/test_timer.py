"""The timer: quantiles, adaptive repeats, interleaving, too few samples."""

import pytest
from hypothesis import given, strategies as st

from smml.errors import UserError
from smml.measure import MIN_SAMPLES, Timing, slowed, time_call, time_interleaved

times = st.lists(st.floats(1e-9, 1e3), min_size=MIN_SAMPLES, max_size=50)


@given(times)
def test_quantiles_are_ordered_and_inside_the_samples(samples):
    timing = Timing(tuple(samples))
    assert min(samples) <= timing.p20 <= timing.p50 <= timing.p80 <= max(samples)
    assert timing.n == len(samples)


@given(times, st.randoms())
def test_quantiles_do_not_depend_on_the_order_of_samples(samples, random):
    shuffled = samples.copy()
    random.shuffle(shuffled)
    assert Timing(tuple(samples)).p50 == Timing(tuple(shuffled)).p50


def test_quantiles_agree_with_numpy():
    import numpy

    samples = (5.0, 1.0, 4.0, 2.0, 9.0, 7.0)
    timing = Timing(samples)
    assert [timing.p20, timing.p50, timing.p80] == pytest.approx(
        numpy.quantile(samples, [0.2, 0.5, 0.8])
    )


@pytest.mark.parametrize("count", range(MIN_SAMPLES))
def test_too_few_samples_are_rejected(count):
    with pytest.raises(UserError, match=f"{count} samples are too few"):
        Timing((1.0,) * count)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_sample_that_is_no_time_is_rejected(bad):
    with pytest.raises(UserError, match="not a positive time"):
        Timing((1.0, 1.0, 1.0, 1.0, bad))


def test_a_call_is_warmed_up_and_repeated_until_there_are_enough_samples():
    calls = []
    timing = time_call(lambda: calls.append(1), budget_s=0.0)
    assert timing.n == MIN_SAMPLES
    assert len(calls) > timing.n  # warm-up, and loops inside a sample of a call this short


def test_max_samples_bounds_the_repeats_and_may_not_be_too_few():
    assert time_call(lambda: None, budget_s=10, max_samples=6, target_spread=0).n == 6
    with pytest.raises(UserError, match="max_samples=4"):
        time_call(lambda: None, max_samples=4)


def test_interleaved_calls_take_turns_and_get_the_same_number_of_samples():
    order = []
    timings = time_interleaved(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, budget_s=0, flush_bytes=64
    )
    assert timings["a"].n == timings["b"].n == MIN_SAMPLES
    assert "".join(order).endswith("ab" * MIN_SAMPLES)


def test_a_flushed_call_is_never_looped_inside_a_sample():
    calls = []
    timing = time_call(lambda: calls.append(1), budget_s=0, flush_bytes=1024)
    assert len(calls) == timing.n + 3  # the two estimates and one warm-up


def test_nothing_to_time_and_an_unknown_device_are_rejected():
    with pytest.raises(UserError, match="nothing to time"):
        time_interleaved({})
    with pytest.raises(UserError, match="'tpu'"):
        time_call(lambda: None, device="tpu")


def test_slowed_does_the_call_so_many_times():
    calls = []
    slowed(lambda: calls.append(1), 3)()
    assert len(calls) == 3
    with pytest.raises(UserError, match="slowdown of 0"):
        slowed(lambda: None, 0)


@pytest.mark.gpu
def test_gpu_events_time_the_device_not_the_launch():
    import torch

    a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    once = time_call(lambda: a @ a, device="cuda")
    twice = time_call(lambda: (a @ a, a @ a), device="cuda")
    assert twice.p50 > 1.5 * once.p50
