"""The fused kernels as a Llama's operations: loss, logits, gradients and tokens of the plain model, however it is run."""

from dataclasses import replace

import pytest
import torch
from llama_variants import GROUPED, random_tokens

from smml.kernels.fp8_linear import Fp8Linear, available
from smml.kernels.llama_ops import FUSED_OPS
from smml.llama.config import LlamaConfig
from smml.llama.generate import generate
from smml.llama.model import Llama

SMALL = replace(GROUPED, layers=1, dim=32, heads=2, kv_heads=1, vocab_size=67, feed_forward_dim=48)
CONFIGS = {
    "grouped": SMALL,
    "tied, one head each": replace(SMALL, kv_heads=2, tie_embeddings=True),
    "odd sizes": replace(SMALL, dim=36, heads=3, head_dim=12, feed_forward_dim=37),
}
TOKENS = 9


def pair(config: LlamaConfig, dtype: torch.dtype = torch.float32, **options) -> tuple[Llama, Llama]:
    """A plain model and a fused one with the same random weights."""
    plain = Llama(config, dtype=dtype)
    fused = Llama(config, dtype=dtype, ops=FUSED_OPS, **options)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in plain.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(dtype))
    fused.load_state_dict(plain.state_dict())
    return plain, fused


def loss_and_gradients(model: Llama, batch: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    loss = model(batch[:, :-1], batch[:, 1:])
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters()}


def assert_same(ours, theirs, tolerance: float) -> None:
    """Loss and every gradient within `tolerance` of the other's norm."""
    assert ours[0] == pytest.approx(theirs[0], rel=tolerance)
    for name, gradient in theirs[1].items():
        apart = (ours[1][name] - gradient).double().norm() / gradient.double().norm()
        assert apart <= tolerance, f"{name}: {apart:.1e}"


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_loss_and_every_gradient_are_the_plain_models(name):
    config = CONFIGS[name]
    plain, fused = pair(config)
    batch = random_tokens(config, 2, TOKENS + 1)
    with torch.no_grad():
        torch.testing.assert_close(fused(batch), plain(batch), rtol=1e-4, atol=1e-5)
    assert_same(loss_and_gradients(fused, batch), loss_and_gradients(plain, batch), 1e-5)


@pytest.mark.parametrize("autocast", [False, True], ids=["bfloat16 weights", "autocast"])
def test_in_bfloat16_the_fused_model_is_as_near_float32_as_the_plain_one(autocast):
    """Both round at every operation, in other places: each is held against float32, 2 % of the gradient's norm apart."""
    exact, _ = pair(SMALL)
    plain, fused = pair(SMALL, torch.float32 if autocast else torch.bfloat16)
    for model in (plain, fused):
        model.load_state_dict(exact.state_dict())
    batch = random_tokens(SMALL, 1, TOKENS + 1)
    right = loss_and_gradients(exact, batch)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours, theirs = (loss_and_gradients(model, batch) for model in (fused, plain))
    for found in (ours, theirs):
        assert found[0] == pytest.approx(right[0], rel=2e-2)
    for name, gradient in right[1].items():
        off, off_plain = (
            ((found[1][name].float() - gradient).norm() / gradient.norm()).item()
            for found in (ours, theirs)
        )
        assert off <= max(2 * off_plain, 2e-2), f"{name}: {off:.1e}, plain {off_plain:.1e}"


def test_activation_checkpointing_changes_nothing():
    plain, fused = pair(replace(SMALL, layers=2), activation_checkpointing=True)
    batch = random_tokens(SMALL, 1, TOKENS + 1)
    assert_same(loss_and_gradients(fused, batch), loss_and_gradients(plain, batch), 1e-5)


def test_compiles_as_one_graph():
    plain, fused = pair(SMALL)
    batch = random_tokens(SMALL, 1, TOKENS + 1)
    torch._dynamo.reset()
    compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)
    loss = compiled(batch[:, :-1], batch[:, 1:])
    loss.backward()
    gradients = {name: p.grad for name, p in fused.named_parameters()}
    assert_same((loss.item(), gradients), loss_and_gradients(plain, batch), 1e-5)


@pytest.mark.parametrize("cache", ["static", "growing"])
def test_greedy_tokens_are_the_plain_models(cache):
    plain, fused = pair(SMALL)
    prompt = random_tokens(SMALL, 2, 5)
    ours, theirs = (generate(m, prompt, 4, cache=cache, eos=()) for m in (fused, plain))
    assert torch.equal(ours, theirs)


def test_padded_prompts_take_a_mask_and_give_the_same_tokens():
    plain, fused = pair(SMALL)
    prompt, lengths = random_tokens(SMALL, 2, 5), torch.tensor([5, 3])
    ours, theirs = (generate(m, prompt, 3, lengths=lengths, eos=()) for m in (fused, plain))
    assert torch.equal(ours, theirs)


def test_a_new_token_over_a_cache_takes_the_split_kernel(monkeypatch):
    from smml.kernels import llama_ops

    seen = []
    original = llama_ops.decode_attention_contiguous
    monkeypatch.setattr(
        llama_ops, "decode_attention_contiguous", lambda *a: seen.append(a) or original(*a)
    )
    _, fused = pair(SMALL)
    generate(fused, random_tokens(SMALL, 1, 4), 3, eos=())
    assert len(seen) == 2, "the prompt's pass takes the other one"


def test_one_token_of_training_is_differentiable():
    plain, fused = pair(SMALL)
    batch = random_tokens(SMALL, 2, 2)
    assert_same(loss_and_gradients(fused, batch), loss_and_gradients(plain, batch), 1e-5)


def test_a_meta_model_has_shapes():
    model = Llama(SMALL, device="meta", ops=FUSED_OPS)
    tokens = torch.zeros(2, 7, dtype=torch.int64, device="meta")
    assert model(tokens).shape == (2, 7, SMALL.vocab_size)


def test_linear_layers_in_fp8_take_over_the_parameters():
    assert available("cpu")
    linear = torch.nn.Linear(32, 16, bias=True)
    ours = Fp8Linear(linear)
    assert ours.weight is linear.weight
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y, right = ours(x), linear(x)
    assert y.dtype == torch.float32
    assert (y - right).norm() / right.norm() < 0.05  # 3 bits behind the leading one
    y.sum().backward()
    gradient, x.grad, linear.weight.grad = x.grad, None, None
    linear(x).sum().backward()
    assert (gradient - x.grad).norm() / x.grad.norm() < 0.01
