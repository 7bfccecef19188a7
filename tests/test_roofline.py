"""Counts and predictions: laws that hold for all sizes, and figures worked out by hand."""

import math

import pytest
from hypothesis import given, strategies as st

from smml.errors import UserError
from smml.roofline import Prediction, Roof, Work, chain, elementwise, gemm

dim = st.integers(1, 10_000)
width = st.sampled_from([1, 2, 4, 8])
rate = st.floats(1e6, 1e16)


@given(dim, dim, dim, width)
def test_gemm_counts_every_multiply_add_twice_and_every_matrix_once(m, n, k, b):
    work = gemm(m, n, k, b)
    assert work.flops == 2 * m * n * k
    assert work.bytes == b * (m * k + k * n + m * n)
    assert gemm(n, m, k, b).flops == work.flops
    assert gemm(n, m, k, b).bytes == work.bytes


@given(dim, dim, dim, width)
def test_gemm_intensity_is_below_its_smallest_dimension(m, n, k, b):
    assert gemm(m, n, k, b).arithmetic_intensity <= 2 * min(m, n, k) / b * (1 + 1e-12)


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64))
def test_gemm_flops_agree_with_torch(m, n, k):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        torch.mm(torch.empty(m, k, device="meta"), torch.empty(k, n, device="meta"))
    assert counter.get_total_flops() == gemm(m, n, k, 4).flops


@given(dim, width, st.integers(1, 20))
def test_a_plain_chain_is_its_steps_one_after_the_other(elements, b, length):
    steps = elementwise(elements, b)
    for _ in range(length - 1):
        steps = steps + elementwise(elements, b, in_place=True)
    assert chain(elements, b, length) == steps


@given(dim, width, st.integers(1, 20), st.floats(0, 1))
def test_fusing_a_chain_keeps_its_flops_and_only_ever_saves_bytes(
    elements, b, length, write_allocate
):
    plain, fused = chain(elements, b, length), chain(elements, b, length, fused=True)
    assert fused.flops == plain.flops
    assert fused.traffic(write_allocate) <= plain.traffic(write_allocate)
    assert fused.bytes == 2 * elements * b


@given(dim, width, st.integers(1, 3), st.floats(0, 1))
def test_write_allocate_adds_only_what_is_written_unread(elements, b, inputs, share):
    fresh = elementwise(elements, b, inputs=inputs)
    in_place = elementwise(elements, b, inputs=inputs, in_place=True)
    assert fresh.traffic(share) == pytest.approx((inputs + 1 + share) * elements * b)
    assert in_place.traffic(share) == in_place.bytes


@given(rate, rate, dim, dim, dim, width, st.floats(0, 1), st.floats(0, 1e-3))
def test_the_prediction_is_the_largest_term_and_names_it(
    peak, bandwidth, m, n, k, b, share, launch
):
    roof = Roof("x", peak, bandwidth, write_allocate=share, launch_s=launch)
    p = roof.predict(gemm(m, n, k, b))
    terms = {"compute": p.compute_s, "memory": p.memory_s, "launch": p.launch_s}
    assert p.seconds == max(terms.values()) == terms[p.bound]


@given(rate, rate, dim, dim, dim, width)
def test_a_kernel_is_memory_bound_exactly_below_the_ridge(peak, bandwidth, m, n, k, b):
    roof, work = Roof("x", peak, bandwidth), gemm(m, n, k, b)
    if not math.isclose(work.arithmetic_intensity, roof.ridge, rel_tol=1e-9):
        assert (roof.predict(work).bound == "memory") == (work.arithmetic_intensity < roof.ridge)
    attained = work.flops / roof.predict(work).seconds
    assert attained == pytest.approx(roof.attainable(work.arithmetic_intensity))


@given(rate, rate, st.floats(1, 100))
def test_faster_ceilings_never_predict_a_longer_time(peak, bandwidth, factor):
    work = gemm(100, 200, 300, 4)
    slow, fast = Roof("x", peak, bandwidth), Roof("x", peak * factor, bandwidth * factor)
    assert fast.predict(work).seconds <= slow.predict(work).seconds


def test_by_hand():
    # 1024³ in fp32: 2·2³⁰ FLOPs over 3·4 MiB; at 100 GFLOP/s 21.47 ms, at 10 GB/s 1.26 ms.
    work = gemm(1024, 1024, 1024, 4)
    assert (work.flops, work.bytes) == (2**31, 12 * 2**20)
    assert work.arithmetic_intensity == pytest.approx(170.67, rel=1e-4)
    prediction = Roof("x", 1e11, 1e10).predict(work)
    assert prediction.compute_s == pytest.approx(21.47e-3, rel=1e-3)
    assert prediction.memory_s == pytest.approx(1.258e-3, rel=1e-3)
    assert prediction.bound == "compute"


@given(st.integers(1, 9))
def test_repeating_work_multiplies_everything(times):
    work = gemm(3, 5, 7, 2)
    total = Work(0, 0, 0, 0, 0)
    for _ in range(times):
        total = total + work
    assert work * times == total


@pytest.mark.parametrize("bad", [{"m": 0}, {"n": -1}, {"k": 0}, {"bytes_per_element": 0}])
def test_impossible_sizes_are_named(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        gemm(**({"m": 1, "n": 1, "k": 1, "bytes_per_element": 4} | bad))


def test_a_roof_needs_both_ceilings():
    with pytest.raises(UserError, match="peak_flops"):
        Roof("x", 0, 1)


def test_an_unknown_device_or_dtype_has_no_physical_roof():
    from smml.data import accelerator

    assert Roof.physical(None, "bfloat16") is None
    assert Roof.physical(accelerator("t4"), "bfloat16") is None  # Turing has no bfloat16 units
    known = Roof.physical(accelerator("h200-sxm"), "bfloat16")
    assert known.kind == "physical"
    assert 150 < known.ridge < 250


def test_ties_go_to_compute_first():
    assert Prediction(1.0, 1.0, 1.0).bound == "compute"


def test_a_recorded_roof_comes_from_the_records_of_the_ceilings():
    from make_record import made

    peak = made("ceiling/gemm/float32", 1.0, spread=0, unit="FLOP/s", amount=3e11)
    stream = made("ceiling/bandwidth", 1.0, spread=0, amount=2e10)
    roof = Roof.recorded([peak, stream, made("copy")], "float32")
    assert roof.ridge == pytest.approx(15)
    assert "Test CPU, float32" in roof.name
    assert Roof.recorded([peak, stream], "bfloat16") is None
    assert Roof.recorded([peak], "float32") is None
