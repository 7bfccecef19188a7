"""Sequence parallel by all-to-all: a rank trades its tokens of all heads for all tokens of its heads (arXiv:2309.14509).

Attention of a head needs the whole sequence, and nothing of other heads. So before it the ranks exchange: [B, N, T/p, d]
becomes [B, N/p, T, d]; any attention runs on that, and its result goes the way back. Sent by a rank, per layer and
direction: (p − 1)/p of 2(H + K)·d numbers of each of its T/p tokens, which falls with p where ring attention's does not.
But no more ranks than key-value heads can take part.
"""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

from smml.llama import ops
from smml.parallel.equal_shares import must_divide


def ulysses_attention(
    q: Tensor, k: Tensor, v: Tensor, order: str = "contiguous", group: ProcessGroup | None = None
) -> Tensor:
    """Causal attention of this rank's queries to the keys of all ranks; q → [B, H, t, d], k and v [B, K, t, d].

    Raises UserError for heads that the ranks do not divide, and for another order: what is gathered must be in sequence.
    """
    ranks = distributed.get_world_size(group)
    must_divide(ranks, heads=q.shape[1], kv_heads=k.shape[1])
    q, k, v = (_HeadsForTokens.apply(x, group) for x in (q, k, v))  # [B, N/p, T, d]
    return _TokensForHeads.apply(ops.attention(q, k, v, None, True), group)


def heads_for_tokens(x: Tensor, group: ProcessGroup | None) -> Tensor:
    """[B, N, t, d], this rank's tokens of all heads → [B, N/p, T, d], all tokens of this rank's heads."""
    ranks = distributed.get_world_size(group)
    parts = x.unflatten(1, (ranks, -1)).transpose(0, 1)  # [p, B, N/p, t, d], the first for rank 0
    return _exchanged(parts, group).permute(1, 2, 0, 3, 4).flatten(2, 3)


def tokens_for_heads(x: Tensor, group: ProcessGroup | None) -> Tensor:
    """The way back: [B, N/p, T, d] → [B, N, t, d]."""
    ranks = distributed.get_world_size(group)
    parts = x.unflatten(2, (ranks, -1)).permute(2, 0, 1, 3, 4)  # [p, B, N/p, t, d]
    return _exchanged(parts, group).transpose(0, 1).flatten(1, 2)


def _exchanged(parts: Tensor, group: ProcessGroup | None) -> Tensor:
    """Part i to rank i, and what the ranks sent here, in their order."""
    parts = parts.contiguous()
    received = torch.empty_like(parts)
    distributed.all_to_all_single(received, parts, group=group)
    return received


class _HeadsForTokens(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup | None) -> Tensor:
        ctx.group = group
        return heads_for_tokens(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return tokens_for_heads(grad, ctx.group), None


class _TokensForHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup | None) -> Tensor:
        ctx.group = group
        return tokens_for_heads(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return heads_for_tokens(grad, ctx.group), None
