"""The planner on published runs beside its calibration rows, and the terms that were developed on half of them."""

from dataclasses import replace

import pytest

from smml.errors import UserError
from smml.plan import calibration
from smml.plan.cluster import cluster
from smml.plan.communication import context_seconds, parameter_seconds
from smml.plan.layout import Job, Layout
from smml.plan.memory import memory
from smml.plan.shape import named_shape
from smml.plan.step import step

LLAMA = Job(named_shape("llama-3.1-8b"), 8192, 128, "bf16", "fused", "flash3")
NODES = cluster("h100", 64)


@pytest.fixture(scope="module")
def errors() -> list[calibration.Error]:
    return calibration.compare(calibration.read_folder(calibration.OTHERS))


def test_published_runs_span_models_hardware_and_strategies(errors):
    runs = [entry.run for entry in errors]
    assert len(runs) > 100
    assert {run.job.dtype for run in runs} == {"bf16", "fp16", "fp8"}
    assert {run.cluster.accelerator.architecture.split()[0] for run in runs} == {"Ampere", "Hopper"}
    for used in ("tensor_parallel", "pipeline_parallel", "context_parallel", "interleave"):
        assert any(getattr(run.layout, used) > 1 for run in runs), used
    assert any(run.layout.zero_stage == 3 for run in runs)
    assert max(run.cluster.gpus for run in runs) == 16_384


def test_they_are_none_of_those_the_constants_were_fitted_to(errors):
    fitted = {(r.run.source, r.measured) for r in calibration.compare(calibration.read_folder())}
    assert not fitted & {(entry.run.source, entry.measured) for entry in errors}


def test_most_of_them_are_predicted_within_a_tenth(errors):
    off = [abs(entry.error) for entry in errors]
    assert sum(off) / len(off) <= 0.07
    assert sum(error <= 0.10 for error in off) / len(off) >= 0.75


def test_gradients_of_16_bits_halve_what_is_held_and_sent():
    wide = Layout(data_parallel=64, zero_stage=1)
    narrow = replace(wide, gradient_bytes=2)
    assert memory(LLAMA, narrow).gradients == memory(LLAMA, wide).gradients / 2
    held = (8e9, 0.0)
    gather, scatter, _ = parameter_seconds(NODES, wide, held)
    same, fewer, _ = parameter_seconds(NODES, narrow, held)
    assert same == gather
    assert fewer < 0.6 * scatter
    with pytest.raises(UserError, match="gradient_bytes"):
        Layout(gradient_bytes=3)


def test_flash_attention_1_is_slower_than_2():
    layout = Layout(data_parallel=64, zero_stage=3)
    eager = replace(LLAMA, engine="eager", attention="flash")
    first = replace(eager, attention="flash1")
    assert step(NODES, first, layout).seconds > step(NODES, eager, layout).seconds


def test_heads_repeated_before_attention_are_sent():
    layout = Layout(data_parallel=16, context_parallel=4, zero_stage=3)
    fused, _ = context_seconds(NODES, LLAMA, layout)
    repeated, _ = context_seconds(NODES, replace(LLAMA, engine="compiled"), layout)
    shape = LLAMA.shape
    assert repeated / fused == pytest.approx(shape.query_dim / shape.kv_dim, rel=0.1)


def test_more_chunks_of_a_pipeline_hide_more_of_the_gradients():
    thin = cluster("h100", 64, network_gbit_per_s=10)
    job = replace(LLAMA, global_batch_size=64)
    exposed = {}
    for chunks in (1, 2, 4):
        layout = Layout(data_parallel=16, pipeline_parallel=4, interleave=chunks, zero_stage=1)
        exposed[chunks] = step(thin, job, layout).parts["data parallel"]
    assert exposed[4] < exposed[2] < exposed[1]
