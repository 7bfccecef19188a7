"""Pipelines by hand: schedules that hold together, their bubble, one process's gradients, and what a rank sends and holds."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from smml.bench import pipeline as bench, strategies
from smml.errors import UserError
from smml.llama.config import CONFIGS, LlamaConfig
from smml.parallel.launch import Workers
from smml.parallel.pipeline import draw, memory, messages
from smml.parallel.pipeline.balance import splits
from smml.parallel.pipeline.rehearse import rehearse
from smml.parallel.pipeline.schedules import (
    Action,
    Schedule,
    bubble,
    in_flight,
    schedule,
)
from smml.parallel.pipeline.simulate import by_stage, even, simulate
from smml.parallel.pipeline.stage import split
from smml.parallel.strategies import kind
from smml.parallel.strategy_tasks import PROOF

NAMES = ("gpipe", "1f1b", "interleaved")
OURS = tuple(f"pipeline-{name}" for name in NAMES)
TORCHS = tuple(f"torch-{name}" for name in OURS)
TASKS = "parallel_tasks_pipeline"
DEEP = PROOF | {"layers": 8}


@st.composite
def plans(draw) -> Schedule:
    name, ranks = draw(st.sampled_from(NAMES)), draw(st.integers(1, 6))
    if name == "interleaved":
        return schedule(name, ranks, ranks * draw(st.integers(1, 4)), draw(st.integers(2, 4)))
    return schedule(name, ranks, draw(st.integers(1, 12)))


@given(plans())
def test_every_schedule_takes_the_bubble_of_the_formula(plan):
    step = simulate(plan, even(plan))
    assert step.step_s == pytest.approx(3 * (plan.micro + (plan.ranks - 1) / plan.interleave))
    assert step.bubble == pytest.approx(bubble(plan.ranks, plan.micro, plan.interleave))


@settings(max_examples=40)
@given(plans())
def test_programs_end_even_if_every_send_and_receive_waited_for_the_other(plan):
    left = [list(messages.program(plan, rank)) for rank in range(plan.ranks)]
    there: set[Action] = set()
    moved = True
    while moved:
        moved = False
        for steps in left:
            while steps and steps[0].do == messages.COMPUTE:
                action = steps.pop(0).action
                needs = plan.needs(action)
                assert needs is None or needs in there, f"{action} before its input is received"
                if plan.sent_to(action) is None:
                    there.add(action)
                moved = True
        for steps in left:
            if steps and steps[0].do == messages.SEND:
                message = steps[0].action
                theirs = left[plan.sent_to(message)]
                if theirs and theirs[0] == messages.Step(messages.RECEIVE, message):
                    steps.pop(0), theirs.pop(0)
                    there.add(message)
                    moved = True
    assert not any(left), "they wait for each other"


@settings(max_examples=40)
@given(plans(), st.data())
def test_a_step_is_never_shorter_than_its_longest_chain_or_its_busiest_rank(plan, data):
    times = st.lists(st.floats(0.1, 5.0), min_size=plan.stages, max_size=plan.stages)
    forward, backward = data.draw(times), data.draw(times)
    seconds = by_stage(forward, backward)
    step = simulate(plan, seconds)
    one = sum(forward) + sum(backward)
    busiest = max(
        plan.micro * sum(forward[s] + backward[s] for s in plan.stages_of(rank))
        for rank in range(plan.ranks)
    )
    assert step.step_s >= max(one, busiest) * (1 - 1e-9)
    assert rehearse(plan, seconds, message_s=0.1).step_s >= step.step_s


def test_hand_computed_steps():
    plan = schedule("1f1b", 2, 2)
    first, second = plan.actions
    assert [a[0] + str(a.micro) for a in first] == ["F0", "F1", "B0", "B1"]
    assert [a[0] + str(a.micro) for a in second] == ["F0", "B0", "F1", "B1"]
    # F0 to 1, F0 behind it to 4, B0 to 10 and to 12 …
    seconds = by_stage([1.0, 3.0], [2.0, 6.0])
    step = simulate(plan, seconds)
    assert [s.end_s for s in step.spans[0]] == [1.0, 2.0, 12.0, 21.0]
    assert [s.end_s for s in step.spans[1]] == [4.0, 10.0, 13.0, 19.0]
    assert step.step_s == 21.0
    assert step.bubble == pytest.approx(1 - (6 + 18) / 42)


def test_messages_take_time_from_when_both_ends_have_begun_them():
    plan, seconds = schedule("1f1b", 2, 2), by_stage([1.0, 3.0], [2.0, 6.0])
    # Rank 0: F0 to 1, F1 to 2. Rank 1: F0 from 1.5, B0 to 10.5, the gradient is there at 11.
    step = rehearse(plan, seconds, message_s=0.5)
    assert [s.end_s for s in step.spans[0]] == [1.0, 2.0, 13.0, 22.0]
    assert [s.end_s for s in step.spans[1]] == [4.5, 10.5, 13.5, 19.5]
    # Rank 0: sends from 1 to 1.25 and from 2.25 to 2.5, then asks for the gradient. Rank 1 asks first, twice at once …
    step = rehearse(plan, seconds, begin_s=0.25)
    assert [s.end_s for s in step.spans[0]][:2] == [1.0, 2.25]
    assert [s.end_s for s in step.spans[1]] == [4.25, 10.5, 13.75, 19.75]


@given(plans())
def test_free_messages_change_nothing(plan):
    assert rehearse(plan, even(plan)) == simulate(plan, even(plan))


def test_1f1b_holds_as_many_as_lie_ahead_and_gpipe_all():
    assert in_flight(schedule("gpipe", 4, 8)) == [8, 8, 8, 8]
    assert in_flight(schedule("1f1b", 4, 8)) == [4, 3, 2, 1]
    assert in_flight(schedule("1f1b", 4, 2)) == [2, 2, 2, 1]
    # Half a rank's layers each: 11 of them are 5.5 whole ones.
    assert in_flight(schedule("interleaved", 4, 8, 2)) == [11, 9, 7, 5]


def test_a_schedule_that_waits_for_itself_is_named():
    plan = schedule("1f1b", 2, 2)
    first, second = plan.actions
    swapped = (first[2], first[0], first[1], first[3])
    wrong = Schedule("mine", 2, 2, 1, (swapped, second))
    with pytest.raises(UserError, match="deadlock, rank 0 before B0 of stage 0, rank 1 before F0"):
        simulate(wrong, even(plan))
    short = Schedule("mine", 2, 2, 1, (first[:-1], second))
    with pytest.raises(UserError, match="rank 0 must do B1 of stage 0 once"):
        simulate(short, even(plan))
    double = Schedule("mine", 2, 2, 1, (first, (*second, second[0])))
    with pytest.raises(UserError, match="rank 1 must do F0 of stage 1 once"):
        simulate(double, even(plan))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("2f2b", 2, 2), "'2f2b' is no schedule: name one of gpipe, 1f1b, interleaved"),
        (("gpipe", 2, 0), "0 micro-batches"),
        (("1f1b", 2, 4, 2), "gpipe and 1f1b take 1"),
        (("interleaved", 2, 4, 1), "interleaved takes 2 or more"),
        (("interleaved", 4, 6, 2), "6 micro-batches are no multiple of 4 ranks: choose 4 or 8"),
    ],
)
def test_schedules_that_cannot_be_are_refused(given, told):
    with pytest.raises(UserError, match=told):
        schedule(*given)


def test_layers_are_split_as_equally_as_they_can_be_or_as_told():
    assert [len(part) for part in split(4, 3)] == [2, 1, 1]
    assert [len(part) for part in split(8, 2, [5, 3])] == [5, 3]
    assert split(2, 4, [0, 1, 1, 0])[0] == range(0, 0), "the embedding alone"
    with pytest.raises(UserError, match="4 layers cannot fill 8 stages"):
        split(4, 8)
    for parts in ([1, 0, 3], [1, 1], [2, 2, 2], [5, -1, 0]):
        with pytest.raises(UserError, match="give one number a stage, 4 together"):
            split(4, 3, parts)


def test_layers_move_away_from_a_last_stage_that_does_more():
    found = splits(8, 2, 8, (1.0, 2.0), (2.0, 4.0))
    assert list(found) == [(4, 4), (5, 3), (6, 2), (7, 1)]
    assert min(found, key=lambda split: found[split].step_s) == (5, 3)
    assert found[5, 3].bubble == pytest.approx(bubble(2, 8))
    assert list(splits(12, 4, 4, (1.0, 2.0), (1.0, 2.0))) == [
        (3, 3, 3, 3),
        (4, 3, 3, 2),
        (4, 4, 3, 1),
    ]


def test_memory_by_hand():
    config, own = shape(), {"parameters": 100, "gradients": 10, "optimizer": 200}
    one, two = (memory.activation_bytes(config, range(n), False, 2, 5) for n in (1, 2))
    stream = 4 * 2 * 5 * 96
    assert two - one == one - stream, "layers, and what is sent on"
    last = memory.activation_bytes(config, range(1), True, 2, 5)
    assert last - (one - stream) > 4 * 2 * 5 * 192, "log-probabilities, and the last norm"
    for name, most in (("gpipe", 6 * two), ("1f1b", 2 * two + 10)):
        plan, parts = schedule(name, 2, 6), split(4, 2)
        assert memory.most_bytes(config, plan, parts, 0, own, 2, 5) == 300 + most


def test_a_drawing_has_a_row_a_rank_and_says_the_bubble():
    plan = schedule("interleaved", 3, 3, 2)
    figure = draw.draw({"one": simulate(plan, even(plan))}, unit="forwards")
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["rank 0", "rank 1", "rank 2"]
    assert axis.get_title("left") == "one: bubble 25.0%"
    hatched = [bar for bar in axis.collections if bar.get_hatch()]
    assert len(hatched) == len(axis.collections) / 2 == 18
    with pytest.raises(UserError, match="no timeline to draw"):
        draw.draw({})


def shape(**changes) -> LlamaConfig:
    from dataclasses import replace

    return replace(CONFIGS["tiny"], **(DEEP | changes))


def test_bytes_sent_and_held_by_hand():
    config, stream = shape(), 24 * 10 * 96 * 4  # batch · tokens · width · float32
    one, three = kind("pipeline-1f1b"), kind("pipeline-interleaved")
    assert one.sends(config, 0, 4, 24, 10) == {"send": stream}
    assert one.sends(config, 1, 4, 24, 10, micro=8) == {"send": 2 * stream}
    assert one.sends(config, 0, 1, 24, 10) == {}
    # Stages 0 and 4 of 8: forward twice, backward once.
    assert three.sends(config, 0, 4, 24, 10) == {"send": 3 * stream}
    assert three.sends(config, 2, 4, 24, 10) == {"send": 4 * stream}
    tied = shape(tie_embeddings=True)
    assert one.sends(tied, 3, 4, 24, 10) == {"send": stream + 4 * 192 * 96}
    # 24 heads and 12 + 12 of keys and values, of 4; the matrix behind; SwiGLU; two norms.
    layer = 96 * 48 * 4 + 96 * 96 + 3 * 96 * 96 + 2 * 96
    table = 192 * 96
    assert one.holds(config, 0, 4)["parameters"] == 4 * (2 * layer + table)
    assert one.holds(config, 1, 4)["optimizer"] == 8 * 2 * layer
    assert one.holds(config, 3, 4)["gradients"] == 4 * (2 * layer + table + 96)
    assert one.holds(config, 1, 2, layers=[6, 2])["parameters"] == 4 * (2 * layer + table + 96)
    assert one.holds(tied, 0, 1)["parameters"] == 4 * (8 * layer + table + 96)


@pytest.fixture(scope="module", autouse=True)
def path_of_tasks():
    """Ranks find parallel_tasks_pipeline.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def two():
    with Workers(2) as started:
        yield started


@pytest.mark.parametrize("name", OURS + TORCHS)
def test_two_ranks_are_one_process(two, name):
    strategies.prove(two, name, {"micro": 8}, model=PROOF | {"tie_embeddings": True})


def test_options_are_one_process(two):
    strategies.prove(two, "pipeline-1f1b", {"micro": 3, "layers": [3, 1]})
    strategies.prove(two, "pipeline-gpipe", {"micro": 1})
    strategies.prove(two, "pipeline-interleaved", {"micro": 6, "interleave": 4}, model=DEEP)
    ends = {"micro": 4, "layers": [0, 2, 2, 0]}  # the embedding alone, the output alone
    strategies.prove(two, "pipeline-interleaved", ends)
    strategies.prove(two, "torch-pipeline-1f1b", {"micro": 3, "layers": [1, 3]})


@pytest.mark.parametrize("how", ["the other end's gradient", "a micro-batch", "nothing, but twice"])
def test_the_proof_finds_what_is_forgotten(two, how):
    for problems in two.run(f"{TASKS}:broken", how=how):
        assert any("gradient of" in problem for problem in problems), problems


def test_stages_may_be_data_parallel(two):
    assert max(two.run(f"{TASKS}:wrapped", tied=False)) < 1e-5
    with pytest.raises(UserError, match="two stages of a rank share a parameter"):
        two.run(f"{TASKS}:wrapped", tied=True)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("pipeline-1f1b", {"micro": 5}, "a batch of 24 does not fall into 5 equal micro-batches"),
        ("torch-pipeline-gpipe", {"micro": 7}, "a batch of 24 does not fall into 7"),
        ("pipeline-interleaved", {"micro": 3}, "3 micro-batches are no multiple of 2 ranks"),
        ("pipeline-interleaved", {"interleave": 3}, "4 layers cannot fill 6 stages"),
        ("pipeline-gpipe", {"interleave": 2}, "gpipe with interleave = 2"),
        ("pipeline-1f1b", {"layers": [2, 1]}, "layers = \\[2, 1\\] for 2 stages and 4 layers"),
    ],
)
def test_what_cannot_be_cut_is_refused_on_every_rank(two, name, options, told):
    with pytest.raises(UserError, match=told):
        strategies.findings(two, name, options)


LARGE = {"dim": 128, "layers": 4, "vocab_size": 4096, "tie_embeddings": False}


def test_no_rank_ever_holds_the_model(two):
    held = strategies.peak(two, "alone", LARGE, 2, 8)[0]
    limit = held["most"] * 2 // 3
    for found in strategies.peak(two, "pipeline-1f1b", LARGE, 2, 8, limit=limit):
        assert found["most"] < limit
    with pytest.raises(UserError, match="out of memory"):
        strategies.peak(two, "alone", LARGE, 2, 8, limit=limit)


def test_the_most_that_a_rank_holds_is_predicted(two, monkeypatch):
    own = small(monkeypatch, two)
    found = {}
    for name in bench.NAMES:
        expected = bench.most_bytes(2, name, {"micro": 8}, own, "cpu")
        held = strategies.peak(two, name, own.model, 8 * own.sequences, own.tokens, {"micro": 8})
        found[name] = [of_rank["most"] for of_rank in held]
        assert found[name] == pytest.approx(expected, rel=0.15)
    assert found["pipeline-gpipe"][1] > 2 * found["pipeline-1f1b"][1]


def small(monkeypatch, workers) -> bench.Sizes:
    """The bench at sizes of a test."""
    model = {"dim": 64, "heads": 4, "kv_heads": 2, "feed_forward_dim": 128, "vocab_size": 256}
    monkeypatch.setattr(bench, "ON_CPU", bench.Sizes(model, 1, 32))
    return bench.sizes(workers)


def test_steps_are_predicted_measured_and_recorded(two, setting, monkeypatch):
    own, runs = small(monkeypatch, two), {"pipeline-interleaved#4": {"micro": 4}}
    predicted = bench.predict(two, runs, own)
    found = bench.measure(two, runs, own, samples=5)
    ((name, options),) = runs.items()
    for step in (*predicted[name], *found[name]):
        assert [len(spans) for spans in step.spans] == [16, 16], "two stages, forward and backward"
        assert 0 < step.bubble < 1
        for spans in step.spans:
            assert all(a.end_s <= b.start_s for a, b in pairwise(spans)), "one at a time"
    order = [span.action for span in found[name][0].spans[1]]
    assert order == list(bench.plan(name, 2, options, own).actions[1])
    bubble_, step_ = bench.records(setting, two, name, options, own, predicted[name], found[name])
    assert (bubble_.name, bubble_.unit) == ("pipeline/bubble/ranks-2/interleaved/micro-4", "%")
    assert bubble_.value == pytest.approx(100 * bench.typical(found[name]).bubble)
    assert bubble_.predicted == pytest.approx(100 * bench.typical(predicted[name]).bubble)
    assert step_.predicted is not None
    assert step_.unit == "s"
    figure = draw.bubbles([bubble_])
    assert figure.axes[0].get_xlabel() == "micro-batches"


@pytest.fixture(scope="module")
def four(two):
    two.close()  # two starts, never six ranks at once
    with Workers(4) as started:
        yield started


@pytest.mark.parametrize("name", OURS + TORCHS)
def test_four_ranks_are_one_process(four, name):
    strategies.prove(four, name, model=DEEP)


def test_four_ranks_with_tied_embeddings_and_uneven_stages(four):
    tied = DEEP | {"tie_embeddings": True}
    strategies.prove(four, "pipeline-interleaved", model=tied)
    strategies.prove(four, "pipeline-1f1b", {"layers": [1, 3, 3, 1], "micro": 6}, model=tied)


@pytest.mark.parametrize(("order", "interleave"), [("1f1b", 1), ("interleaved", 2)])
def test_pipelines_of_other_groups_stand_side_by_side(four, order, interleave):
    given = {"order": order, "micro": 4, "interleave": interleave}
    assert max(four.run(f"{TASKS}:replicas", **given)) < 1e-5
