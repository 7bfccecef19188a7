"""Tensor parallel by hand: the unsharded model's step on any ranks that divide it, with exactly the counted bytes."""

from dataclasses import replace

import pytest
import torch

from smml.bench import strategies as bench, tensor_parallel as tensor_bench
from smml.cost.units.unit_economics import GlobalThroughput, ThroughputPerReplica
from smml.errors import UserError
from smml.llama import counts
from smml.llama.config import CONFIGS
from smml.llama.model import Llama
from smml.measure import Timing
from smml.parallel.launch import Workers
from smml.parallel.strategy_tasks import PROOF
from smml.parallel.tensor_cut import Cut, cut, rank_config
from smml.parallel.tensor_draw import draw
from smml.parallel.tensor_parallel_strategy import TensorParallelStrategy

HERE = "parallel_tasks_tensor"
GROUPED_TIED = PROOF | {"heads": 24, "kv_heads": 4, "tie_embeddings": True}
BIASED = {"attention_bias": True, "mlp_bias": True}
SEQUENCE = {"sequence": True}
AGAIN = {"sequence": True, "gather_again": True}
TINY = CONFIGS["tiny"]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_parts_are_the_narrower_models_and_together_the_whole(ranks):
    config = replace(TINY, **PROOF, **BIASED)
    narrow = dict(Llama(rank_config(config, ranks), device="meta").named_parameters())
    for name, parameter in Llama(config, seed=1).named_parameters():
        whole, how = parameter.detach(), cut(name, config)
        parts = [how.part(whole, rank, ranks) if how else whole for rank in range(ranks)]
        assert all(part.shape == narrow[name].shape for part in parts), name
        assert torch.equal(how.whole(parts) if how else parts[0], whole), name


def test_q_k_and_v_are_cut_each_by_itself():
    rows = torch.arange(8).unsqueeze(1)  # four of q, two of k, two of v
    how = Cut(0, (4, 2, 2))
    assert how.part(rows, 0, 2).flatten().tolist() == [0, 1, 4, 6]
    assert how.part(rows, 1, 2).flatten().tolist() == [2, 3, 5, 7]


def test_bytes_by_hand():
    # D 128, L 4, V 1024; 2 sequences of 8 tokens: a stream of 2·8·128·4 = 8,192 bytes.
    sends = TensorParallelStrategy.sends
    losses = 2 * (2 * 16 * 4)  # two ranks, two numbers for each of 16 tokens
    assert sends(TINY, 0, 2, 2, 8) == {"all-reduce": 18 * 8192, "all-gather": losses}
    assert sends(TINY, 0, 2, 2, 8, sequence=True) == {
        "all-gather": 18 * 8192 + losses,
        "reduce-scatter": 18 * 8192,
        "all-reduce": 9 * 128 * 4,
    }
    assert sends(TINY, 0, 2, 2, 8, **AGAIN)["all-gather"] == (18 + 9) * 8192 + losses
    # A rank of two: 512·128 of the embedding; a layer 128·(64 + 2·32) + 64·128 + 3·128·256; 9 norms of 128.
    parameters = 512 * 128 + 4 * (128 * 128 + 64 * 128 + 3 * 128 * 256) + 9 * 128
    held = TensorParallelStrategy.holds(TINY, 0, 2)
    assert held == {k: n * 4 * parameters for k, n in zip(held, (1, 1, 2), strict=True)}


def test_sizes_that_ranks_do_not_divide_are_named():
    with pytest.raises(UserError, match="4 ranks cannot share kv heads = 2 equally"):
        rank_config(TINY, 4)
    with pytest.raises(UserError, match="feed forward dim = 511, vocab size = 1023 equally"):
        rank_config(replace(TINY, feed_forward_dim=511, vocab_size=1023), 2)


@pytest.mark.parametrize("name", ["tensor", "torch-tensor"])
@pytest.mark.parametrize("options", [{}, SEQUENCE], ids=["plain", "sequence"])
def test_two_ranks_are_one_process(two, name, options):
    bench.prove(two, name, options)


@pytest.mark.parametrize(
    ("name", "options", "model"),
    [
        ("tensor", {}, PROOF),
        ("tensor", AGAIN, PROOF),
        ("tensor", SEQUENCE, GROUPED_TIED),
        ("torch-tensor", {}, GROUPED_TIED),
    ],
)
def test_four_ranks_are_one_process(four, name, options, model):
    bench.prove(four, name, options, model=model)


@pytest.mark.parametrize("options", [{}, SEQUENCE], ids=["plain", "sequence"])
@pytest.mark.parametrize("groups", [[[0, 2], [3, 1]], [[1, 2, 3]]], ids=["two pairs", "three"])
def test_groups_are_models_of_their_own_also_with_biases(four, groups, options):
    found = four.run(f"{HERE}:in_groups", groups=groups, changes=BIASED, **options)
    assert max(found) < 1e-5
    assert all(found[rank] > 0 for group in groups for rank in group)


@pytest.mark.parametrize("sequence", [False, True])
def test_data_parallel_may_stand_around_it(four, sequence):
    assert max(four.run(f"{HERE}:with_data_parallel", sequence=sequence)) < 1e-5


def test_logits_are_whole_on_every_rank_also_with_a_cache(two):
    for found in two.run(f"{HERE}:logits"):
        assert max(found.values()) < 1e-4


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("sizes", "kv heads = 3, vocab size = 189"),
        ("gather_again", "only sequence parallel gathers"),
        ("tokens", "cannot share tokens = 5"),
        ("logits", "computes a loss alone"),
    ],
)
def test_what_cannot_be_is_refused_on_every_rank(two, case, said):
    with pytest.raises(UserError, match=said):
        two.run(f"{HERE}:refuse", case=case)
    assert two.run("smml.parallel.examples:sum_of_ranks", times=1) == [1, 1], "nobody waits"


@pytest.mark.parametrize(
    ("mistake", "options", "said"),
    [
        ("sum of norms' gradients", SEQUENCE, "norm.weight is"),
        ("sum after the row product", {}, "the loss is"),
        ("part of q, k and v each", {}, "the loss is"),
        ("other ranks' logits", {}, "the loss is"),
    ],
)
def test_a_mistake_is_found(two, mistake, options, said):
    for problems in two.run(f"{HERE}:mistaken", mistake=mistake, options=options):
        assert any(said in problem for problem in problems)


def test_records_say_tokens_a_second_and_the_ratio_to_torchs(two, setting, monkeypatch):
    small = {"dim": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "feed_forward_dim": 64}
    for name, value in (("MODEL", small | {"layers": 1}), ("BATCH", 2), ("TOKENS", 8)):
        monkeypatch.setattr(tensor_bench, name, value)
    timings = tensor_bench.seconds(two, ("tensor", "torch-tensor"), samples=5)
    predicted = tensor_bench.predicted_s(Timing((2.0,) * 5), Timing((0.5,) * 5), 2)
    assert predicted == 2.0 / 2 + 6 * 0.5
    records = tensor_bench.records(setting, two, timings, dict.fromkeys(timings, predicted))
    ours, theirs, ratio = records
    assert ours.value == pytest.approx(2 * 8 / timings["tensor"].p50)
    assert ours.predicted == theirs.predicted == 2 * 8 / predicted
    assert ratio.name == "tensor-parallel/ranks-2/tensor-to-torch-tensor"
    shapes = tensor_bench.shapes(two, "torch-tensor")
    assert [by_name["attention.qkv.weight"] for by_name in shapes] == [[64, 64], [64, 64]]
    assert shapes == tensor_bench.shapes(two, "tensor")


def test_bytes_held_and_sent_by_a_rank():
    config, (batch, tokens) = tensor_bench.config(), (4, 128)
    whole = counts.activation_bytes(config, batch, tokens).saved
    assert tensor_bench.activation_bytes(config, 1, batch, tokens) == whole
    held = [
        tensor_bench.activation_bytes(config, 4, batch, tokens, **options)
        for options in ({}, SEQUENCE, AGAIN)
    ]
    norms, token = 9, 512 * 4 * 256  # a stream
    assert held[0] - held[1] == norms * (2 * token + 4 * 512) * 3 // 4  # what norms keep
    assert held[1] - held[2] == norms * token * 3 // 4  # what enters products
    assert tensor_bench.ring_bytes({"all-reduce": 80, "all-gather": 40}, 4) == 120 + 30


def test_price_counts_a_token_once(setting):
    ranks_on_cpus = Workers(4)
    right = tensor_bench.job(setting, ranks_on_cpus, GlobalThroughput(100.0))
    summed = tensor_bench.job(setting, ranks_on_cpus, ThroughputPerReplica(100.0))
    assert right.tokens_per_s == 100.0
    assert summed.usd_per_million_tokens * 4 == pytest.approx(right.usd_per_million_tokens)


def test_the_picture_has_a_piece_for_every_part():
    axes = draw(tensor_bench.config(), 4).axes
    assert [len(axis.patches) for axis in axes] == [12, 4, 8, 4]


def test_a_model_that_fits_no_rank_runs_on_four(four):
    model = {**PROOF, "dim": 192, "feed_forward_dim": 384, "vocab_size": 768}
    sizes = {"model": model, "batch": 2, "tokens": 16}
    alone = bench.peak(four, "alone", **sizes)[0]
    ours = bench.peak(four, "tensor", **sizes)[0]
    limit = (alone["most"] + ours["most"]) // 2
    assert ours["most"] < 0.5 * alone["most"]
    with pytest.raises(UserError, match="out of memory"):
        bench.peak(four, "alone", **sizes, limit=limit)
    capped = bench.peak(four, "tensor", **sizes, limit=limit)
    config = replace(TINY, **model)
    assert all(
        r["parameters"] == TensorParallelStrategy.holds(config, 0, 4)["parameters"] for r in capped
    )
