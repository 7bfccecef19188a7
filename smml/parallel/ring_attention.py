"""Ring attention: each rank keeps its queries, and the keys and values of all ranks pass by (arXiv:2310.01889).

In p steps every rank sees every block: it attends to the one it has while it hands it on and the next one comes in.
Partial results are merged by their log-sum-exp. In backward the blocks pass once more, and with each of them travels the
gradient that the ranks so far have given it. No rank ever holds more than two blocks, nor the scores of a block.

Sent by a rank, per layer: 2(p − 1)/p of keys and values of the sequence's K heads in forward (keys and values, (p − 1)
blocks of 1/p), twice that in backward. Heads that share keys do not make copies of them travel.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

from smml.errors import UserError
from smml.parallel.block_attention import attend_more, attend_more_backward_
from smml.parallel.sequence_order import chunks, seen


def ring_attention(
    q: Tensor, k: Tensor, v: Tensor, order: str = "zigzag", group: ProcessGroup | None = None
) -> Tensor:
    """Causal attention of this rank's queries to the keys of all ranks; q → [B, H, t, d], k and v [B, K, t, d].

    Every rank holds t = T/p tokens, those of sequence_order.pieces. All ranks of `group` must call, forward and
    backward. Raises UserError for shapes that do not fit together.
    """
    check(q, k, v, order)
    return _RingAttention.apply(q, k, v, order, group)


def ring_bytes(
    batch: int, tokens: int, kv_dim: int, ranks: int, itemsize: int = 4
) -> tuple[int, int]:
    """Bytes that a rank sends in forward and in backward of one layer; `tokens` of the whole sequence."""
    block = 2 * batch * (tokens // ranks) * kv_dim * itemsize  # keys and values
    return (ranks - 1) * block, 2 * (ranks - 1) * block


def check(q: Tensor, k: Tensor, v: Tensor, order: str) -> None:
    """Raise UserError where these are no queries, keys and values of one rank."""
    number = len(chunks(order, 0, 1))
    fits = q.dim() == k.dim() == 4 and k.shape == v.shape
    fits = fits and (q.shape[0], *q.shape[2:]) == (k.shape[0], *k.shape[2:])
    if not fits or q.shape[1] % k.shape[1] or q.shape[2] % number or not q.numel():
        raise UserError(
            f"q {list(q.shape)}, k {list(k.shape)} and v {list(v.shape)} in {order} order: give [B, H, t, d] and twice "
            f"[B, K, t, d] with H a multiple of K and t of {number}."
        )


class Shift:
    """A tensor on its way to the next rank of the ring, while that of the previous one comes in."""

    def __init__(self, x: Tensor, group: ProcessGroup | None) -> None:
        rank, ranks = distributed.get_rank(group), distributed.get_world_size(group)
        self._sent, self._received = x, torch.empty_like(x)  # both must live until `wait`
        there, from_there = (rank + 1) % ranks, (rank - 1) % ranks
        send, receive = distributed.isend, distributed.irecv
        self._works = distributed.batch_isend_irecv(
            [
                distributed.P2POp(send, x, group=group, group_peer=there),
                distributed.P2POp(receive, self._received, group=group, group_peer=from_there),
            ]
        )

    def wait(self) -> Tensor:
        """What has come in."""
        for work in self._works:
            work.wait()
        return self._received


def passing(kv: Tensor, group: ProcessGroup | None) -> Iterator[tuple[int, Tensor]]:
    """Every rank's block as it comes by, and whose it is, this rank's first; the next one comes in while one is used."""
    rank, ranks = distributed.get_rank(group), distributed.get_world_size(group)
    for step in range(ranks):
        arriving = Shift(kv, group) if step < ranks - 1 else None
        yield (rank - step) % ranks, kv
        if arriving:
            kv = arriving.wait()


class _RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, order: str, group: ProcessGroup | None
    ) -> Tensor:
        rank, tokens = distributed.get_rank(group), q.shape[2]
        mine = torch.stack((k, v))  # [2, B, K, t, d]: one message
        so_far = None
        for source, kv in passing(mine, group):
            if part := seen(order, rank, source, tokens):
                so_far = attend_more(so_far, q, kv, part)
        out, lse = so_far[0].to(q.dtype), so_far[1]
        ctx.save_for_backward(q, out, lse, mine)
        ctx.order, ctx.group = order, group
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *saved, mine = ctx.saved_tensors
        q, _, lse = saved
        rank, tokens = distributed.get_rank(ctx.group), q.shape[2]
        grad, grad_q = grad.contiguous(), torch.zeros_like(q, dtype=lse.dtype)
        travelling: Shift | None = None
        for source, kv in passing(mine, ctx.group):
            grad_kv = torch.zeros_like(kv, dtype=lse.dtype)
            if part := seen(ctx.order, rank, source, tokens):
                attend_more_backward_(grad_q, grad_kv, grad, saved, kv, part)
            if source == rank:
                home = grad_kv  # waits here for what the others add to it
                continue
            if travelling:
                grad_kv += travelling.wait()  # what the ranks before have added to the same block
            travelling = Shift(grad_kv, ctx.group)
        if travelling:
            home += travelling.wait()  # the last block that a rank sees is the next rank's own
        grad_k, grad_v = home.to(q.dtype)
        return grad_q.to(q.dtype), grad_k, grad_v, None, None
