"""Flash attention: right forward and backward in every dtype, length, grouping and layout, and strict on bad input."""

import math

import pytest
import torch
from kernel_cases import DTYPES, TOLERANCE, assert_close, error, normal
from torch.library import opcheck
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from smml.errors import UserError
from smml.kernels import flash_attention as package
from smml.kernels.flash_attention import (
    attention,
    backward as backwards,
    flash_attention,
    forward as forwards,
    operation,
    tiles,
)
from smml.llama import ops

SHAPE = {"batch": 1, "heads": 2, "kv_heads": 1, "queries": 40, "keys": 40, "head_dim": 16}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles of 16 to 32 rows, so that short sequences have many blocks; one configuration, since the tuner has its own test."""
    monkeypatch.setattr(forwards, "configs", lambda *_: [forwards._config(32, 32, 4, 2)])
    monkeypatch.setattr(backwards, "dq_configs", lambda *_: [backwards._config(32, 16, 4, 2)])
    monkeypatch.setattr(backwards, "dk_dv_configs", lambda *_: [backwards._config(16, 32, 4, 2)])
    clear()
    yield
    clear()


def clear() -> None:
    forwards._tuned.cache_clear()
    backwards._tuned.cache_clear()


def inputs(dtype=torch.float32, **changes):
    """q, k and v that require gradients."""
    s = SHAPE | changes
    q = normal(s["batch"], s["heads"], s["queries"], s["head_dim"], dtype=dtype)
    k, v = (
        normal(s["batch"], s["kv_heads"], s["keys"], s["head_dim"], dtype=dtype, seed=i)
        for i in (1, 2)
    )
    return tuple(x.requires_grad_() for x in (q, k, v))


def assert_right(q, k, v, causal, do=None, factor=1.0):
    """Output, log-sum-exp and three gradients against attention in float64 with all its scores."""
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    wanted, wanted_lse = package.reference(*exact, causal)
    out, lse = flash_attention(q, k, v, causal)
    assert_close(out.detach(), wanted.detach(), q.dtype, factor)
    assert error(lse.detach(), wanted_lse.detach()) < TOLERANCE[q.dtype]
    do = normal(*out.shape, dtype=q.dtype, seed=3) if do is None else do
    gradients = torch.autograd.grad(out, (q, k, v), do)
    for gradient, right in zip(
        gradients, torch.autograd.grad(wanted, exact, do.double()), strict=True
    ):
        assert_close(gradient, right, q.dtype, 2 * factor)


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_output_and_gradients_equal_exact_attention(dtype, causal):
    assert_right(*inputs(dtype, batch=2), causal)


@pytest.mark.parametrize(
    ("queries", "keys", "causal"),
    [(77, 77, True), (33, 70, True), (70, 33, True), (70, 33, False), (40, 2, True), (32, 64, False)],
)  # fmt: skip
def test_any_two_lengths_are_right(queries, keys, causal):
    assert_right(*inputs(queries=queries, keys=keys, batch=1), causal)


@pytest.mark.parametrize("kv_heads", [8, 4, 2, 1])
def test_heads_that_share_keys_sum_their_gradients(kv_heads):
    assert_right(*inputs(batch=1, heads=8, kv_heads=kv_heads, queries=20, keys=20), True, factor=2)


@pytest.mark.parametrize("head_dim", [1, 24, 64, 80, 128, 256])
def test_any_head_dimension_is_right(head_dim):
    assert_right(*inputs(head_dim=head_dim, batch=1, queries=40, keys=40), True)


@pytest.mark.parametrize("kernel", ["forward", "backward"])
def test_the_tiles_and_the_tuner_of_a_gpu_give_the_same(monkeypatch, kernel):
    monkeypatch.undo()
    clear()
    q, k, v = inputs(torch.bfloat16, batch=1, heads=2, kv_heads=1, queries=130, keys=130)
    if kernel == "backward":
        assert_right(q, k, v, True)
    out, wanted = (f(q, k, v, True)[0] for f in (flash_attention, package.reference))
    assert error(out.detach(), wanted.detach()) < TOLERANCE[torch.bfloat16]
    assert len(forwards.configs(64, 2)) > 1


@pytest.mark.parametrize("layout", ["as a Llama's", "every other row", "misaligned", "transposed"])
def test_views_are_read_where_they_lie(layout):
    shape = (1, 2, 40, 16)
    x = {
        "as a Llama's": normal(1, 40, 4, 16)[:, :, 1:3].transpose(1, 2),
        "every other row": normal(1, 2, 80, 16)[:, :, ::2],
        "misaligned": normal(1 + math.prod(shape))[1:].view(shape),
        "transposed": normal(1, 2, 16, 40).mT,
    }[layout]
    assert x.shape == shape
    assert tiles.bulk_copies(x) == (layout in ("as a Llama's", "every other row"))
    q = x.detach().requires_grad_()
    k, v = (x[:, :1].detach().requires_grad_() for _ in range(2))
    assert_right(q, k, v, True, factor=2)


def test_an_expanded_tensor_and_an_expanded_gradient_are_right():
    q, k, _ = inputs(batch=1, heads=4, queries=40, keys=40)
    shared = k[:, :1].expand(1, 4, 40, 16)  # stride 0 over heads
    out = flash_attention(q, shared, shared, True)[0]
    wanted = package.reference(q, shared, shared, True)[0]
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(out.sum(), k)[0], torch.autograd.grad(wanted.sum(), k)[0]
    )


def test_the_log_sum_exp_is_differentiable():
    q, k, v = inputs(batch=1, queries=40, keys=50)
    for causal in (False, True):
        (mine, mine_lse), (right, right_lse) = (
            f(q, k, v, causal) for f in (flash_attention, package.reference)
        )
        weight = normal(*mine_lse.shape, seed=5)
        for own, exact in (
            ((mine_lse * weight).sum(), (right_lse * weight).sum()),
            ((mine_lse * weight).sum() + mine.sum(), (right_lse * weight).sum() + right.sum()),
        ):
            for a, b in zip(
                torch.autograd.grad(own, (q, k), retain_graph=True),
                torch.autograd.grad(exact, (q, k), retain_graph=True),
                strict=True,
            ):
                assert error(a, b) < 1e-5


def test_offsets_beyond_32_bits_are_right():
    stride = 2**31 // 39 + 64
    base = torch.empty(39 * stride + 16, dtype=torch.float16)
    x = base.as_strided((1, 1, 40, 16), (16, 16, stride, 1)).copy_(
        normal(1, 1, 40, 16, dtype=torch.float16)
    )
    y = x.contiguous()
    assert torch.equal(flash_attention(x, x, x, True)[0], flash_attention(y, y, y, True)[0])
    leaf, plain = x.detach().requires_grad_(), y.detach().requires_grad_()
    for tensor in (leaf, plain):
        flash_attention(tensor, x, x, True)[0].sum().backward()
    assert torch.equal(leaf.grad, plain.grad)


@pytest.mark.parametrize("shape", ["no batch", "no queries", "no keys"])
def test_empty_tensors_give_what_a_sum_over_nothing_is(shape):
    changes = {"no batch": {"batch": 0}, "no queries": {"queries": 0}, "no keys": {"keys": 0}}
    q, k, v = inputs(**changes[shape])
    out, lse = flash_attention(q, k, v, True)
    assert out.shape == q.shape
    assert not out.any()
    assert (lse == -math.inf).all()
    gradients = torch.autograd.grad(out.sum(), (q, k, v))
    assert not any(gradient.any() for gradient in gradients)


def test_nan_and_infinity_reach_the_rows_that_see_them():
    q, k, v = (x.detach() for x in inputs(batch=1, heads=2, kv_heads=2, queries=70, keys=70))
    q[0, 0, 3], k[0, 1, 40], v[0, 0, 50, 2] = math.nan, math.nan, math.inf
    out = flash_attention(q, k, v, True)[0]
    right = torch.stack([package.reference(q[:, :, : t + 1], k[:, :, : t + 1], v[:, :, : t + 1], True)[0][:, :, -1]
                         for t in range(70)], 2)  # fmt: skip
    blocks_that_see = right.isnan() | right.isinf()
    assert (out.isnan() | out.isinf())[blocks_that_see].all()
    assert torch.isfinite(out[0, 0, :3]).all()
    assert torch.isfinite(out[0, 1, :32]).all()


def test_scores_of_minus_infinity_weigh_nothing():
    q, k, v = (x.detach().abs() for x in inputs(batch=1, queries=40, keys=40))
    k[:, :, 1:20, 0] = -math.inf
    for causal in (False, True):
        torch.testing.assert_close(
            flash_attention(q, k, v, causal)[0], package.reference(q, k, v, causal)[0]
        )
    k[..., 0] = -math.inf  # no score left: 0 ÷ 0, as in softmax
    assert flash_attention(q, k, v, False)[0].isnan().all()


def test_a_mask_and_a_single_query_are_left_to_pytorch():
    q, k, v = (x.detach() for x in inputs())
    mask = torch.rand(40, 40) < 0.5
    assert torch.equal(attention(q, k, v, mask, False), ops.attention(q, k, v, mask, False))
    one = q[:, :, -1:]
    assert torch.equal(attention(one, k, v, None, False), ops.attention(one, k, v, None, False))
    torch.testing.assert_close(attention(q, k, v, None, True), ops.attention(q, k, v, None, True))


def test_results_lie_as_the_next_layer_reads_them():
    q, k, v = inputs()
    out = attention(q, k, v, None, True)
    assert out.transpose(1, 2).is_contiguous()
    assert all(g.transpose(1, 2).is_contiguous() for g in torch.autograd.grad(out.sum(), (q, k, v)))


def refused(**changes):
    q, k, v = (x.detach() for x in inputs(queries=8, keys=8, heads=4, kv_heads=2))
    return tuple({"q": q, "k": k, "v": v, **changes}.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"q": torch.ones(2, 8, 16)}, r"q has shape \[2, 8, 16\]; it must be \[B, H, T, d\]"),
        ({"k": torch.ones(1, 2, 8, 8)}, "k has shape"),
        ({"v": torch.ones(1, 2, 9, 16)}, "v has shape"),
        ({"k": torch.ones(1, 3, 8, 16), "v": torch.ones(1, 3, 8, 16)}, "4 query heads cannot share 3"),
        ({x: torch.ones(1, 1, 8, 257) for x in "qkv"}, "head dimension is 257"),
        ({"v": torch.ones(1, 2, 8, 16).half()}, "v is float16 and q is float32"),
        ({x: torch.ones(1, 2, 8, 16).double() for x in "qkv"}, "allowed are float32"),
        ({"k": torch.ones(1, 2, 8, 16, device="meta")}, "k is on meta and q on cpu"),
    ],
    ids=["rank", "head", "length", "groups", "wide", "dtype", "double", "device"],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        flash_attention(*refused(**changes), True)


def test_registered_as_pytorchs_own():
    q, k, v = inputs(batch=1, queries=5, keys=7)
    opcheck(operation._flash_attention, (q, k, v, True))
    out, lse = (x.detach() for x in flash_attention(q, k, v, True))
    tensors = (out, lse, q.detach(), k.detach(), v.detach(), out, lse)
    opcheck(operation._flash_attention_backward, (*tensors, True))


def test_torch_compile_traces_through():
    q, k, v = inputs(batch=1, queries=40, keys=40)
    compiled = torch.compile(lambda *x: attention(*x, None, True) * 2, backend="aot_eager", fullgraph=True)  # fmt: skip
    torch.testing.assert_close(compiled(q, k, v), attention(q, k, v, None, True) * 2)


@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (3, 7), (7, 3), (1, 4)])
def test_visible_pairs_are_those_of_the_mask(queries, keys):
    seen = torch.ones(queries, keys).tril().sum()
    assert package.visible_pairs(queries, keys, True) == seen
    assert package.visible_pairs(queries, keys, False) == queries * keys


def test_flops_are_those_that_pytorch_counts():
    q, k, v = (x.detach().to("meta").requires_grad_() for x in inputs(kv_heads=2))
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        with FlopCounterMode(display=False) as backward:
            out.backward(torch.empty_like(out))
    sizes = SHAPE | {"kv_heads": 2, "itemsize": 4, "causal": False}
    assert package.work(**sizes).flops == forward.get_total_flops()
    # The scores, which PyTorch kept, are computed again: one product of two in forward.
    again = forward.get_total_flops() / 2
    assert package.backward_work(**sizes).flops == backward.get_total_flops() + again


def test_bytes_grow_with_the_sequence_and_not_with_its_square():
    def sizes(tokens):
        return SHAPE | {"queries": tokens, "keys": tokens, "itemsize": 2}

    for count in (package.work, package.backward_work):
        assert (
            count(**sizes(2000), causal=True).bytes == 2 * count(**sizes(1000), causal=True).bytes
        )
    shape = {"batch": 1, "heads": 1, "head_dim": 64, "itemsize": 2}
    short, long = (package.unfused_work(queries=t, keys=t, **shape).bytes for t in (10_000, 20_000))
    assert long / short > 3.9
    extra = {"batch": 1, "heads": 1, "queries": 1000, "keys": 1000, "itemsize": 2}
    assert package.extra_bytes(**extra, fused=False) == 1000 * package.extra_bytes(
        **extra, fused=True
    )


def test_short_and_long_sequences_are_tuned_apart(monkeypatch):
    monkeypatch.setattr(tiles, "LONG", 40)
    for tokens in (8, 39, 40, 50):
        assert_right(*inputs(queries=tokens, keys=tokens), causal=True)
    assert forwards._tuned.cache_info().currsize == 2
    assert backwards._tuned.cache_info().currsize == 2
