"""Attention forward: one program a block of queries, which passes over the keys once with a running softmax.

Online softmax after M. Milakov, N. Gimelshein, arXiv:1805.02867; blocked over queries as in T. Dao, FlashAttention-2,
arXiv:2307.08691. Scores are kept as they leave the product; the scale is folded into the exponent, and exp(x) is
2^(x·log₂e), which the hardware has.
"""

import functools
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from smml.kernels import operands, tuning
from smml.kernels.flash_attention import tiles
from smml.kernels.flash_attention.tiles import block_and_head, load_tile, product
from smml.kernels.interpreter import cast

LOG2_E = math.log2(math.e)


@triton.jit
def _attend(
    tile,
    k,
    v,
    acc,
    m,
    total,
    batch,
    kv_head,
    row,
    begin,
    end,
    S,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    scale_log2,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr,
    N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    TMA: tl.constexpr,
):
    """Blocks begin…end of keys: acc [M, D], maximum m and sum total [M] with them; MASKED looks at each score's place."""
    for j in range(begin, end):
        keys = load_tile(
            k, batch, kv_head, j * N, S, k_batch, k_head, k_row, N, BLOCK_D, HEAD_DIM, TMA
        )
        s = product(tile, keys.T, tl.zeros((tile.shape[0], N), tl.float32))  # [M, N]
        if MASKED:
            key = j * N + tl.arange(0, N)
            visible = (key < S)[None, :]
            if CAUSAL:
                visible = visible & (key[None, :] <= row[:, None])
            s = tl.where(visible, s, float("-inf"))
        maximum = tl.maximum(m, tl.max(s, 1))
        # A row that has met only −Inf so far stays at weight 0 instead of NaN.
        shift = tl.where(maximum == float("-inf"), 0.0, maximum * scale_log2)
        p = tl.exp2(s * scale_log2 - shift[:, None])
        alpha = tl.exp2(m * scale_log2 - shift)  # what was summed so far, under the new maximum
        m, total = maximum, total * alpha + tl.sum(p, 1)
        values = load_tile(
            v, batch, kv_head, j * N, S, v_batch, v_head, v_row, N, BLOCK_D, HEAD_DIM, TMA
        )
        acc = product(cast(p, tile.dtype), values, acc * alpha[:, None])
    return acc, m, total


@triton.jit
def _forward(
    q,
    k,
    v,
    out,
    lse,
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    heads,
    group,
    T,
    S,
    all_heads,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CAUSAL: tl.constexpr,
    TMA: tl.constexpr,
    TOGETHER: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
):
    block, index = block_and_head(tl.cdiv(T, M), all_heads, TOGETHER, CAUSAL)
    batch, head = index // heads, index % heads
    kv_head = head // group  # [B, K, S, d] is read where it is, by all heads of its group
    first = block * M
    row = first + tl.arange(0, M)  # [M]

    # Blocks of keys that every row sees whole come first, without a mask; then those on the diagonal or at the end.
    seen = tl.minimum(first + M, S) if CAUSAL else S
    blocks = tl.cdiv(seen, N)
    whole = tl.minimum(first + 1, S) // N if CAUSAL else S // N

    tile = load_tile(q, batch, head, first, T, q_batch, q_head, q_row, M, BLOCK_D, HEAD_DIM, TMA)
    acc = tl.zeros((M, BLOCK_D), tl.float32)
    m = tl.full((M,), float("-inf"), tl.float32)
    total = tl.zeros((M,), tl.float32)
    acc, m, total = _attend(
        tile, k, v, acc, m, total, batch, kv_head, row, 0, whole, S, k_batch, k_head, k_row, v_batch, v_head, v_row,
        scale_log2, False, CAUSAL, N, BLOCK_D, HEAD_DIM, TMA,
    )  # fmt: skip
    acc, m, total = _attend(
        tile, k, v, acc, m, total, batch, kv_head, row, whole, blocks, S, k_batch, k_head, k_row, v_batch, v_head, v_row,
        scale_log2, True, CAUSAL, N, BLOCK_D, HEAD_DIM, TMA,
    )  # fmt: skip

    # One reciprocal a row: a division an element would take as long as a block.
    acc *= (1.0 / total)[:, None]
    # Log-sum-exp in nats; all that backward keeps of the softmax.
    nats = (m * scale_log2 + tl.log2(total)) * 0.6931471805599453
    here = index.to(tl.int64) * T + row
    tl.store(lse + here, nats, mask=row < T)
    # out lies as [B, T, H, d], so that the output projection reads its rows as they are.
    d = tl.arange(0, BLOCK_D)
    line = (batch.to(tl.int64) * T + row) * heads + head
    inside = (row < T)[:, None] & (d < HEAD_DIM)[None, :]
    tl.store(
        out + line[:, None] * HEAD_DIM + d[None, :], cast(acc, out.dtype.element_ty), mask=inside
    )


ROWS = {"q": "M", "k": "N", "v": "N"}


def _config(m: int, n: int, warps: int, stages: int) -> triton.Config:
    return triton.Config(
        {"M": m, "N": n},
        num_warps=warps,
        num_stages=stages,
        pre_hook=functools.partial(tiles.shape_blocks, rows=ROWS),
    )


def configs(block_d: int, itemsize: int) -> list[triton.Config]:
    """Tiles of queries × keys for heads of `block_d` columns: two warpgroups of 64 queries each, where they fit."""
    if itemsize == 4:  # three products for one: for checking rather than for speed
        return [_config(64, 64 if block_d <= 64 else 32, 4, 2)]
    if block_d > 128:
        return [_config(128, 64, 8, 2), _config(64, 64, 4, 2)]
    return [
        _config(128, 128, 8, 2),
        _config(128, 64, 8, 3),
        _config(
            64, 64, 4, 3
        ),  # two to a processor: one's products run during the other's exponentials
    ]


@functools.cache
def _tuned(block_d: int, itemsize: int, long: bool) -> triton.runtime.Autotuner:
    return tuning.autotune(configs(block_d, itemsize), key=["HEAD_DIM", "CAUSAL", "TMA"])(_forward)


def forward(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """out [B, H, T, d] in memory as [B, T, H, d], and the scores' log-sum-exp in nats [B, H, T], float32."""
    batch, heads, queries, head_dim = q.shape
    keys = k.shape[2]
    out = empty_out(q)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    if keys == 0:  # a query that sees nothing: no value, log-sum-exp of an empty sum
        return out.zero_(), lse.fill_(-math.inf)
    if not out.numel():
        return out, lse
    q, k, v = (tiles.contiguous_heads(x) for x in (q, k, v))
    block_d, tma = tiles.padded(head_dim), tiles.bulk_copies(q, k, v)
    with operands.on(q):
        _tuned(block_d, q.itemsize, queries >= tiles.LONG)[
            lambda c: (triton.cdiv(queries, c["M"]) * batch * heads,)
        ](
            *(tiles.source(x, tma, block_d) for x in (q, k, v)),
            out,
            lse,
            **tiles.strides("q", q),
            **tiles.strides("k", k),
            **tiles.strides("v", v),
            heads=heads,
            group=heads // k.shape[1],
            T=queries,
            S=keys,
            all_heads=batch * heads,
            scale_log2=LOG2_E / math.sqrt(head_dim),
            HEAD_DIM=head_dim,
            BLOCK_D=block_d,
            CAUSAL=causal,
            TMA=tma,
            TOGETHER=tiles.HEADS_TOGETHER,
        )
    return out, lse


def empty_out(x: Tensor) -> Tensor:
    """An uninitialised tensor like x [B, H, T, d] that lies in memory as [B, T, H, d]."""
    batch, heads, rows, head_dim = x.shape
    return x.new_empty(batch, rows, heads, head_dim).transpose(1, 2)
