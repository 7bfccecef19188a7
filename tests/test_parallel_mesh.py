"""Strategies combined on meshes of two and three axes: proved, and refused where they do not fit."""

import math

import pytest
from hypothesis import given, strategies as st

from smml.bench import strategies as bench
from smml.errors import UserError
from smml.llama.config import CONFIGS
from smml.parallel.launch import WorkerError, Workers
from smml.parallel.mesh import AXES, grid, place
from smml.parallel.mesh_counts import held_bytes, sent_bytes
from smml.parallel.strategy_tasks import PROOF, config

TIED = PROOF | {"tie_embeddings": True}


@pytest.mark.parametrize(
    "options",
    [
        {"data": 2, "tensor": 2},
        {"data": 2, "tensor": 2, "zero": 1},
        {"data": 2, "tensor": 2, "zero": 3},
        {"pipeline": 2, "data": 2, "micro": 3},
        {"pipeline": 2, "tensor": 2, "micro": 4},
        {"data": 2, "context": 2},
        {"pipeline": 4, "micro": 4},
    ],
    ids=lambda o: "-".join(f"{k}{v}" for k, v in o.items()),
)
def test_two_axes_are_one_process(four, options):
    for proof in bench.prove(four, "mesh", options):
        assert proof["sent"] == proof["expected"] != {}


@pytest.mark.parametrize("options", [{"pipeline": 2, "tensor": 2, "micro": 2}, {"data": 4}])
def test_also_with_tied_embeddings(four, options):
    bench.prove(four, "mesh", options, model=TIED)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"data": 2, "tensor": 4}, "data 2 × tensor 4 needs 8 ranks, and there are 4"),
        ({"data": 2}, "data 2 needs 2 ranks, and there are 4"),
        ({"data": 2, "rows": 2}, "mesh axis rows is none of pipeline, data, context, tensor"),
        ({"context": 2, "tensor": 2}, "context and tensor is not built"),
        ({"pipeline": 2, "data": 2, "zero": 1}, "ZeRO with pipeline is not built"),
        ({"data": -2, "tensor": -2}, "needs 4 ranks"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused_and_ends_nobody(four, options, told):
    with pytest.raises(UserError, match=told) as caught:
        bench.prove(four, "mesh", options)
    assert not isinstance(caught.value, WorkerError)


def test_sizes_that_do_not_divide_the_model_are_refused(four):
    narrow = PROOF | {"heads": 3, "kv_heads": 3, "head_dim": 32, "layers": 3}
    with pytest.raises(UserError, match="4 ranks cannot share kv heads = 3"):
        bench.prove(four, "mesh", {"tensor": 4}, model=narrow)
    with pytest.raises(UserError, match="3 layers cannot fill 4 stages"):
        bench.prove(four, "mesh", {"pipeline": 4}, model=narrow)
    with pytest.raises(UserError, match="2 ranks cannot share batch = 3"):
        bench.prove(four, "mesh", {"data": 2, "tensor": 2}, batch=3)


def test_three_axes_on_eight_ranks():
    with Workers(8, threads=1) as eight:
        options = {"pipeline": 2, "data": 2, "tensor": 2, "micro": 2}
        proofs = bench.prove(eight, "mesh", options)
    assert {frozenset(proof["sent"]) for proof in proofs} == {
        frozenset({"all-reduce", "send"}),
        frozenset({"all-reduce", "all-gather", "send"}),
    }, "the last stage alone gathers its losses"


@given(sizes=st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_every_rank_has_a_place_of_its_own_and_the_last_axis_has_neighbours(sizes):
    axes = dict(zip(AXES, sizes, strict=True))
    ranks = math.prod(sizes)
    assert grid(axes, ranks) == axes
    places = [tuple(place(axes, rank).values()) for rank in range(ranks)]
    assert len(set(places)) == ranks
    assert places == sorted(places)
    for axis, size in axes.items():
        assert {place(axes, rank)[axis] for rank in range(ranks)} == set(range(size))


def test_all_ranks_together_hold_the_model_as_often_as_data_says():
    shape = config(PROOF)
    sizes = grid({"pipeline": 2, "data": 3, "tensor": 2}, 12)
    held = [
        held_bytes(shape, sizes, place(sizes, rank), zero=0)["parameters"] for rank in range(12)
    ]
    from smml.llama import counts

    norms = counts.parameters(shape).norms  # whole on every rank of tensor
    assert sum(held) == 4 * 3 * (counts.parameters(shape).total + norms)


def test_tensor_and_data_send_what_each_of_them_would_for_its_part():
    shape = CONFIGS["tiny"]
    sizes = grid({"data": 2, "tensor": 2}, 4)
    sent = sent_bytes(shape, sizes, place(sizes, 0), batch=4, tokens=8, zero=0)
    stream = 4 * 2 * 8 * shape.dim  # two of the four sequences
    gradients = held_bytes(shape, sizes, place(sizes, 0), zero=0)["gradients"]
    assert sent["all-reduce"] == (4 * shape.layers + 2) * stream + gradients
    assert sent["all-gather"] == 2 * 2 * 4 * 2 * 8
