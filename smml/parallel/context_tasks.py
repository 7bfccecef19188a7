"""Tasks for workers: the attention that a rank of context parallel has to compute, without what it sends."""

import time
from collections.abc import Callable

import torch
from torch import distributed

from smml.parallel import block_attention
from smml.parallel.collective_tasks import device
from smml.parallel.sequence_order import seen


def attention_seconds(
    order: str,
    ranks: int,
    batch: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    tokens: int,
    in_turns: bool = True,
    samples: int = 5,
) -> list[float]:
    """Seconds of forward and backward of the blocks that this rank computes of a sequence cut over `ranks`.

    Ranks beyond those compute what the last of them does. `in_turns` one rank works while the others wait, so that
    ranks that share cores do not slow each other down; else all work at once.
    """
    rank, size = distributed.get_rank(), distributed.get_world_size()
    call = blocks(order, min(rank, ranks - 1), ranks, batch, heads, kv_heads, head_dim, tokens)
    call()
    found = []
    for _ in range(samples):
        for turn in range(size if in_turns else 1):
            distributed.barrier()
            if turn == rank or not in_turns:
                start = time.perf_counter()
                call()
                if device() == "cuda":
                    torch.cuda.synchronize()
                found.append(time.perf_counter() - start)
    distributed.barrier()
    return found


def blocks(
    order: str,
    rank: int,
    ranks: int,
    batch: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    tokens: int,
) -> Callable[[], None]:
    """Forward and backward of every block of a rank, on random numbers, as ring attention does them."""
    mine = tokens // ranks
    generator = torch.Generator(device=device()).manual_seed(rank)

    def random(count: int) -> torch.Tensor:
        shape = (batch, count, mine, head_dim)
        return torch.randn(shape, device=device(), generator=generator)

    q, k, v, grad = random(heads), random(kv_heads), random(kv_heads), random(heads)

    def call() -> None:
        for source in range(ranks):
            if part := seen(order, rank, source, mine):
                rows, columns, causal = part
                there, keys, values = q[:, :, rows], k[:, :, columns], v[:, :, columns]
                out, lse = block_attention.attend(there, keys, values, causal)
                block_attention.attend_backward(
                    grad[:, :, rows], there, keys, values, out, lse, causal
                )

    return call
