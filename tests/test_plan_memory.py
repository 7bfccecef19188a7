"""Memory per rank: the published formulas worked out by hand, state bytes, and laws for every layout."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings, strategies as st
from plan_runs import eight_billion, planned

from smml.plan.layout import Job, Layout
from smml.plan.memory import activation_bytes, in_flight, layer_activation_bytes, memory
from smml.plan.shape import gpt, named_shape

GIB = 2**30


@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("t", [2, 8])
def test_gpt_layer_is_korthikanti_equations_2_and_4(t, sequence_parallel):
    s, b, h, a = 2048, 4, 6144, 64
    job = Job(gpt("g", 48, h, a), s, b, "fp16", "fused", "unfused")
    layout = Layout(1, t, micro_batch_size=b, sequence_parallel=sequence_parallel)
    scores = 5 * a * s / (h * t)
    expected = s * b * h * ((34 / t + scores) if sequence_parallel else (10 + 24 / t + scores))
    assert layer_activation_bytes(job, layout)[0] == pytest.approx(expected)
    selective = replace(layout, recompute="selective")
    assert layer_activation_bytes(job, selective)[0] == pytest.approx(expected - s * b * h * scores)
    full = replace(layout, recompute="full", sequence_parallel=False)
    assert layer_activation_bytes(job, full)[0] == pytest.approx(2 * s * b * h)


def test_flash_attention_keeps_no_term_that_grows_with_the_square_of_the_length():
    _, job, layout = eight_billion(recompute="none")
    once = layer_activation_bytes(job, layout)[0]
    twice = layer_activation_bytes(replace(job, sequence_length=16_384), layout)[0]
    assert twice == pytest.approx(2 * once)
    unfused = replace(job, attention="unfused")
    assert layer_activation_bytes(unfused, layout)[0] > 2 * once


def test_micro_batches_in_flight():
    job = Job(named_shape("gpt-175b"), 2048, 64, "fp16", "fused", "unfused")
    layers = 96
    assert in_flight(job, Layout(1, 8, 8)) == layers
    assert in_flight(job, Layout(1, 8, 8, interleave=3)) == pytest.approx(layers * (1 + 7 / 24))
    few = replace(job, global_batch_size=4)
    assert in_flight(few, Layout(1, 8, 8)) == 4 * layers / 8


def test_state_is_16_bytes_a_parameter_sharded_or_18_with_the_working_copy():
    _, job, layout = eight_billion()
    parameters = job.shape.parameters
    held = memory(job, layout)
    assert held.gradients + held.optimizer == pytest.approx(16 * parameters / 8)
    alone = memory(replace(job, global_batch_size=8), Layout(zero_stage=0))
    assert alone.weights + alone.gradients + alone.optimizer == pytest.approx(18 * parameters)
    one = memory(job, replace(layout, zero_stage=1))
    assert one.weights == pytest.approx(2 * parameters)
    assert one.optimizer == pytest.approx(12 * parameters / 8)


def test_experts_are_divided_and_have_fewer_copies():
    job = Job(named_shape("mixtral-8x7b"), 2048, 64)
    all_here = memory(job, Layout(8, expert_parallel=1, zero_stage=1))
    spread = memory(job, Layout(8, expert_parallel=8, zero_stage=1))
    experts = 32 * 8 * job.shape.expert_parameters
    assert all_here.weights - spread.weights == pytest.approx(2 * experts * 7 / 8)
    assert all_here.optimizer == pytest.approx(spread.optimizer)


@settings(deadline=None, max_examples=60)
@given(planned())
def test_memory_falls_or_stays_with_each_zero_stage(run):
    _, job, layout = run
    totals = [memory(job, replace(layout, zero_stage=z)).total for z in range(4)]
    # Stage 3 holds a gathered layer instead of all of them: less once there are ranks to share with. A pipeline sums whole
    # gradients, of which stages 2 and 3 keep a share beside.
    last = 2 if layout.pipeline_parallel > 1 else 4 if layout.replicas > 1 else 3
    assert totals[:last] == sorted(totals[:last], reverse=True)


@settings(deadline=None, max_examples=60)
@given(planned())
def test_memory_falls_with_tensor_parallelism_and_recomputation(run):
    _, job, layout = run
    assume(layout.tensor_parallel < 8 and not layout.sequence_parallel)
    more = replace(layout, tensor_parallel=2 * layout.tensor_parallel)
    assert memory(job, more).total < memory(job, layout).total
    kept = [
        activation_bytes(job, replace(layout, recompute=r)) for r in ("none", "selective", "full")
    ]
    assert kept == sorted(kept, reverse=True)


@settings(deadline=None, max_examples=60)
@given(planned())
def test_state_falls_with_pipeline_parallelism(run):
    _, job, layout = run
    layout = replace(layout, zero_stage=min(layout.zero_stage, 1), interleave=1)
    more = replace(layout, pipeline_parallel=2 * layout.pipeline_parallel)
    assume(job.shape.layers % more.pipeline_parallel == 0)
    ahead, behind = memory(job, layout), memory(job, more)
    assert behind.weights + behind.optimizer < ahead.weights + ahead.optimizer


@settings(deadline=None, max_examples=60)
@given(planned(), st.sampled_from((1, 2, 4)))
def test_every_part_is_at_least_nothing_and_grows_with_the_micro_batch(run, factor):
    _, job, layout = run
    held = memory(job, layout)
    assert min(vars(held).values()) >= 0
    wider = replace(layout, micro_batch_size=factor * layout.micro_batch_size)
    job = replace(job, global_batch_size=factor * job.global_batch_size)
    assert memory(job, wider).total >= held.total * (1 - 1e-12)
