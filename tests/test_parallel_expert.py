"""A mixture of experts is Mixtral's; spread over ranks it is one process's, whatever the router does."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from smml.bench import expert_parallel as bench, strategies as proved
from smml.errors import UserError
from smml.llama.config import CONFIGS
from smml.measure import Timing
from smml.parallel import mixture
from smml.parallel.expert_parallel_strategy import ExpertParallelStrategy, MixtureDataParallel
from smml.parallel.links import Link
from smml.parallel.mixture import MixtureLlama, MixtureOfExperts
from smml.parallel.strategy_tasks import PROOF, PROOF_BATCH, PROOF_TOKENS, config

TASKS = "parallel_tasks_expert"
TINY = {**PROOF, "dim": 16, "layers": 2, "heads": 4, "kv_heads": 2, "feed_forward_dim": 24}


def data_of(shape, batch, tokens):
    """As proof.batch_of, without ranks."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(shape.vocab_size, (batch, tokens + 1), generator=generator)


def seeded(layer, seed=0):
    """Its weights normal, with deviation 0.5."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_(0.0, 0.5, generator=generator)
    return layer


@pytest.mark.parametrize(
    ("options", "model"),
    [
        ({}, PROOF),
        ({"skew": 4.0}, PROOF),
        ({"balance": 0.05, "top_k": 3}, PROOF),
        ({"experts": 2, "top_k": 1}, PROOF | {"tie_embeddings": True, "kv_heads": 24}),
    ],
)
def test_a_step_is_that_of_one_process(two, options, model):
    for proof in proved.prove(two, "expert", options, model=model):
        assert proof["gradient"] <= 1e-5
        assert set(proof["sent"]) == {"all-to-all", "all-gather", "all-reduce"}


def test_so_it_is_on_four_ranks(four):
    proofs = proved.prove(four, "expert", {"skew": 2.0})
    choices = PROOF["layers"] * PROOF_BATCH * PROOF_TOKENS * 2  # of top_k = 2 experts
    sent = sum(proof["sent"]["all-to-all"] for proof in proofs)
    assert sent == 4 * choices * PROOF["dim"] * 4, "none is dropped"
    assert len({p["sent"]["all-to-all"] for p in proofs}) > 1, "a router is never quite even"


@pytest.mark.parametrize("name", ["expert-data", "expert-alone"])
def test_the_undivided_mixture_is_proved_too(two, name):
    assert ("all-reduce" in proved.prove(two, name)[0]["sent"]) == (name == "expert-data")


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("nothing summed", "the gradient of"),
        ("averaged experts", "the gradient of"),
        ("gradients stay", "the gradient of"),
        ("shifted", "the loss is"),
    ],
)
def test_the_proof_finds_mistakes(two, mistake, told):
    for problems in two.run(f"{TASKS}:problems", mistake=mistake):
        assert any(told in problem for problem in problems), problems


def test_experts_over_pairs_and_data_over_the_pairs(four):
    assert max(four.run(f"{TASKS}:with_data_parallel")) < 1e-5


def test_a_rank_may_send_all_or_nothing(two):
    first, last = two.run(f"{TASKS}:uneven")
    assert first == {"came": [], "gradient": [[10, 100]] * 3}
    assert last == {"came": [[0, 1], [2, 3], [4, 5]], "gradient": []}


def test_no_rank_ever_holds_the_model(two):
    shape = TINY | {"feed_forward_dim": 960}
    count = mixture.parameters(config(shape), experts=16)
    expert = 4 * count.expert // TINY["layers"]
    for found in two.run(f"{TASKS}:most_while_built", model=shape, experts=16):
        assert found["most"] <= found["kept"] + 2 * expert
        assert found["most"] < 0.7 * 4 * count.total


def test_loads_are_those_of_the_whole_batch(two):
    found = bench.learning(two, {"seed": 3}, 2, model=TINY, batch=4, tokens=8)
    one = MixtureLlama(config(TINY), seed=3)
    data = data_of(config(TINY), 4, 8)
    one(data[:, :-1], data[:, 1:])
    assert found[0] == one.loads().tolist()
    assert [sum(layer) for step in found for layer in step] == [4 * 8 * 2] * 4


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("expert", {"experts": 7}, "2 ranks cannot share experts = 7 equally"),
        ("expert", {"experts": 2, "top_k": 3}, "top_k = 3 of 2 experts"),
        ("expert-data", {"balance": 0.1}, "leave balance out, or use expert parallel"),
    ],
)
def test_what_cannot_be_is_named_before_anything_is_sent(two, name, options, told):
    with pytest.raises(UserError, match=told):
        proved.peak(two, name, TINY, 4, 8, options)
    with pytest.raises(UserError, match="2 ranks cannot share batch = 3 equally"):
        proved.peak(two, name, TINY, 3, 8)


def test_experts_cost_memory_only_where_they_are(two):
    wide = TINY | {"feed_forward_dim": 480}
    spread = proved.peak(two, "expert", wide, 2, 8)
    whole = proved.peak(two, "expert-data", wide, 2, 8)
    limit = (max(r["most"] for r in spread) + whole[0]["most"]) // 2
    assert proved.peak(two, "expert", wide, 2, 8, limit=limit) == spread
    with pytest.raises(UserError, match="out of memory"):
        proved.peak(two, "expert-data", wide, 2, 8, limit=limit)


@settings(max_examples=20)
@given(
    experts=st.integers(1, 6),
    top_k=st.integers(1, 6),
    tokens=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_a_mixture_is_the_sum_that_its_definition_says(experts, top_k, tokens, seed):
    top_k = min(top_k, experts)
    layer = seeded(MixtureOfExperts(config(TINY), experts, top_k, held=experts), seed)
    x = torch.randn(1, tokens, 16, generator=torch.Generator().manual_seed(seed))
    wanted = torch.zeros_like(x)
    for t in range(tokens):
        probabilities = (layer.router @ x[0, t]).softmax(0)
        chosen = sorted(range(experts), key=lambda e: -probabilities[e])[:top_k]
        total = sum(probabilities[e] for e in chosen) if top_k > 1 else 1.0
        for e in chosen:
            gate, up = (layer.gate_up[e] @ x[0, t]).chunk(2)
            wanted[0, t] += probabilities[e] / total * (layer.down[e] @ (F.silu(gate) * up))
    torch.testing.assert_close(layer(x), wanted)
    assert layer.load.sum() == tokens * top_k


def test_a_mixture_is_mixtrals():
    modeling = pytest.importorskip(
        "transformers.models.mixtral.modeling_mixtral", reason="pip install transformers"
    )
    shape = config(TINY)
    theirs = modeling.MixtralSparseMoeBlock(
        modeling.MixtralConfig(
            hidden_size=shape.dim,
            intermediate_size=shape.feed_forward_dim,
            num_local_experts=8,
            num_experts_per_tok=2,
            experts_implementation="eager",
        )
    )
    ours = seeded(MixtureOfExperts(shape, 8, 2, held=8))
    with torch.no_grad():
        theirs.gate.weight.copy_(ours.router)
        theirs.experts.gate_up_proj.copy_(ours.gate_up)
        theirs.experts.down_proj.copy_(ours.down)
    x = torch.randn(2, 9, shape.dim, generator=torch.Generator().manual_seed(1))
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, wanted = ours(mine), theirs(other)
    torch.testing.assert_close(found, wanted)
    (found**2).sum().backward()
    (wanted**2).sum().backward()
    for found, wanted in (
        (mine.grad, other.grad),
        (ours.router.grad, theirs.gate.weight.grad),
        (ours.gate_up.grad, theirs.experts.gate_up_proj.grad),
        (ours.down.grad, theirs.experts.down_proj.grad),
    ):
        assert (found - wanted).norm() <= 1e-5 * wanted.norm()


def test_one_expert_that_all_tokens_meet_is_a_llama():
    shape = config(TINY)
    dense, one = MixtureLlama(shape, experts=1, top_k=1), MixtureLlama(shape, experts=2, top_k=2)
    with torch.no_grad():
        for single, pair in zip(dense.layers, one.layers, strict=True):
            for name in ("gate_up", "down"):
                same = getattr(single.feed_forward, name)
                getattr(pair.feed_forward, name).copy_(same.expand(2, -1, -1))
        for name, p in dense.named_parameters():
            if "feed_forward." not in name:
                dict(one.named_parameters())[name].copy_(p)
    tokens = data_of(shape, 2, 6)
    torch.testing.assert_close(one(tokens), dense(tokens))


def test_the_balance_term_is_1_for_an_even_router_and_more_for_any_other():
    layer = MixtureOfExperts(config(TINY), 4, 2, held=4)
    layer.load, layer.mean_probability = torch.tensor([5, 5, 5, 5]), torch.full((4,), 0.25)
    assert layer.imbalance() == 1
    layer.load = torch.tensor([10, 10, 0, 0])
    layer.mean_probability = torch.tensor([0.4, 0.4, 0.1, 0.1])
    assert layer.imbalance().item() == pytest.approx(4 * (0.5 * 0.4 * 2))
    shape = config(TINY)
    data = data_of(shape, 2, 6)
    plain, balanced = (MixtureLlama(shape, balance=b)(data[:, :-1], data[:, 1:]) for b in (0, 0.1))
    assert balanced > plain + 0.1 * shape.layers


def test_a_skewed_router_favours_the_first_half():
    shape = config(TINY)
    data = data_of(shape, 2, 24)
    loads = []
    for skew in (1.0, 4.0):
        model = MixtureLlama(shape, skew=skew)
        model(data[:, :-1], data[:, 1:])
        loads.append(bench.fullest(model.loads().tolist(), 2))
    assert loads[0] + 0.1 < loads[1]


def test_biases_are_refused():
    with pytest.raises(UserError, match="experts have no biases"):
        MixtureLlama(config(TINY | {"mlp_bias": True}), device="meta")


def test_counts_by_hand():
    shape = config(TINY)  # D 16, L 2, F 24, query 16, kv 8, V 192
    count = mixture.parameters(shape, experts=8, top_k=2)
    assert count.expert == 2 * 3 * 16 * 24
    attention, norms = 2 * (16 * 32 + 16 * 16), 5 * 16
    assert count.shared == 2 * 192 * 16 + attention + norms + 2 * 8 * 16
    assert count.active == count.shared + 2 * count.expert
    assert count.held(4) == count.shared + 2 * count.expert
    model = MixtureLlama(shape, device="meta")
    assert count.total == sum(p.numel() for p in model.parameters())


def test_bytes_by_hand():
    shape = config(TINY)
    sends = ExpertParallelStrategy.sends(shape, 0, 2, batch=4, tokens=8, came=50)
    # A rank has 4 · 8 / 2 tokens with 2 choices in 2 layers, 64 in all; 50 come to it; D = 16 float32.
    assert sends["all-to-all"] == 2 * (64 + 50) * 16 * 4
    assert sends["all-gather"] == 2 * 2 * 8 * 8
    assert sends["all-reduce"] == 4 * mixture.parameters(shape).shared
    even = ExpertParallelStrategy.sends(shape, 0, 2, batch=4, tokens=8)
    assert even["all-to-all"] == 4 * 64 * 16 * 4
    whole = MixtureDataParallel.sends(shape, 0, 2, batch=4, tokens=8)
    assert whole == {"all-reduce": 4 * mixture.parameters(shape).total}


def test_the_fullest_rank_is_waited_for_in_every_layer():
    loads = [[3, 1, 0, 0], [0, 0, 1, 3]]
    assert bench.by_rank(loads, 2) == [[4, 0], [0, 4]]
    assert bench.fullest(loads, 2) == 2
    assert bench.fullest([[2, 2, 2, 2]], 2) == 1


def test_predictions_by_hand():
    network = {bench.RING: Link(0, 1e-9), bench.ALL_TO_ALL: Link(1e-3, 0)}
    even, skewed = [[2] * 8] * 2, [[4] * 4 + [0] * 4] * 2
    costs = bench.Costs(weights_s=0.1, sequence_s=0.05)
    found = bench.predicted_s(2, costs, network, {"expert": even, "expert#skewed": skewed})
    count = mixture.parameters(replace(CONFIGS["tiny"], **bench.MODEL))
    computed = bench.BATCH * 0.05
    assert found["expert-data"] == pytest.approx(0.1 + computed + 4e-9 * count.total)
    messages = 4 * 2 * 1e-3
    weights = 0.1 * count.held(2) / count.total + 4e-9 * count.shared
    assert found["expert"] == pytest.approx(weights + computed + messages)
    waited = found["expert#skewed"] - found["expert"]
    assert waited == pytest.approx(computed * bench.expert_share())
    assert 0.5 < bench.expert_share() < 1


def test_records_hold_ours_against_the_undivided_mixture(two, setting, monkeypatch):
    for name, value in (("MODEL", TINY), ("TOKENS", 8)):
        monkeypatch.setattr(bench, name, value)
    timings = {"expert": Timing((0.1,) * 5), "expert-data": Timing((0.2,) * 5)}
    ours, peer, ratio = bench.records(setting, two, timings, {"expert": 0.1, "expert-data": 0.4})
    assert ours.value == pytest.approx(2 * bench.BATCH * 8 / 0.1)
    assert peer.predicted == pytest.approx(peer.value / 2)
    assert (ratio.name, ratio.value) == ("expert-parallel/ranks-2/expert-to-expert-data", 2)
    costs = bench.costs(two)
    assert costs.weights_s >= 0
    assert costs.sequence_s >= 0
