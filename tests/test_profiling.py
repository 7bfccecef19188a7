"""A trace file read back and accounted for; every planted fault is found in a real trace of it."""

import json
from pathlib import Path

import pytest
import torch

from smml import profiling
from smml.bench import bottlenecks, profiled_steps
from smml.course import checking
from smml.errors import UserError
from smml.hardware.reach import thread_count
from smml.llama.config import CONFIGS
from smml.llama.model import Llama
from smml.profiling.account import BETWEEN
from smml.train.optimizer import adamw
from smml.train.step import train_step

HOST, AUTOGRAD, STREAM = 1, 2, 7


def event(cat: str, name: str, ts: float, dur: float, tid: int = HOST, **args) -> dict:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": tid, "args": args}


def written(folder: Path, events: list[dict]) -> profiling.Trace:
    path = folder / "trace.json"
    path.write_text(json.dumps({"traceEvents": events}))
    return profiling.read(path)


@pytest.fixture
def on_cpu(tmp_path: Path) -> profiling.Trace:
    """One step of 100 µs: data 10–30 without an operator, forward 30–90 with linear (of mm and a copy) and add."""
    kinds = {"Input type": ["float", "double", "Scalar"], "Input Dims": [[2, 3], [], []]}
    return written(
        tmp_path,
        [
            event("user_annotation", "ProfilerStep#1", 1000, 100),
            event("user_annotation", "data", 1010, 20),
            event("user_annotation", "forward", 1030, 60),
            event("cpu_op", "aten::linear", 1035, 30, **kinds),
            event("cpu_op", "aten::mm", 1040, 20),
            event("cpu_op", "aten::copy_", 1061, 2),
            event("cpu_op", "aten::add", 1070, 10),
            event("cpu_op", "aten::item", 1092, 4),
            event("cpu_op", "aten::_local_scalar_dense", 1093, 2),
            event("cpu_op", "aten::before_the_step", 900, 50),
            {"ph": "i", "name": "Iteration Start", "ts": 990},
            {"ph": "M", "name": "process_name", "ts": 0, "args": {"name": "python"}},
        ],
    )


@pytest.fixture
def on_gpu(tmp_path: Path) -> profiling.Trace:
    """Two launches in forward and one in backward (from autograd's thread), then a wait; kernels run late."""
    return written(
        tmp_path,
        [
            event("user_annotation", "ProfilerStep#4", 0, 100),
            event("user_annotation", "forward", 0, 40),
            event("user_annotation", "backward", 40, 40),
            event("gpu_user_annotation", "forward", 20, 50, STREAM),
            event("cpu_op", "aten::mm", 2, 10),
            event("cuda_runtime", "cudaLaunchKernel", 5, 2, correlation=1),
            event("cpu_op", "aten::add", 15, 6),
            event("cuda_driver", "cuLaunchKernelEx", 16, 2, correlation=2),
            event("cpu_op", "MmBackward0", 45, 10, AUTOGRAD),
            event("cuda_runtime", "cudaLaunchKernel", 50, 2, AUTOGRAD, correlation=3),
            event("cuda_runtime", "cudaStreamSynchronize", 60, 15, correlation=4),
            event("cuda_runtime", "cudaMemcpyAsync", 57, 2, correlation=9),
            event("kernel", "sgemm", 20, 30, STREAM, correlation=1),
            event("kernel", "add", 50, 5, STREAM, correlation=2),
            event("kernel", "sgemm", 65, 45, STREAM, correlation=3),
            event("gpu_memcpy", "Memcpy DtoH", 110, 10, STREAM, correlation=9),
        ],
    )


def us(seconds: float) -> float:
    return round(seconds * 1e6, 6)


def test_operators_have_time_of_their_own_that_sums_to_the_busy_time(on_cpu):
    found = {o.name: o for o in profiling.by_operator(on_cpu)}
    assert {n: us(o.self_s) for n, o in found.items()} == {
        "aten::linear": 8,
        "aten::mm": 20,
        "aten::copy_": 2,
        "aten::add": 10,
        "aten::item": 2,
        "aten::_local_scalar_dense": 2,
    }
    assert found["aten::mm"].share == pytest.approx(0.2)
    assert found["aten::linear"].dtypes == {"float"}, "numbers without dimensions do not count"
    assert next(iter(found)) == "aten::mm", "the most time first"
    top = sum(s.seconds for s in on_cpu.of("operator") if s.top)
    assert sum(o.self_s for o in found.values()) == pytest.approx(top)
    assert [o.name for o in profiling.by_operator(on_cpu, "data")] == []


def test_phases_and_the_rest_make_up_the_step(on_cpu):
    phases = profiling.by_phase(on_cpu)
    assert {n: us(s) for n, s in phases.items()} == {"data": 20, "forward": 60, BETWEEN: 20}
    assert sum(phases.values()) == pytest.approx(on_cpu.step_s)


def test_gaps_are_cut_at_phases_and_complete_the_busy_time(on_cpu):
    gaps = profiling.gaps(on_cpu)
    assert (gaps[0].phase, us(gaps[0].seconds)) == ("data", 20)
    assert (gaps[0].after, gaps[0].before) == ("the step's begin", "aten::linear")
    idle = {phase: us(s) for phase, s in profiling.idle(on_cpu).items()}
    # forward: 30–35, 65–70, 80–90; between: 0–10, 90–92, 96–100
    assert idle == {"data": 20, "forward": 20, BETWEEN: 16}
    busy = sum(s.seconds for s in on_cpu.of("operator") if s.top)
    assert sum(g.seconds for g in gaps) + busy == pytest.approx(on_cpu.step_s)


def test_values_read_back_are_counted_where_they_are(on_cpu):
    assert profiling.host_syncs(on_cpu) == {(BETWEEN, "aten::_local_scalar_dense"): 1}


def test_launches_on_a_cpu_are_the_operators_that_call_no_other(on_cpu):
    found = profiling.launches(on_cpu, 1e-6)
    assert found.calls == 4  # mm, copy_, add, _local_scalar_dense
    assert us(found.predicted_s) == 4
    assert us(found.kernel_s) == 40  # 44 µs of operators, less the launches
    assert not found.bound
    assert profiling.launches(on_cpu, 20e-6).bound


def test_kernels_belong_to_the_phase_that_launched_them(on_gpu):
    assert on_gpu.on_gpu
    phases = [(s.name, s.phase) for s in on_gpu.of("kernel")]
    assert phases == [("sgemm", "forward"), ("add", "forward"), ("sgemm", "backward")]
    assert us(on_gpu.step_s) == 120, "the step ends with its last kernel, or copy"
    (backward,) = (s for s in on_gpu.of("operator") if s.name == "MmBackward0")
    assert backward.phase == "backward", "though another thread runs it"


def test_gaps_of_a_gpu_are_those_between_kernels(on_gpu):
    found = [(us(g.seconds), g.phase, g.before) for g in profiling.gaps(on_gpu)]
    assert found == [(20, "forward", "sgemm"), (10, "backward", "sgemm")]


def test_launches_and_waits_of_a_gpu(on_gpu):
    found = profiling.launches(on_gpu, 5e-6)
    assert (found.calls, us(found.predicted_s), us(found.kernel_s)) == (3, 15, 80)
    assert profiling.host_syncs(on_gpu) == {("backward", "cudaStreamSynchronize"): 1}
    assert list(profiling.lanes(on_gpu)) == ["phases", "operators", "kernels"]


def test_a_trace_of_several_steps_is_averaged_and_its_fastest_can_be_taken(tmp_path):
    events = []
    for number, (start, seconds) in enumerate(((0, 100), (200, 60))):
        events += [
            event("user_annotation", f"ProfilerStep#{number}", start, seconds),
            event("user_annotation", "forward", start + 10, seconds - 20),
            event("cpu_op", "aten::mm", start + 20, seconds - 40),
        ]
    trace = written(tmp_path, events)
    assert us(trace.step_s) == 80
    assert {n: us(s) for n, s in profiling.by_phase(trace).items()} == {"forward": 60, BETWEEN: 20}
    (mm,) = profiling.by_operator(trace)
    assert (mm.calls, us(mm.self_s)) == (1, 40)
    assert us(trace.fastest().step_s) == 60
    assert profiling.lanes(trace, 1)["operators"] == [
        ("aten::mm", pytest.approx(20e-6), pytest.approx(20e-6))
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"traceEvents": 3}', '{"traceEvents": []}'])
def test_what_is_no_trace_is_named(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"x\.json.*smml\.profiling\.trace"):
        profiling.read(path)
    with pytest.raises(UserError, match="missing"):
        profiling.read(tmp_path / "missing.json")


def test_no_steps_cannot_be_traced():
    with pytest.raises(UserError, match="steps=0"):
        profiling.trace(lambda: None, name="none", steps=0)


def test_calls_traced_in_turn_keep_their_own_steps():
    x = torch.ones(8)
    traces = profiling.side_by_side(
        {"sine": x.sin, "cosine": x.cos, "both": lambda: x.sin().cos()}, name="turns", steps=2
    )
    calls = {n: {o.name: o.calls for o in profiling.by_operator(t)} for n, t in traces.items()}
    assert calls == {
        "sine": {"aten::sin": 1},
        "cosine": {"aten::cos": 1},
        "both": {"aten::sin": 1, "aten::cos": 1},
    }
    assert all(len(t.steps) == 2 for t in traces.values())


def test_the_profiler_costs_something_for_each_operator():
    assert 0 <= profiling.event_cost() < 1e-3


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> profiling.Trace:
    with pytest.MonkeyPatch.context() as patch, thread_count(1):
        patch.setenv("SMML_BUILD", str(tmp_path_factory.mktemp("build")))
        return profiling.trace(bottlenecks.healthy().step, name="healthy")


def test_the_healthy_step_has_its_phases_and_the_counted_products(healthy):
    assert healthy.path.is_file()
    assert list(dict.fromkeys(p.name for p in healthy.phases)) == list(bottlenecks.PHASES)
    calls = {o.name: o.calls for o in profiling.by_operator(healthy)}
    assert calls["aten::mm"] == profiled_steps.matrix_products() == 51
    assert calls["aten::_fused_adamw_"] == 2, "matrices and vectors, one call each"


def test_the_healthy_step_does_what_a_training_step_does():
    model = Llama(CONFIGS["tiny"])
    optimizer = adamw(model, bottlenecks._settings())
    loop, batch = bottlenecks.healthy(), bottlenecks._tokens()
    with thread_count(1):
        for _ in range(2):
            assert torch.equal(loop.step(), train_step(model, optimizer, batch)[0])


@pytest.mark.gpu
def test_a_trace_on_a_gpu_has_kernels_in_every_phase_that_computes():
    trace = profiling.trace(bottlenecks.healthy("cuda").step, name="gpu", device="cuda")
    assert {"forward", "backward", "clip", "optimizer"} <= {s.phase for s in trace.of("kernel")}
    found = profiling.launches(trace, 1e-6)
    assert found.calls >= profiled_steps.matrix_products()
    assert found.kernel_s > 0
    guarded = profiling.trace(
        bottlenecks.planted("row guard", "cuda").step, name="guard", device="cuda"
    )
    assert profiling.diagnose(guarded, trace).syncs >= 1000


@pytest.mark.parametrize("fault", bottlenecks.FAULTS)
def test_a_fault_changes_the_time_and_not_the_loss(fault):
    right, wrong = bottlenecks.healthy(), bottlenecks.planted(fault)
    with thread_count(1):
        losses = [(wrong.step().item(), right.step().item()) for _ in range(2)]
    for slow, usual in losses:
        assert slow == pytest.approx(usual, rel=1e-5)


# The phase whose time grows, and an operator of which it makes more calls (None: it computes or waits elsewhere).
FOUND = {
    "slow loader": ("data", profiling.PYTHON),
    "row guard": ("clip", "aten::linalg_vector_norm"),
    "row loop": ("forward", "aten::silu"),
    "float64": ("backward", "aten::mm"),
    "mask": ("forward", profiling.PYTHON),
    "new optimizer": ("optimizer", "aten::set_"),
}


@pytest.mark.parametrize("fault", FOUND)
def test_a_planted_fault_is_found(fault, healthy):
    with thread_count(1):
        trace = profiling.trace(bottlenecks.planted(fault).step, name="slow", steps=2)
    found = profiling.diagnose(trace, healthy)
    phase, operator = FOUND[fault]
    calls = {o.name: o.calls for o in profiling.by_operator(trace, phase)}
    usual = {o.name: o.calls for o in profiling.by_operator(healthy, phase)}
    assert ("double" in found.new_dtypes) == (fault == "float64")
    assert (found.syncs >= 1000) == (fault == "row guard")
    if operator not in (profiling.PYTHON, "aten::mm"):
        assert calls[operator] >= usual.get(operator, 0) + 70
    if fault in ("slow loader", "mask", "new optimizer"):  # several times the healthy phase
        assert found.phase == phase
        assert found.operator == profiling.PYTHON
    if fault == "row guard":
        assert found.phase == phase
    if fault == "row loop":
        assert found.phase in ("forward", "backward")
    assert found.share == pytest.approx(found.seconds / trace.fastest().step_s)


def test_the_cost_of_an_event_is_taken_off(healthy, on_cpu):
    same = profiling.diagnose(on_cpu, on_cpu, event_s=1e-6)
    assert same.seconds == 0
    assert same.share == 0
    slow = profiling.diagnose(healthy, on_cpu)
    less = profiling.diagnose(healthy, on_cpu, event_s=1e-6)
    assert less.seconds < slow.seconds


def test_seeds_draw_every_fault_once():
    count = len(bottlenecks.FAULTS)
    for turn in range(3):
        drawn = {bottlenecks.fault_of(turn * count + i) for i in range(count)}
        assert drawn == set(bottlenecks.FAULTS)
    with pytest.raises(UserError, match="no fault is called 'x'"):
        bottlenecks.planted("x")


def test_the_exercise_accepts_the_faults_that_the_seeds_draw():
    assert checking.find("profiling.culprit").judge(bottlenecks.fault_of)


def test_a_timeline_draws_what_it_is_given_and_refuses_nothing(on_cpu):
    from smml.plot_timeline import timeline

    figure = timeline(profiling.lanes(on_cpu), ("phases",), "a step")
    (axis,) = figure.axes
    assert [t.get_text() for t in axis.get_yticklabels()] == ["phases", "operators"]
    assert "forward" in [t.get_text() for t in axis.texts]
    assert axis.get_xlim()[1] == pytest.approx(0.096 * 1.01)
    with pytest.raises(UserError, match="nothing to draw"):
        timeline({"phases": []}, ("phases",), "empty")
