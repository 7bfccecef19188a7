"""Attention of some queries to some keys, with what it takes to merge it with their attention to other keys.

softmax(s)·v over all keys is a mean of the values with weights exp(s). Of two sets of keys each gives such a mean, out,
and the logarithm of its sum of weights, lse; together they are the mean of the means with weights exp(lse). Backward needs
no merging: with the out and lse of all keys, the gradients of every block are exact by themselves (FlashAttention-2,
arXiv:2307.08691, section 3.1). Nothing here is a product of queries and keys in memory, except in `plain`.

Shapes: q, out, grad [B, H, T, d]; k, v [B, K, S, d], H/K query heads share a key head; lse [B, H, T]; kv [2, B, K, S, d].
"""

import math

import torch
from torch import Tensor

from smml.parallel.sequence_order import Seen

aten = torch.ops.aten


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """(out, lse) of queries over these keys; `causal`, for T = S, lets query t see keys 0…t."""
    if not q.is_cuda:
        return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal)
    if _flash_takes(q):
        return aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal)[:2]
    return plain(q, k, v, causal)


def attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """What this block of keys adds to the gradient of q, and the gradients of k and v from these queries.

    `grad` is that of the merged `out`, and `lse` is the merged one too.
    """
    if not q.is_cuda:
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, lse, 0.0, causal
        )
    if _flash_takes(q):
        none = torch.empty(0, dtype=torch.int64, device=q.device)  # the random state of no dropout
        lengths = (None, None, q.shape[2], k.shape[2])
        return aten._scaled_dot_product_flash_attention_backward(
            grad, q, k, v, out, lse.contiguous(), *lengths, 0.0, causal, none, none
        )
    return plain_backward(grad, q, k, v, out, lse, causal)


def attend_more(
    so_far: tuple[Tensor, Tensor] | None, q: Tensor, kv: Tensor, part: Seen
) -> tuple[Tensor, Tensor]:
    """(out, lse) of the queries with one more block of keys and values. The first one must be seen by all of them."""
    rows, columns, causal = part
    found, found_lse = attend(q[:, :, rows], *kv[:, :, :, columns], causal)
    if so_far is None:
        return found.to(found_lse.dtype), found_lse  # of 16-bit operands the sum is kept in 32
    out, lse = so_far
    merge_(out[:, :, rows], lse[:, :, rows], found, found_lse)
    return so_far


def attend_more_backward_(
    grad_q: Tensor,
    grad_kv: Tensor,
    grad: Tensor,
    saved: tuple[Tensor, Tensor, Tensor],
    kv: Tensor,
    part: Seen,
) -> None:
    """Add to the gradients of q and of this block what they are to each other; `saved` is q, and out and lse of all."""
    rows, columns, causal = part
    q, out, lse = (t[:, :, rows] for t in saved)
    added_q, *added = attend_backward(grad[:, :, rows], q, *kv[:, :, :, columns], out, lse, causal)
    grad_q[:, :, rows] += added_q
    for whole, addend in zip(grad_kv[:, :, :, columns], added, strict=True):
        whole += addend


def merge_(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> None:
    """Make (out, lse) those of both sets of keys, in place."""
    together = torch.logaddexp(lse, other_lse)
    out.mul_((lse - together).exp().unsqueeze(-1))
    out.add_(other * (other_lse - together).exp().unsqueeze(-1))
    lse.copy_(together)


def plain(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """`attend` as it is defined, all scores in memory."""
    scores = _scores(q, k, causal)  # [B, K, H/K, T, S]
    lse = scores.logsumexp(-1)
    out = (scores - lse.unsqueeze(-1)).exp().to(v.dtype) @ v.unsqueeze(2)
    return out.flatten(1, 2), lse.flatten(1, 2)


def plain_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`attend_backward` as it is defined. A softmax's gradient is p·(dp − Σ p·dp), and Σ p·dp = grad · out."""
    heads = (k.shape[1], -1)
    grouped = grad.unflatten(1, heads)
    mean = (grad * out).sum(-1, keepdim=True).unflatten(1, heads)
    shares = (_scores(q, k, causal) - lse.unflatten(1, heads).unsqueeze(-1)).exp()
    slopes = (shares * (grouped @ v.unsqueeze(2).mT - mean) / math.sqrt(q.shape[-1])).to(q.dtype)
    return (
        (slopes @ k.unsqueeze(2)).flatten(1, 2),
        (slopes.mT @ q.unflatten(1, heads)).sum(2),
        (shares.to(grad.dtype).mT @ grouped).sum(2),
    )


def _scores(q: Tensor, k: Tensor, causal: bool) -> Tensor:
    """q·kᵀ/√d [B, K, H/K, T, S] in float32 or better, −∞ where a query may not look."""
    scores = (q.unflatten(1, (k.shape[1], -1)) @ k.unsqueeze(2).mT) / math.sqrt(q.shape[-1])
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    return scores


def _flash_takes(q: Tensor) -> bool:
    """Whether torch's flash attention on CUDA takes it: 16 bits, heads of a multiple of 8."""
    return q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] % 8 == 0
