"""The model equals transformers' on the same weights, and itself in every way of running it."""

from dataclasses import replace

import pytest
import torch
import transformers
from llama_variants import GROUPED, VARIANTS, random_model, random_tokens
from torch.testing import assert_close

from smml.errors import UserError
from smml.llama.config import CONFIGS, LlamaConfig
from smml.llama.kv_cache import GrowingCache, StaticCache
from smml.llama.model import Llama, rope_frequencies
from smml.llama.ops import IGNORE_INDEX, Ops, rms_norm, swiglu
from smml.llama.weights import hf_views

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request) -> tuple[Llama, transformers.LlamaForCausalLM]:
    config = VARIANTS[request.param]
    model = random_model(config)
    reference = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config.to_hf()))
    result = reference.load_state_dict(hf_views(config, model.state_dict().items()), strict=False)
    assert not result.unexpected_keys
    assert result.missing_keys == (["lm_head.weight"] if config.tie_embeddings else [])
    reference.tie_weights()
    return model, reference


def test_logits_loss_and_gradients_equal_transformers(pair):
    model, reference = pair
    tokens = random_tokens(model.config, 3, 33)
    targets = tokens[:, 1:].clone()
    targets[0, :7] = IGNORE_INDEX
    tokens = tokens[:, :-1]
    assert_close(model(tokens), reference(tokens).logits, **TOLERANCE)

    model.zero_grad()
    reference.zero_grad()
    loss = model(tokens, targets)
    expected = reference(tokens, labels=targets, shift_labels=targets).loss
    assert_close(loss, expected, **TOLERANCE)
    loss.backward()
    expected.backward()
    gradients = hf_views(model.config, ((name, p.grad) for name, p in model.named_parameters()))
    theirs = {name: p.grad for name, p in reference.named_parameters()}
    assert gradients.keys() == theirs.keys()
    for name, gradient in gradients.items():
        assert_close(
            gradient, theirs[name], **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_checkpointing_changes_no_gradient(pair):
    model, _ = pair
    tokens, targets = random_tokens(model.config, 2, 16), random_tokens(model.config, 2, 16, seed=1)
    found = []
    for checkpointing in (False, True):
        model.activation_checkpointing = checkpointing
        model.zero_grad()
        model(tokens, targets).backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    model.activation_checkpointing = False
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "tiny"])
def test_published_shapes_are_those_of_transformers(name):
    config = CONFIGS[name]
    with torch.device("meta"):
        reference = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config.to_hf()))
    ours = hf_views(config, Llama(config, device="meta").named_parameters())
    assert {n: p.shape for n, p in ours.items()} == {
        n: p.shape for n, p in reference.named_parameters()
    }
    inverse, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS.get(
        reference.config.rope_parameters["rope_type"],
        reference.model.rotary_emb.compute_default_rope_parameters,
    )(reference.config, device="cpu")
    assert_close(rope_frequencies(config), inverse.cpu(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "make", [lambda c: StaticCache(c, 2, 40), GrowingCache], ids=["static", "growing"]
)
@pytest.mark.parametrize("pieces", [(1,) * 5, (9, 1, 1), (4, 13, 1, 6)])
def test_cached_pieces_equal_the_whole(make, pieces):
    model = random_model(GROUPED)
    tokens = random_tokens(GROUPED, 2, sum(pieces))
    cache = make(GROUPED)
    with torch.no_grad():
        found = torch.cat(
            [model(piece, cache=cache) for piece in tokens.split(pieces, dim=1)], dim=1
        )
        assert_close(found, model(tokens), **TOLERANCE)
        assert_close(model(tokens, last_only=True), found[:, -1:], **TOLERANCE)
    assert cache.length == sum(pieces)


def test_positions_and_mask_do_what_the_defaults_do():
    model = random_model(GROUPED)
    tokens = random_tokens(GROUPED, 2, 10)
    mask = torch.ones(10, 10, dtype=torch.bool).tril()[None, None]
    assert_close(model(tokens, positions=torch.arange(10), mask=mask), model(tokens), **TOLERANCE)
    moved = model(tokens, positions=torch.arange(10).expand(2, 10) + 7)
    assert_close(
        moved, model(tokens), rtol=1e-4, atol=1e-4
    )  # rotary embeddings know only distances
    assert not torch.allclose(
        model(tokens, positions=torch.arange(10) * 2), model(tokens), atol=1e-2
    )


def test_longer_than_the_context_is_refused_with_both_values():
    model = random_model(GROUPED)
    with pytest.raises(UserError, match=r"65 tokens long and max_sequence_length is 64"):
        model(random_tokens(GROUPED, 1, 65))
    cache = StaticCache(GROUPED, 1, 70)
    cache.advance(60)
    with pytest.raises(UserError, match=r"66 tokens long and max_sequence_length is 64"):
        model(random_tokens(GROUPED, 1, 6), cache=cache)
    with pytest.raises(UserError, match=r"holds 4 tokens and 5 are needed"):
        model(random_tokens(GROUPED, 1, 5), cache=StaticCache(GROUPED, 1, 4))


def test_initial_weights_follow_seed_and_rule():
    config = replace(GROUPED, dim=256, feed_forward_dim=512, attention_bias=True)
    first, again, other = (Llama(config, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])
    layer = "layers.1."
    assert first[layer + "feed_forward.gate_up.weight"].std().item() == pytest.approx(
        0.02, rel=0.02
    )
    assert first[layer + "feed_forward.down.weight"].std().item() == pytest.approx(0.01, rel=0.02)
    assert first[layer + "attention.qkv.bias"].abs().max() == 0
    assert (first[layer + "attention_norm.weight"] == 1).all()


def test_meta_model_has_no_memory_and_becomes_real():
    model = Llama(GROUPED, device="meta", dtype=torch.bfloat16)
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    model.materialise("cpu")
    model.init_weights(5)
    expected = Llama(GROUPED, seed=5, dtype=torch.bfloat16)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True)
    )
    tokens = random_tokens(GROUPED, 1, 8)
    assert torch.equal(model(tokens), expected(tokens))


def test_ops_are_swapped_by_one_argument():
    called = []

    def counting(name, operation):
        def call(*arguments):
            called.append(name)
            return operation(*arguments)

        return call

    ops = Ops(**{name: counting(name, operation) for name, operation in vars(Ops()).items()})
    model, plain = Llama(GROUPED, ops=ops), Llama(GROUPED)
    tokens = random_tokens(GROUPED, 2, 8)
    assert torch.equal(model(tokens, tokens), plain(tokens, tokens))
    layer = ["rms_norm", "rope", "attention", "add_rms_norm", "swiglu"]
    assert called == [*layer, *layer, "rms_norm", "linear_cross_entropy"]


def test_low_precision_stays_near_float32():
    model = random_model(GROUPED)
    tokens = random_tokens(GROUPED, 2, 16)
    expected = model(tokens, tokens)
    assert_close(model.bfloat16()(tokens, tokens), expected, rtol=0.05, atol=0.05)


def test_operations_against_their_formulas():
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3, 5, 8), (8,))
    )
    root = (sum(x[..., i] ** 2 for i in range(8)) / 8 + 1e-3).sqrt()
    assert_close(rms_norm(x, weight, 1e-3), x / root[..., None] * weight)
    gate, up = x[..., :4], x[..., 4:]
    assert_close(swiglu(x), gate / (1 + (-gate).exp()) * up)


def test_config_equals_what_transformers_understands():
    config = LlamaConfig.from_hf(
        transformers.LlamaConfig(**VARIANTS["stretched rope"].to_hf()).to_dict()
    )
    assert config == VARIANTS["stretched rope"]
