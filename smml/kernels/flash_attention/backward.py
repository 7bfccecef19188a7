"""Attention backward: scores computed again from q, k and the kept log-sum-exp, in one kernel for dq and one for dk, dv.

With P the weights and dP = dO·Vᵀ: dS = P·(dP − Δ), Δ = rowsum(dO·O) − d(lse); dQ = dS·K, dK = dSᵀ·Q, dV = Pᵀ·dO
(T. Dao, FlashAttention-2, arXiv:2307.08691). Each program owns what it writes: no atomics, the same bits every run.
"""

import functools
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from smml.kernels import operands, tuning
from smml.kernels.flash_attention import tiles
from smml.kernels.flash_attention.forward import LOG2_E, empty_out
from smml.kernels.flash_attention.tiles import block_and_head, load_tile, product
from smml.kernels.interpreter import cast


@triton.jit
def _query_blocks(
    q, k, v, do, q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, do_batch, do_head, do_row,
    dq_tile, tile, do_tile, lse2, delta, batch, kv_head, row, begin, end, S, scale_log2,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
    TMA: tl.constexpr,
):  # fmt: skip
    """dq_tile [M, D] with the blocks begin…end of keys added, without the scale."""
    for j in range(begin, end):
        keys = load_tile(
            k, batch, kv_head, j * N, S, k_batch, k_head, k_row, N, BLOCK_D, HEAD_DIM, TMA
        )
        values = load_tile(
            v, batch, kv_head, j * N, S, v_batch, v_head, v_row, N, BLOCK_D, HEAD_DIM, TMA
        )
        zeros = tl.zeros((tile.shape[0], N), tl.float32)
        s = product(tile, keys.T, zeros)  # [M, N]
        p = tl.exp2(s * scale_log2 - lse2[:, None])
        if MASKED:
            key = j * N + tl.arange(0, N)
            visible = (key < S)[None, :]
            if CAUSAL:
                visible = visible & (key[None, :] <= row[:, None])
            p = tl.where(visible, p, 0.0)
        dp = product(do_tile, values.T, zeros)
        ds = p * (dp - delta[:, None])
        dq_tile = product(cast(ds, tile.dtype), keys, dq_tile)
    return dq_tile


@triton.jit
def _dq(
    q, k, v, do, out, dlse, lse, delta, dq,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, do_batch, do_head, do_row,
    heads, group, T, S, all_heads, scale, scale_log2,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, CAUSAL: tl.constexpr, TMA: tl.constexpr,
    WITH_DLSE: tl.constexpr, TOGETHER: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """dq [B, T, H, d] of one block of queries, and its delta [B, H, T] for the other kernel."""
    block, index = block_and_head(tl.cdiv(T, M), all_heads, TOGETHER, CAUSAL)
    batch, head = index // heads, index % heads
    first = block * M
    row = first + tl.arange(0, M)
    d = tl.arange(0, BLOCK_D)
    seen = tl.minimum(first + M, S) if CAUSAL else S
    whole = tl.minimum(first + 1, S) // N if CAUSAL else S // N

    line = (batch.to(tl.int64) * T + row) * heads + head  # out and dq lie as [B, T, H, d]
    places = line[:, None] * HEAD_DIM + d[None, :]
    inside = (row < T)[:, None] & (d < HEAD_DIM)[None, :]
    tile = load_tile(q, batch, head, first, T, q_batch, q_head, q_row, M, BLOCK_D, HEAD_DIM, TMA)
    do_tile = load_tile(
        do, batch, head, first, T, do_batch, do_head, do_row, M, BLOCK_D, HEAD_DIM, TMA
    )
    out_tile = tl.load(out + places, mask=inside, other=0.0)
    here = index.to(tl.int64) * T + row
    row_delta = tl.sum(out_tile.to(tl.float32) * do_tile.to(tl.float32), 1)
    if WITH_DLSE:
        row_delta -= tl.load(dlse + here, mask=row < T, other=0.0)
    tl.store(delta + here, row_delta, mask=row < T)
    lse2 = tl.load(lse + here, mask=row < T, other=float("inf")) * 1.4426950408889634

    acc = tl.zeros((M, BLOCK_D), tl.float32)
    acc = _query_blocks(
        q, k, v, do, q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, do_batch, do_head, do_row,
        acc, tile, do_tile, lse2, row_delta, batch, head // group, row, 0, whole, S, scale_log2,
        False, CAUSAL, N, BLOCK_D, HEAD_DIM, TMA,
    )  # fmt: skip
    acc = _query_blocks(
        q, k, v, do, q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, do_batch, do_head, do_row,
        acc, tile, do_tile, lse2, row_delta, batch, head // group, row, whole, tl.cdiv(seen, N), S, scale_log2,
        True, CAUSAL, N, BLOCK_D, HEAD_DIM, TMA,
    )  # fmt: skip
    tl.store(dq + places, cast(acc * scale, dq.dtype.element_ty), mask=inside)


@triton.jit
def _key_blocks(
    q, do, q_batch, q_head, q_row, do_batch, do_head, do_row, lse, delta,
    dk_tile, dv_tile, keys, values, batch, kv_head, key, begin, count, heads, group, T, scale_log2,
    MASKED: tl.constexpr, M: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """dk_tile and dv_tile [N, D] with `count` blocks of queries from `begin` on added, of every head of the group."""
    for i in range(0, count * group):
        head = kv_head * group + i // count
        first = (begin + i % count) * M
        row = first + tl.arange(0, M)
        queries = load_tile(
            q, batch, head, first, T, q_batch, q_head, q_row, M, BLOCK_D, HEAD_DIM, TMA
        )
        do_tile = load_tile(
            do, batch, head, first, T, do_batch, do_head, do_row, M, BLOCK_D, HEAD_DIM, TMA
        )
        here = (batch * heads + head).to(tl.int64) * T + row
        # Rows beyond T weigh nothing: exp(−Inf) = 0.
        lse2 = tl.load(lse + here, mask=row < T, other=float("inf")) * 1.4426950408889634
        zeros = tl.zeros((keys.shape[0], M), tl.float32)
        # Transposed, [N, M], so that the weights go on as the left operand, from registers.
        s = product(keys, queries.T, zeros)
        p = tl.exp2(s * scale_log2 - lse2[None, :])
        if MASKED:
            p = tl.where(key[:, None] <= row[None, :], p, 0.0)
        dv_tile = product(cast(p, keys.dtype), do_tile, dv_tile)
        dp = product(values, do_tile.T, zeros)
        ds = p * (dp - tl.load(delta + here, mask=row < T, other=0.0)[None, :])
        dk_tile = product(cast(ds, keys.dtype), queries, dk_tile)
    return dk_tile, dv_tile


@triton.jit
def _dk_dv(
    q, k, v, do, lse, delta, dk, dv,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, do_batch, do_head, do_row,
    heads, group, T, S, all_heads, scale, scale_log2,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, CAUSAL: tl.constexpr, TMA: tl.constexpr,
    TOGETHER: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """dk and dv [B, S, K, d] of one block of keys, summed over the heads that share it."""
    block, index = block_and_head(tl.cdiv(S, N), all_heads, TOGETHER, False)
    kv_heads = heads // group
    batch, kv_head = index // kv_heads, index % kv_heads
    first = block * N
    key = first + tl.arange(0, N)
    d = tl.arange(0, BLOCK_D)
    keys = load_tile(k, batch, kv_head, first, S, k_batch, k_head, k_row, N, BLOCK_D, HEAD_DIM, TMA)
    values = load_tile(
        v, batch, kv_head, first, S, v_batch, v_head, v_row, N, BLOCK_D, HEAD_DIM, TMA
    )
    dk_tile = tl.zeros((N, BLOCK_D), tl.float32)
    dv_tile = tl.zeros((N, BLOCK_D), tl.float32)
    # Blocks of queries on the diagonal, then those that see every key here. Keys beyond S only fill rows not stored.
    blocks = tl.cdiv(T, M)
    begin = 0
    whole = 0
    if CAUSAL:
        begin = tl.minimum(first // M, blocks)
        whole = tl.minimum(tl.cdiv(first + N - 1, M), blocks)
        dk_tile, dv_tile = _key_blocks(
            q, do, q_batch, q_head, q_row, do_batch, do_head, do_row, lse, delta,
            dk_tile, dv_tile, keys, values, batch, kv_head, key, begin, whole - begin, heads, group, T, scale_log2,
            True, M, BLOCK_D, HEAD_DIM, TMA,
        )  # fmt: skip
    dk_tile, dv_tile = _key_blocks(
        q, do, q_batch, q_head, q_row, do_batch, do_head, do_row, lse, delta,
        dk_tile, dv_tile, keys, values, batch, kv_head, key, whole, blocks - whole, heads, group, T, scale_log2,
        False, M, BLOCK_D, HEAD_DIM, TMA,
    )  # fmt: skip
    line = (batch.to(tl.int64) * S + key) * kv_heads + kv_head
    places = line[:, None] * HEAD_DIM + d[None, :]
    inside = (key < S)[:, None] & (d < HEAD_DIM)[None, :]
    tl.store(dk + places, cast(dk_tile * scale, dk.dtype.element_ty), mask=inside)
    tl.store(dv + places, cast(dv_tile, dv.dtype.element_ty), mask=inside)


DQ_ROWS = {"q": "M", "do": "M", "k": "N", "v": "N"}


def _config(m: int, n: int, warps: int, stages: int) -> triton.Config:
    shape = functools.partial(tiles.shape_blocks, rows=DQ_ROWS)
    return triton.Config({"M": m, "N": n}, num_warps=warps, num_stages=stages, pre_hook=shape)


def dq_configs(block_d: int, itemsize: int) -> list[triton.Config]:
    """Tiles of queries × keys of the kernel for dq, whose program keeps the queries."""
    if itemsize == 4:  # three products for one: for checking rather than for speed
        return [_config(64, 16, 4, 2)]
    if block_d > 128:
        return [_config(64, 32, 8, 2)]
    return [_config(128, 64, 8, 2), _config(64, 64, 4, 2)]


def dk_dv_configs(block_d: int, itemsize: int) -> list[triton.Config]:
    """Tiles of queries × keys of the kernel for dk and dv, whose program keeps the keys and two sums."""
    if itemsize == 4:
        return [_config(32, 32, 4, 2)]
    if block_d > 128:
        return [_config(16, 64, 8, 2)]
    return [_config(64, 128, 8, 2), _config(64, 64, 4, 2)]


@functools.cache
def _tuned(block_d: int, itemsize: int, long: bool) -> tuple[triton.runtime.Autotuner, ...]:
    key = ["HEAD_DIM", "CAUSAL", "TMA"]
    return (
        tuning.autotune(dq_configs(block_d, itemsize), key=key)(_dq),
        tuning.autotune(dk_dv_configs(block_d, itemsize), key=key)(_dk_dv),
    )


def backward(
    do: Tensor,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk and dv, in memory as [B, T, H, d]; `out` and `lse` as forward left them, dlse [B, H, T] contiguous."""
    batch, heads, queries, head_dim = q.shape
    kv_heads, keys = k.shape[1:3]
    dq, dk, dv = (empty_out(x) for x in (q, k, v))
    if not q.numel() or not k.numel():
        return dq.zero_(), dk.zero_(), dv.zero_()
    q, k, v, do = (tiles.contiguous_heads(x) for x in (q, k, v, do))
    delta = torch.empty_like(lse)
    block_d, tma = tiles.padded(head_dim), tiles.bulk_copies(q, k, v, do)
    dq_kernel, dk_dv_kernel = _tuned(block_d, q.itemsize, queries >= tiles.LONG)
    shared = {
        **tiles.strides("q", q),
        **tiles.strides("k", k),
        **tiles.strides("v", v),
        **tiles.strides("do", do),
        "heads": heads,
        "group": heads // kv_heads,
        "T": queries,
        "S": keys,
        "scale": 1 / math.sqrt(head_dim),
        "scale_log2": LOG2_E / math.sqrt(head_dim),
        "HEAD_DIM": head_dim,
        "BLOCK_D": block_d,
        "CAUSAL": causal,
        "TMA": tma,
        "TOGETHER": tiles.HEADS_TOGETHER,
    }
    with operands.on(q):
        dq_kernel[lambda c: (triton.cdiv(queries, c["M"]) * batch * heads,)](
            *(tiles.source(x, tma, block_d) for x in (q, k, v, do)),
            out, lse if dlse is None else dlse, lse, delta, dq,
            all_heads=batch * heads, WITH_DLSE=dlse is not None, **shared,
        )  # fmt: skip
        dk_dv_kernel[lambda c: (triton.cdiv(keys, c["N"]) * batch * kv_heads,)](
            *(tiles.source(x, tma, block_d) for x in (q, k, v, do)),
            lse, delta, dk, dv, all_heads=batch * kv_heads, **shared,
        )  # fmt: skip
    return dq, dk, dv
