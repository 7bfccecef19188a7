"""The operation that models call: checks, registration with PyTorch, gradients, and what is left to PyTorch's own."""

import torch
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands
from smml.kernels.flash_attention import backward as backwards, forward as forwards
from smml.llama import ops

WIDEST = 256  # head dimension whose tiles still fit into the registers


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """softmax(q·kᵀ/√d)·v [B, H, T, d], as smml.llama.ops.attention; q [B, H, T, d], k and v [B, K, S, d].

    `causal`: query t sees keys 0…t, counted from the first key also where T ≠ S (as is_causal of PyTorch). A `mask`,
    and a single query, whose scores are one row, are left to PyTorch's own. Raises UserError as `flash_attention`.
    """
    if mask is not None or q.shape[-2] == 1:
        return ops.attention(q, k, v, mask, causal)
    return flash_attention(q, k, v, causal)[0]


def flash_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """attention(q, k, v) [B, H, T, d] and the log-sum-exp of its scaled scores in nats [B, H, T], float32.

    Both are differentiable; partial results over parts of the keys merge by their log-sum-exp. Memory beside the
    operands: O(T). Raises UserError for shapes that do not fit, a head dimension above WIDEST, H no multiple of K.
    """
    operands.check("flash_attention", q=q, k=k, v=v)
    operands.shape("flash_attention", "q", q, ("B", "H", "T", "d"))
    batch, heads, _, head_dim = q.shape
    operands.shape("flash_attention", "k", k, (batch, "K", "S", head_dim))
    operands.shape("flash_attention", "v", v, tuple(k.shape))
    if not 1 <= head_dim <= WIDEST:
        raise UserError(
            f"flash_attention: the head dimension is {head_dim}; it must be 1…{WIDEST}: use smml.llama.ops.attention."
        )
    if k.shape[1] == 0 or heads % k.shape[1]:
        raise UserError(
            f"flash_attention: {heads} query heads cannot share {k.shape[1]} key-value heads evenly: "
            "give a number of heads that is a multiple of theirs."
        )
    return _flash_attention(q, k, v, causal)


@torch.library.custom_op("smml::flash_attention", mutates_args=())
def _flash_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    return forwards.forward(q, k, v, causal)


@_flash_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    return forwards.empty_out(q), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("smml::flash_attention_backward", mutates_args=())
def _flash_attention_backward(
    do: Tensor,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dlse = None if dlse is None else dlse.contiguous()
    return backwards.backward(do, dlse, q, k, v, out, lse, causal)


@_flash_attention_backward.register_fake
def _(
    do: Tensor,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return forwards.empty_out(q), forwards.empty_out(k), forwards.empty_out(v)


def _setup_context(ctx, inputs, output) -> None:
    q, k, v, ctx.causal = inputs
    ctx.save_for_backward(q, k, v, *output)
    ctx.set_materialize_grads(False)  # lse is seldom differentiated; zeros for it would be read


def _backward(ctx, do: Tensor | None, dlse: Tensor | None):
    q, k, v, out, lse = ctx.saved_tensors
    if do is None:
        do = torch.zeros_like(out)
    return *_flash_attention_backward(do, dlse, q, k, v, out, lse, ctx.causal), None


_flash_attention.register_autograd(_backward, setup_context=_setup_context)


def reference(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """The same in plain PyTorch, with all T·S scores in memory; float64 stays, others are computed in float32."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    group = q.shape[1] // k.shape[1]
    keys, values = (x.to(wide).repeat_interleave(group, 1) for x in (k, v))  # [B, H, S, d]
    scores = q.to(wide) @ keys.mT / q.shape[-1] ** 0.5  # [B, H, T, S]
    if causal:
        unseen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(unseen, float("-inf"))
    out = scores.softmax(-1) @ values
    return out.to(q.dtype), scores.logsumexp(-1)
