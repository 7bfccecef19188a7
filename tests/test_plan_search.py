"""Layout search: within the limit, really the quickest, every rejection with its reason; advice; the printed plan."""

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st
from plan_runs import eight_billion

from smml.errors import UserError
from smml.plan.advice import advise
from smml.plan.calibration import errors_text
from smml.plan.cluster import cluster
from smml.plan.command_line import plan
from smml.plan.layout import Job, Layout
from smml.plan.memory import memory
from smml.plan.report import memory_bar
from smml.plan.search import candidates, search
from smml.plan.shape import named_shape
from smml.plan.step import step

PLACE = cluster("h100", 16)
JOB = Job(named_shape("llama-3.1-8b"), 8192, 64)


@settings(deadline=None, max_examples=4)
@given(st.floats(20e9, 120e9))
def test_nothing_over_the_limit_is_returned_and_the_best_is_the_quickest(limit):
    found = search(PLACE, JOB, memory_limit_bytes=limit, keep=3)
    possible = [
        (step(PLACE, JOB, layout).seconds, layout)
        for layout in candidates(PLACE, JOB)
        if not layout.problem(JOB, 16) and memory(JOB, layout).total <= limit
    ]
    assert len(possible) + len(found.rejected) == found.considered
    assert all(planned.memory.total <= limit for planned in found.best)
    quickest = sorted(seconds for seconds, _ in possible)[:3]
    assert [planned.step.seconds for planned in found.best] == pytest.approx(quickest)


def test_every_rejection_has_a_field_and_a_reason():
    found = search(PLACE, JOB)
    assert found.rejected
    assert sum(count for _, count, _ in found.grouped()) == len(found.rejected)
    for entry in found.rejected:
        assert entry.reason.startswith(entry.field)
        assert entry.layout.problem(JOB, 16) or memory(JOB, entry.layout).total > found.limit_bytes
    name, _, nearest = next(group for group in found.grouped() if group[0] == "memory")
    over = [memory(JOB, e.layout).total for e in found.rejected if e.field == name]
    assert memory(JOB, nearest.layout).total == min(over)


def test_fixed_fields_keep_their_values():
    found = search(
        PLACE, JOB, fixed={"tensor_parallel": 4, "recompute": "full", "zero_stage": None}
    )
    assert found.best
    assert {p.layout.tensor_parallel for p in found.best} == {4}
    assert {p.layout.recompute for p in found.best} == {"full"}


def test_thousands_of_candidates_compute_few_layers():
    from smml.plan.compute import layer_pass

    place, job = cluster("h100", 2048), Job(named_shape("llama-3.1-70b"), 16_384, 2048)
    layouts = list(candidates(place, job))
    layer_pass.cache_clear()
    assert search(place, job, layouts=layouts).considered > 8_000
    # Layouts that treat a layer alike share what was computed for it; that is what keeps the search quick.
    assert layer_pass.cache_info().misses < 2_000


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: search(PLACE, JOB, memory_limit_bytes=0), "memory_limit_bytes is 0"),
        (lambda: search(PLACE, JOB, keep=0), "keep is 0"),
    ],
)
def test_wrong_limits_are_named(call, said):
    with pytest.raises(UserError, match=said):
        call()


def test_advice_saves_what_it_says_and_fits():
    place, job, layout = eight_billion()
    changes = advise(place, job, layout)
    now = step(place, job, layout).seconds
    assert [c.seconds for c in changes] == sorted(c.seconds for c in changes)
    assert all(c.seconds < now and c.saved == pytest.approx(1 - c.seconds / now) for c in changes)
    fp8 = next(c for c in changes if c.what.startswith("FP8"))
    assert fp8.seconds == pytest.approx(step(place, replace(job, dtype="fp8"), layout).seconds)
    tight = memory(job, layout).total
    assert not any(c.what == "micro_batch_size 2" for c in advise(place, job, layout, tight))


def test_the_memory_bar_is_to_scale():
    _, job, layout = eight_billion()
    held = memory(job, layout)
    bar = memory_bar(held, 2 * held.total).splitlines()[0]
    inside = bar[bar.index("[") + 1 : bar.index("]")]
    assert len(inside) == 60
    assert inside.count(".") == 30
    full = memory_bar(held, held.total / 2)
    assert "." not in full[full.index("[") : full.index("]")]


def test_the_plan_says_memory_time_and_what_helps(capsys):
    plan("llama-3.1-8b", 8, "p5.48xlarge", tokens=1e11)
    text = capsys.readouterr().out
    for word in (
        "layout:",
        "memory  [",
        "step ",
        "matmul",
        "MFU",
        "goodput",
        "USD",
        "FP8",
        "rejected",
    ):
        assert word in text, word
    plan(
        *("llama-3.1-8b", 8, "h100-96gb"),
        global_batch_size=16,
        tensor_parallel=1,
        pipeline_parallel=1,
        context_parallel=1,
        expert_parallel=1,
        micro_batch_size=2,
        interleave=1,
        zero_stage=3,
        recompute="selective",
    )
    given = capsys.readouterr().out
    assert "dp8 zero3 mbs2 recompute selective" in given
    assert "DOES NOT FIT" not in given
    assert "mean error" in errors_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"gpus": 0}, "gpus is 0"),
        ({"model": "llama-9"}, "model is 'llama-9'"),
        ({"accelerator": "h900"}, "accelerator is 'h900'"),
        ({"tensor_parallel": 3}, "tensor_parallel 3"),
        ({"tensor_parallel": -1}, "tensor_parallel is -1"),
        ({"recompute": "little"}, "recompute is 'little'"),
        ({"dtype": "fp3"}, "dtype is 'fp3'"),
        ({"sequence_length": 0}, "sequence_length is 0"),
        ({"memory_limit_gib": -5}, "memory_limit_bytes is"),
        ({"memory_limit_gib": 0.001}, "none of .* layouts.*memory: needs"),
        ({"memory_limit_gib": 900.0}, "memory_limit is 900 GiB: NVIDIA H100"),
        ({"memory_limit_gib": float("inf")}, "memory_limit is inf"),
        ({"memory_limit_gib": float("nan")}, "memory_limit_bytes is nan"),
        ({"tokens": float("nan")}, "tokens is nan"),
        ({"tokens": float("inf")}, "tokens is inf"),
        ({"accelerator": "h100, 0 W"}, "accelerator is 'h100, 0 W'.*no power"),
        ({"accelerator": "h100, 1.2.3 W"}, "accelerator is .*no power"),
        ({"accelerator": "h100,"}, "accelerator is 'h100,'"),
        ({"accelerator": "c5.large"}, "accelerator is 'c5.large'"),
        ({"accelerator": "a100", "dtype": "fp8"}, "dtype is 'fp8'.*A100"),
        ({"accelerator": "v100"}, "dtype is 'bf16'.*V100"),
        ({"accelerator": "a100", "attention": "flash3"}, "attention is 'flash3'.*A100.*Ampere"),
        ({"network": "token"}, "network is 'token'"),
        ({"network_gbit_per_s": float("inf")}, "network_gbit_per_s is inf"),
        ({"price_usd_per_gpu_hour": float("inf")}, "price_usd_per_gpu_hour is inf"),
        ({"price_usd_per_gpu_hour": -1.0}, "price_usd_per_gpu_hour is -1"),
        ({"interleave": 2, "pipeline_parallel": 1}, "interleave 2 needs pipeline_parallel"),
        ({"context_parallel": 8, "sequence_length": 100}, "context_parallel 8 cannot"),
        ({"expert_parallel": 2}, "expert_parallel 2 does not divide experts 1"),
        ({"model": "gpt-175b", "sequence_length": 4096}, "sequence_length is 4096.*2048 learned"),
        ({"gpus": 16_384, "global_batch_size": 3}, "global_batch_size 3"),
        ({"gpus": 10_000_000}, "goodput is .*never ends"),
        ({"storage_bytes_per_s": 1.0}, "goodput is .*storage_bytes_per_s"),
        ({"tokens": -1}, "tokens is -1"),
        ({"detection_s": -1}, "detection_s is -1"),
        ({"storage_bytes_per_s": 0}, "storage_bytes_per_s is 0"),
        ({"gpu_hours_between_failures": 0}, "gpu_hours is 0"),
        ({"model": "llama-3.1-405b"}, "none of .* layouts.*memory"),
    ],
)
def test_the_plan_names_a_wrong_argument(arguments, said):
    with pytest.raises(UserError, match=said) as caught:
        plan(**({"model": "llama-3.1-8b", "gpus": 8} | arguments))
    assert "\n" not in str(caught.value)


def test_the_planner_needs_no_torch():
    code = "import sys, smml.plan.planning, smml.plan.pages.folder; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_a_layout_reads_as_it_is():
    said = str(Layout(2, 4, 8, interleave=2, sequence_parallel=True, zero_stage=2))
    assert said == "dp2 tp4 pp8 v2 sp zero2 mbs1 recompute none"
