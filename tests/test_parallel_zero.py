"""ZeRO by hand: the unsharded model's step at every stage, held, sent and peaking as counted; FSDP2 beside it."""

import pytest

from smml.bench import strategies as bench, zero, zero_peak
from smml.errors import UserError
from smml.parallel.launch import WorkerError
from smml.parallel.strategies import kind
from smml.parallel.strategy_tasks import PROOF, config

TASKS = "parallel_tasks_zero"
OURS = ("zero-1", "zero-2", "zero-3")
# Neither a layer nor the root of it can be cut into 4: padding, and rows that torch's chunks do not share equally.
ODD = PROOF | {"dim": 30, "heads": 3, "kv_heads": 1, "head_dim": 2, "feed_forward_dim": 33}
ODD |= {"vocab_size": 61}
DEEP = {"dim": 96, "heads": 4, "kv_heads": 2, "head_dim": 24, "feed_forward_dim": 256, "layers": 6}


@pytest.mark.parametrize("name", [*OURS, "torch-fsdp2"])
def test_every_stage_is_the_unsharded_models_step(two, four, name):
    bench.prove(two, name)
    bench.prove(four, name)


@pytest.mark.parametrize("name", [*OURS, "torch-fsdp2"])
def test_also_of_sizes_that_ranks_do_not_divide_and_tied(four, name):
    bench.prove(four, name, model=ODD, batch=4, tokens=8)
    bench.prove(four, name, model=ODD | {"tie_embeddings": True}, batch=4, tokens=8)


@pytest.mark.parametrize("name", OURS)
def test_the_whole_model_as_one_unit(two, name):
    bench.prove(two, name, {"per_layer": False}, batch=4, tokens=8)


@pytest.mark.parametrize(
    ("how", "name", "said"),
    [
        ("unreduced", "zero-2", "the gradient of layers.0"),
        ("stale", "zero-1", "a parameter after its updates"),
        ("kept", "zero-3", "it holds parameters"),
        ("again", "zero-3", "it sent "),
    ],
)
def test_the_proof_finds_what_is_left_out(two, how, name, said):
    problems = two.run(f"{TASKS}:broken", how=how, strategy=name)[0]
    assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize("stage", [1, 3])
def test_over_a_part_of_the_ranks(four, stage):
    for off in four.run(f"{TASKS}:in_groups", stage=stage):
        assert off["gradient"] < 1e-5
        assert off["parameter"] < 1e-5


@pytest.mark.parametrize("stage", [2, 3])
def test_of_models_that_are_tensor_parallel(four, stage):
    assert max(four.run(f"{TASKS}:of_tensor_parallel", stage=stage)) < 1e-5


def test_layers_that_compute_again_in_backward(four):
    for off in four.run(f"{TASKS}:in_groups", stage=3, activation_checkpointing=True):
        assert off["gradient"] < 1e-5


def test_one_parameter_in_two_places_and_forward_without_backward(two):
    assert all(two.run(f"{TASKS}:tied_elsewhere"))
    for found in two.run(f"{TASKS}:without_gradients"):
        assert found["off"] < 1e-6
        assert set(found["gathered"]) == {0}, "all is given back"


def test_what_cannot_be_done_is_said(two):
    with pytest.raises(WorkerError, match="2 of 2 gradients of a unit never came"):
        two.run(f"{TASKS}:left_out")
    with pytest.raises(WorkerError, match="backward came twice before zero_grad"):
        two.run(f"{TASKS}:twice")
    for what, said in (("dtype", "one dtype"), ("frozen", "all trained"), ("stage", "not 4")):
        with pytest.raises(UserError, match=said):
            two.run(f"{TASKS}:unlike", kind=what)
    with pytest.raises(UserError, match="2 ranks cannot share batch = 3 equally"):
        bench.findings(two, "zero-3", batch=3, tokens=8)


def test_the_peak_falls_with_every_stage_as_predicted(four):
    shape, measured = config(DEEP), {}
    for name in ("data", *OURS):
        found = bench.peak(four, name, DEEP, batch=4, tokens=16)
        measured[name] = max(rank["most"] for rank in found)
        predicted = zero_peak.predict_peak(name, shape, 4, 4, 16)
        assert predicted == pytest.approx(measured[name], rel=0.1), name
    assert measured["data"] > measured["zero-1"] > measured["zero-2"] > measured["zero-3"]
    torchs = max(r["most"] for r in bench.peak(four, "torch-fsdp2", DEEP, batch=4, tokens=16))
    assert measured["zero-3"] <= 1.01 * torchs


def test_the_peak_of_one_unit_is_predicted_too(four):
    for name in OURS:
        found = bench.peak(four, name, DEEP, 4, 16, {"per_layer": False})
        predicted = zero_peak.predict_peak(name, config(DEEP), 4, 4, 16, per_layer=False)
        assert predicted == pytest.approx(max(r["most"] for r in found), rel=0.1), name


def test_records_say_tokens_a_second_predicted_from_the_pieces(four, setting, monkeypatch):
    small = {"dim": 48, "heads": 4, "kv_heads": 2, "head_dim": 12, "feed_forward_dim": 48}
    monkeypatch.setattr(zero, "MODEL", small | {"layers": 2})
    monkeypatch.setattr(zero, "TOKENS", 8)
    predicted = zero.predict(four, zero.pieces(four), zero.fit(four))
    timings = zero.seconds(four, samples=5)
    records = {r.name: r for r in zero.records(setting, four, timings, predicted)}
    ours = records["zero/ranks-4/zero-3"]
    assert ours.value == pytest.approx(4 * 8 / timings["zero-3"].p50)
    assert ours.predicted == pytest.approx(4 * 8 / predicted["zero-3"])
    assert records["zero/ranks-4/zero-3-to-torch-fsdp2"].unit == "×"


def test_messages_and_bytes_of_a_step():
    assert [len(m) for m in zero.messages("zero-3", 4).values()] == [6 + 7, 7]
    assert [len(m) for m in zero.messages("zero-3", 4, per_layer=False).values()] == [1, 1]
    assert zero.sent("zero-2", 4) == zero.sent("data", 4) == 2 * 3 / 4 * 4 * zero.parameters()
    for name in (*OURS, "torch-fsdp2"):
        sends = kind(name).sends(zero.shape(), 0, 4, 4, 8)
        assert {c: sum(m) for c, m in zero.messages(name, 4).items()} == sends


def test_a_model_that_no_rank_could_hold_trains(four):
    cap = sum(kind("alone").holds(config(DEEP), 0, 1).values()) // 2
    assert zero_peak.predict_peak("zero-3", config(DEEP), 4, 4, 16) < cap
    with pytest.raises(UserError, match="out of memory"):
        bench.peak(four, "alone", DEEP, batch=4, tokens=16, limit=cap)
    assert all(r["most"] <= cap for r in bench.peak(four, "zero-3", DEEP, 4, 16, limit=cap))


def test_bytes_are_those_of_the_paper():
    shape = config(PROOF)
    parameters = sum(kind("data").holds(shape, 0, 4).values()) // 16
    held = {name: sum(kind(name).holds(shape, 0, 4).values()) / parameters for name in OURS}
    assert held == {"zero-1": 4 + 4 + 8 / 4, "zero-2": 4 + 12 / 4, "zero-3": 16 / 4}
    sent = {name: kind(name).sends(shape, 0, 4, 4, 8) for name in OURS}
    reduced = {"all-gather": 4 * parameters, "reduce-scatter": 4 * parameters}
    assert sent["zero-1"] == sent["zero-2"] == reduced
    root = 4 * (2 * shape.vocab_size + 1) * shape.dim
    assert sum(sent["zero-3"].values()) == 3 * 4 * parameters - root
    assert kind("torch-fsdp2").sends(shape, 0, 4, 4, 8) == sent["zero-3"]


def test_padding_is_counted():
    """A layer of ODD: 2 norms, 10 rows of 30 for queries, keys and values, 6 of 30 back, three matrices of 30 · 33."""
    layer, root = 2 * 30 + 10 * 30 + 6 * 30 + 3 * 30 * 33, 2 * 61 * 30 + 30
    assert (layer % 4, root % 4) == (2, 2)
    held = kind("zero-3").holds(config(ODD), 0, 4)
    assert held["parameters"] == 4 * (4 * (layer + 2) + root + 2) // 4
