"""The short way to context parallel: gather every rank's keys and values, then attend (arXiv:2407.21783, section 3.3.2).

What ring attention is held against. It computes the same blocks. Forward it receives the same bytes, before the work
instead of beside it, backward half as many, and it holds keys and values of the whole sequence on every rank, for every
layer until backward.
"""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

from smml.parallel.block_attention import attend_more, attend_more_backward_
from smml.parallel.ring_attention import check
from smml.parallel.sequence_order import seen


def gather_attention(
    q: Tensor, k: Tensor, v: Tensor, order: str = "zigzag", group: ProcessGroup | None = None
) -> Tensor:
    """Causal attention of this rank's queries to the keys of all ranks, with the arguments of ring_attention."""
    check(q, k, v, order)
    return _GatherAttention.apply(q, k, v, order, group)


class _GatherAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, order: str, group: ProcessGroup | None
    ) -> Tensor:
        rank, ranks = distributed.get_rank(group), distributed.get_world_size(group)
        mine = torch.stack((k, v))  # [2, B, K, t, d]
        whole = mine.new_empty(ranks, *mine.shape)
        distributed.all_gather_into_tensor(whole.flatten(0, 1), mine, group=group)
        so_far = None
        for source in (rank, *range(rank), *range(rank + 1, ranks)):  # its own, all see, first
            if part := seen(order, rank, source, q.shape[2]):
                so_far = attend_more(so_far, q, whole[source], part)
        out, lse = so_far[0].to(q.dtype), so_far[1]
        ctx.save_for_backward(q, out, lse, whole)
        ctx.order, ctx.group = order, group
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *saved, whole = ctx.saved_tensors
        q, _, lse = saved
        rank = distributed.get_rank(ctx.group)
        grad, grad_q = grad.contiguous(), torch.zeros_like(q, dtype=lse.dtype)
        grad_whole = torch.zeros_like(whole, dtype=lse.dtype)
        for source, (kv, grad_kv) in enumerate(zip(whole, grad_whole, strict=True)):
            if part := seen(ctx.order, rank, source, q.shape[2]):
                attend_more_backward_(grad_q, grad_kv, grad, saved, kv, part)
        home = torch.empty_like(grad_whole[0])
        distributed.reduce_scatter_tensor(home, grad_whole.flatten(0, 1), group=ctx.group)
        grad_k, grad_v = home.to(q.dtype)
        return grad_q.to(q.dtype), grad_k, grad_v, None, None
