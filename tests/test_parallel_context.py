"""Context parallel: whichever way keys and values travel, it is the unsharded attention, for as many bytes as counted."""

import pytest
import torch
from hypothesis import given, strategies as st

from smml.bench import context_parallel as bench
from smml.errors import UserError
from smml.llama import counts
from smml.parallel import block_attention, strategy_tasks
from smml.parallel.context_parallel_strategy import ContextGather, ContextParallelStrategy, Ulysses
from smml.parallel.launch import Workers
from smml.parallel.ring_attention import ring_attention, ring_bytes
from smml.parallel.sequence_order import ORDERS, pairs, pieces, seen

TASKS = "parallel_tasks_context"
ALL = [0, 1, 2, 3]
SHAPE = {"batch": 2, "heads": 8, "kv_heads": 4, "head_dim": 12, "tokens": 24}
CASES = [
    ("context", {}, {}),
    ("context", {"order": "contiguous"}, {"tie_embeddings": True}),
    ("context-gather", {}, {"tie_embeddings": True}),
    ("context-gather", {"order": "contiguous"}, {}),
    ("ulysses", {}, {}),
]


# Pure


@given(order=st.sampled_from(ORDERS), ranks=st.integers(1, 6), size=st.integers(1, 4))
def test_every_token_is_held_once_and_every_causal_pair_computed_once(order, ranks, size):
    tokens = 2 * ranks * size
    held = [
        [t for piece in pieces(order, tokens, rank, ranks) for t in range(tokens)[piece]]
        for rank in range(ranks)
    ]
    assert sorted(t for mine in held for t in mine) == list(range(tokens))
    for rank in range(ranks):
        computed = set()
        for source in range(ranks):
            if part := seen(order, rank, source, tokens // ranks):
                for i, q in enumerate(held[rank][part.rows]):
                    for j, k in enumerate(held[source][part.columns]):
                        if not part.causal or j <= i:
                            computed.add((q, k))
        assert computed == {(q, k) for q in held[rank] for k in range(q + 1)}
        assert pairs(order, tokens, rank, ranks) == len(computed)


def test_zigzag_gives_all_ranks_the_same_work_and_contiguous_the_last_one_most():
    assert [pairs("contiguous", 8, rank, 2) for rank in range(2)] == [10, 26]
    assert [pairs("zigzag", 8, rank, 2) for rank in range(2)] == [18, 18]
    assert bench.largest_share("zigzag", 2**16, 4) == 1 / 4
    # Of a long sequence, p ranks in a row: (2p − 1)/p² for the last.
    assert bench.largest_share("contiguous", 2**16, 4) == pytest.approx(7 / 16, rel=1e-4)


@pytest.mark.parametrize(
    ("order", "tokens", "ranks", "chunks"),
    [("zigzag", 20, 4, 8), ("contiguous", 10, 4, 4), ("zigzag", 0, 2, 4)],
)
def test_a_sequence_that_cannot_be_cut_is_refused(order, tokens, ranks, chunks):
    with pytest.raises(UserError, match=f"{chunks} equal chunks, and tokens = {tokens} is no"):
        pieces(order, tokens, 0, ranks)
    with pytest.raises(UserError, match="'striped' is no order"):
        pieces("striped", 24, 0, 2)


def test_bytes_of_a_ring_by_hand():
    # 3 blocks of keys and values: 2 × batch 5 × 6 of 24 tokens × width 8 × 4 bytes; backward both, and their gradients.
    assert ring_bytes(5, 24, 8, 4) == (3 * 1920, 6 * 1920)
    assert ring_bytes(5, 24, 8, 1) == (0, 0)
    config = strategy_tasks.config(strategy_tasks.PROOF)
    gradients = 4 * counts.parameters(config).total
    given = (config, 0, 4, 2, 24)
    # 4 layers, kv_dim 48, query_dim 96
    ring = 4 * 3 * 3 * (2 * 2 * 6 * 48 * 4)
    assert ContextParallelStrategy.sends(*given) == {"all-reduce": gradients, "send": ring}
    whole = 4 * 2 * 2 * 24 * 48 * 4
    assert ContextGather.sends(*given) == {
        "all-reduce": gradients,
        "all-gather": whole,
        "reduce-scatter": whole,
    }
    exchanged = 4 * 2 * (2 * 6 * (96 + 48 + 48 + 96)) * 4
    assert Ulysses.sends(*given) == {"all-reduce": gradients, "all-to-all": exchanged}
    assert "send" not in ContextParallelStrategy.sends(config, 0, 1, 2, 24)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_block_and_its_gradients_are_the_definition(causal, dtype):
    torch.manual_seed(0)
    q, grad = torch.randn(2, 2, 6, 7, 12, dtype=dtype)
    k, v = torch.randn(2, 2, 3, 7 if causal else 5, 12, dtype=dtype)
    found = block_attention.attend(q, k, v, causal)
    defined = block_attention.plain(q, k, v, causal)
    torch.testing.assert_close(found, defined, rtol=1e-5, atol=5e-6)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    wanted = torch.autograd.grad(block_attention.plain(*leaves, causal)[0], leaves, grad)
    for backward in (block_attention.attend_backward, block_attention.plain_backward):
        gradients = backward(grad, q, k, v, *found, causal)
        torch.testing.assert_close(gradients, wanted, rtol=1e-5, atol=5e-6)


def test_parts_merged_are_the_whole_also_where_one_outweighs_the_other():
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 9, 8), torch.randn(1, 2, 9, 8)
    k[:, :, 4:] *= 30
    whole = block_attention.plain(q, k, v, False)
    out, lse = block_attention.plain(q, k[:, :, :4], v[:, :, :4], False)
    block_attention.merge_(out, lse, *block_attention.plain(q, k[:, :, 4:], v[:, :, 4:], False))
    torch.testing.assert_close((out, lse), whole, rtol=1e-5, atol=1e-5)


def test_what_cuda_would_run_takes_what_it_is_given():
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        q, grad = (torch.empty(2, 4, 6, 16, device="cuda", dtype=torch.bfloat16) for _ in "qg")
        k, v = (torch.empty(2, 2, 6, 16, device="cuda", dtype=torch.bfloat16) for _ in "kv")
        out, lse = block_attention.attend(q, k, v, False)
        assert (out.shape, lse.shape, lse.dtype) == (q.shape, q.shape[:3], torch.float32)
        found = block_attention.attend_backward(grad, q, k, v, out, lse, False)
        assert [x.shape for x in found] == [q.shape, k.shape, v.shape]


def test_shapes_that_do_not_fit_are_refused():
    q, k = torch.empty(1, 4, 6, 8), torch.empty(1, 3, 6, 8)
    with pytest.raises(UserError, match=r"q \[1, 4, 6, 8\], k \[1, 3, 6, 8\]"):
        ring_attention(q, k, k)
    with pytest.raises(UserError, match="and t of 2"):
        ring_attention(q[:, :, :5], q[:, :, :5], q[:, :, :5])


# On ranks


@pytest.mark.parametrize(("way", "order"), [(w, o) for w in ("ring", "gather") for o in ORDERS])
@pytest.mark.parametrize("members", [ALL, [1, 2, 3]])
def test_attention_and_its_gradients_are_the_unsharded_ones(four, way, order, members):
    found = four.run(f"{TASKS}:attention", way=way, order=order, shape=SHAPE, members=members)
    assert [f is not None for f in found] == [rank in members for rank in ALL]
    for of_rank in filter(None, found):
        assert max(of_rank.values()) < 1e-5


@pytest.mark.parametrize(
    ("way", "order", "changes", "within"),
    [
        ("ring", "contiguous", {"tokens": 4}, 1e-5),  # a token a rank
        ("ring", "zigzag", {"tokens": 8, "kv_heads": 1}, 1e-5),
        ("ring", "zigzag", {"tokens": 8 * 37, "kv_heads": 8, "batch": 1}, 1e-5),
        ("ring", "zigzag", {"tokens": 8 * 5, "dtype": "bfloat16"}, 0.1),
        ("gather", "zigzag", {"tokens": 8 * 5, "dtype": "bfloat16"}, 0.1),
        ("ulysses", "contiguous", {}, 1e-5),
        ("ulysses", "contiguous", {"tokens": 4 * 7}, 1e-5),
    ],
)
def test_attention_of_odd_shapes(four, way, order, changes, within):
    dtype = changes.pop("dtype", "float32")
    given = {"way": way, "order": order, "shape": SHAPE | changes, "dtype": dtype}
    for of_rank in four.run(f"{TASKS}:attention", members=ALL, **given):
        assert max(of_rank.values()) < within


@pytest.mark.parametrize(("ranks", "cases"), [("four", CASES), ("two", CASES[1:3])])
def test_steps_are_the_unsharded_models(request, ranks, cases):
    for found in request.getfixturevalue(ranks).run(f"{TASKS}:proofs", cases=cases):
        assert [proof["problems"] for proof in found] == [[]] * len(cases)


@pytest.mark.parametrize(
    ("order", "tokens", "members"), [("zigzag", 18, [0, 2, 3]), ("contiguous", 4, ALL)]
)
def test_models_over_some_ranks_and_of_one_token_each(four, order, tokens, members):
    found = four.run(f"{TASKS}:model", order=order, tokens=tokens, members=members)
    for of_rank in filter(None, found):
        assert of_rank["loss"] < 1e-6
        assert of_rank["gradient"] < 1e-5


def test_sequences_and_batch_are_cut_at_once_by_data_parallel_over_all_ranks(four):
    given = {"members": ALL, "replicas": [[0, 1], [2, 3]], "changes": {"tie_embeddings": True}}
    for of_rank in four.run(f"{TASKS}:model", order="zigzag", tokens=12, **given):
        assert of_rank["loss"] < 1e-6
        assert of_rank["gradient"] < 1e-5


@pytest.mark.parametrize("leave_out", [0, 3, 9])
def test_targets_that_do_not_count_weigh_nothing(four, leave_out):
    # Nine of sixteen leave the first two of four ranks without a target.
    assert max(four.run(f"{TASKS}:ignored", leave_out=leave_out)) < 1e-6


def test_logits_are_those_of_the_ranks_tokens(four):
    assert max(four.run(f"{TASKS}:logits")) < 1e-5


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("gradients of passing blocks are lost", "the gradient of"),
        ("blocks go all the way round", "it sent send"),
        ("parts are averaged, not weighed", "the loss is"),
    ],
)
def test_the_proof_finds_a_ring_that_is_broken(two, how, said):
    for problems in two.run(f"{TASKS}:broken", how=how):
        assert said in "; ".join(problems)


@pytest.mark.parametrize(
    ("strategy", "sizes", "said"),
    [
        ("context", {"tokens": 20}, "8 equal chunks, and tokens = 20 is no multiple of 8"),
        ("context", {"options": {"order": "striped"}}, "'striped' is no order"),
        ("context", {"tokens": 1024}, "the sequence is 1024 tokens long"),
        (
            "ulysses",
            {"model": strategy_tasks.PROOF | {"kv_heads": 6, "heads": 6}},
            "share heads = 6, kv heads = 6",
        ),
    ],
)
def test_sizes_that_ranks_cannot_share_are_named(four, strategy, sizes, said):
    with pytest.raises(UserError, match=said):
        four.run("smml.parallel.strategy_tasks:peak", **(PEAK | {"strategy": strategy} | sizes))


PEAK = {"model": strategy_tasks.PROOF, "batch": 1, "tokens": 24}


def test_a_rank_needs_what_was_predicted_and_a_cap_proves_it(four):
    config, tokens = bench.shape(), 512
    found = {name: bench.peak(four, name, tokens) for name in ("alone", *bench.KEEPS)}
    for name in bench.KEEPS:
        assert found[name] == pytest.approx(bench.peak_bytes(config, 1, tokens, 4, name), rel=0.02)
    assert found["context"] < found["context-gather"] < found["alone"]
    cap = {"limit": (found["context"] + found["context-gather"]) // 2}
    assert bench.peak(four, "context", tokens, **cap) == found["context"]
    for name in ("context-gather", "alone"):
        with pytest.raises(UserError, match="out of memory"):
            bench.peak(four, name, tokens, **cap)


def test_the_bench_proves_on_two_ranks_and_says_tokens_a_second_and_ratios(
    two, setting, monkeypatch
):
    monkeypatch.setattr(bench, "TOKENS", 64)
    timings = bench.seconds(two, 64)
    assert set(timings) == set(bench.STRATEGIES)
    whole = bench.attention(two, ranks=1, tokens=64, in_turns=False)
    assert len(whole[0].samples_s) == len(bench.attention(two, tokens=64)[1].samples_s)
    predicted = {"context": bench.predicted_s(3.0, 1.0, 2, tokens=64)}
    assert predicted["context"] == pytest.approx(1.5)
    found = bench.records(setting, two, timings, predicted, 64)
    by_name = {record.name: record for record in found}
    ours = by_name["context/ranks-2/context"]
    assert ours.value == pytest.approx(64 / timings["context"].p50)
    assert ours.predicted == pytest.approx(64 / 1.5)
    assert "context/ranks-2/context-to-context#contiguous" in by_name


def test_the_bench_leaves_all_to_all_out_where_ranks_do_not_divide_the_heads(monkeypatch):
    asked = {}
    monkeypatch.setattr(bench.strategies, "seconds", lambda w, ways, *_: asked.update(ways))
    bench.seconds(Workers(8))
    assert set(asked) == set(bench.STRATEGIES) - {"ulysses"}
