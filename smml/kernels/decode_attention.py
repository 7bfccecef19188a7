"""Attention of one new token a sequence over its cached keys and values, paged or contiguous, split over the sequence.

A decode step reads every key and value once and does next to nothing with them, so the memory must be kept busy by
all of the GPU: each sequence is cut into splits, each split keeps its own softmax, and a second kernel merges them
(flash-decoding; the online softmax is that of arXiv:2205.14135). The query heads that share a key-value head are the
rows of one tile, so that its keys and values are read once (arXiv:2305.13245).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands
from smml.kernels.interpreter import cast, dot
from smml.kernels.resources import Build
from smml.kernels.tuning import autotune
from smml.kernels.waves import processors, splits_for
from smml.roofline import Work

OP = "decode_attention"  # in errors
WIDEST_HEAD = 256
LARGEST_GROUP = 64  # query heads of one key-value head: the rows of a tile
GRANULE = 128  # splits start at multiples of this many tokens; every BLOCK_N divides it
PROGRAMS_PER_PROCESSOR = 2  # that their shared memory leaves room for
MOST_SPLITS = 128
LONG = 4096  # tokens that a cache can hold from which tiles are tuned anew

# A page of 16 tokens is found before it is read: one stage more. 8 warps carry float32; of its widest heads, 16 fit.
CONFIGS = [
    triton.Config({"BLOCK_N": block}, num_warps=warps, num_stages=stages)
    for block, warps, stages in ((64, 4, 3), (64, 4, 5), (64, 8, 4), (128, 8, 3), (16, 8, 2))
]


@triton.jit
def _split(
    q_ptr, k_ptr, v_ptr, table_ptr, lengths_ptr, acc_ptr, stats_ptr,
    q_batch, q_head, k_page, k_slot, k_head, v_page, v_slot, v_head, table_batch,
    kv_heads, head_dim, pages, capacity, splits, scale_log2,
    GROUP: tl.constexpr, PAGE: tl.constexpr, GRANULE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    split, kv_head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    length = capacity
    if lengths_ptr is not None:
        # A length that the table cannot hold makes no split; `_merge` gives it NaN.
        length = tl.load(lengths_ptr + batch)
        length = tl.where((length >= 0) & (length <= capacity), length, 0)
    share = tl.cdiv(tl.cdiv(length, splits), GRANULE) * GRANULE
    start = split * share
    end = tl.minimum(start + share, length)
    if start >= end:
        return
    row, d, column = tl.arange(0, ROWS), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    head = kv_head * GROUP + row
    tile = (row < GROUP)[:, None] & (d < head_dim)[None, :]
    q = tl.load(q_ptr + batch * q_batch + head[:, None] * q_head + d[None, :], mask=tile, other=0.0)
    m = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, BLOCK_D], tl.float32)
    k_ptr += kv_head.to(tl.int64) * k_head
    v_ptr += kv_head.to(tl.int64) * v_head
    table_ptr += batch * table_batch
    for first in range(start, end, BLOCK_N):
        position = first + column
        inside = position < end
        if PAGE == 0:  # contiguous: the sequence is its own page
            page, slot, known = batch, position.to(tl.int64), inside
        else:
            if PAGE % BLOCK_N == 0:  # one page holds the whole tile
                page = tl.load(table_ptr + first // PAGE).to(tl.int64)
            else:
                page = tl.load(table_ptr + position // PAGE, mask=inside, other=0).to(tl.int64)
            slot = (position % PAGE).to(tl.int64)
            known = inside & (page >= 0) & (page < pages)
        load = known[:, None] & (d < head_dim)[None, :]
        # Reads BLOCK_N rows of keys, then of values, once for all GROUP heads.
        k = tl.load(
            k_ptr + (page * k_page + slot * k_slot)[:, None] + d[None, :], mask=load, other=0.0
        )
        scores = dot(q, tl.trans(k), tl.zeros([ROWS, BLOCK_N], tl.float32)) * scale_log2
        if PAGE != 0:  # a page that does not exist is no zero
            scores = tl.where(known[None, :], scores, float("nan"))
        scores = tl.where(inside[None, :], scores, float("-inf"))
        # A tile of −Inf alone has weight 0: −Inf − (−Inf) would make it NaN.
        larger = tl.maximum(m, tl.max(scores, 1))
        shift = tl.where(larger == float("-inf"), 0.0, larger)
        p = tl.exp2(scores - shift[:, None])
        rescale = tl.exp2(m - shift)
        total = total * rescale + tl.sum(p, 1)
        v = tl.load(
            v_ptr + (page * v_page + slot * v_slot)[:, None] + d[None, :], mask=load, other=0.0
        )
        acc = dot(cast(p, v.dtype), v, acc * rescale[:, None])
        m = larger
    # Writes GROUP rows of d + 2 numbers.
    place = (batch * kv_heads * GROUP + head) * splits + split
    tl.store(acc_ptr + place[:, None] * head_dim + d[None, :], acc, mask=tile)
    tl.store(stats_ptr + place * 2, m, mask=row < GROUP)
    tl.store(stats_ptr + place * 2 + 1, total, mask=row < GROUP)


_tuned = [autotune(CONFIGS, key=["head_dim", "GROUP", "PAGE"])(_split) for _ in range(2)]


@triton.jit
def _merge(
    acc_ptr, stats_ptr, lengths_ptr, out_ptr, heads, head_dim, capacity, splits,
    GRANULE: tl.constexpr, SPLITS: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)  # batch · H + head
    d, every = tl.arange(0, BLOCK_D), tl.arange(0, SPLITS)
    length, wrong = capacity, False
    if lengths_ptr is not None:
        length = tl.load(lengths_ptr + row // heads)
        wrong = (length < 0) | (length > capacity)
        length = tl.where(wrong, 0, length)
    share = tl.cdiv(tl.cdiv(length, splits), GRANULE) * GRANULE
    made = tl.cdiv(length, tl.maximum(share, 1))  # splits that were written
    stats_ptr += row * splits * 2
    acc_ptr += row * splits * head_dim
    m = tl.load(stats_ptr + every * 2, mask=every < made, other=float("-inf"))
    largest = tl.max(m, 0)
    largest = tl.where(largest == float("-inf"), 0.0, largest)
    total = tl.sum(
        tl.exp2(m - largest) * tl.load(stats_ptr + every * 2 + 1, mask=every < made, other=0.0), 0
    )
    acc = tl.zeros([BLOCK_D], tl.float32)
    for first in range(0, made, BLOCK_S):
        split = first + tl.arange(0, BLOCK_S)
        weight = tl.exp2(
            tl.load(stats_ptr + split * 2, mask=split < made, other=float("-inf")) - largest
        )
        mask = (split < made)[:, None] & (d < head_dim)[None, :]
        part = tl.load(acc_ptr + split[:, None] * head_dim + d[None, :], mask=mask, other=0.0)
        acc += tl.sum(part * weight[:, None], 0)
    out = acc / tl.where(length == 0, 1.0, total)
    out = tl.where(wrong, float("nan"), out)
    tl.store(out_ptr + row * head_dim + d, cast(out, out_ptr.dtype.element_ty), mask=d < head_dim)


def decode_attention(
    q: Tensor, keys: Tensor, values: Tensor, block_table: Tensor, lengths: Tensor
) -> Tensor:
    """softmax(q·kᵀ/√d)·v of one new token a sequence over a paged cache: [B, H, d] in the dtype of q.

    q [B, H, d]; keys and values [pages, page_size, K, d], K dividing H; block_table [B, max_pages] int32 holds the
    pages of each sequence in order, lengths [B] int32 its tokens. A sequence of length 0 gives zeros. A length that
    the table cannot hold, or a page that does not exist, gives NaN: neither can be looked at before the launch
    without waiting for the GPU. Not differentiable. Raises UserError for shapes, dtypes and devices that do not fit.
    """
    _check(q, keys, values, lengths)
    _integers(q, "block_table", block_table, (q.shape[0], "max_pages"))
    return _decode_attention(q, keys, values, lengths, block_table)


def decode_attention_contiguous(
    q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None = None
) -> Tensor:
    """The same over a contiguous cache: keys and values [B, K, S, d] of any strides, as `StaticCache` gives them.

    lengths [B] int32 (default: S for all). Raises as `decode_attention` does.
    """
    if keys.dim() != 4 or values.dim() != 4:
        raise UserError(
            f"{OP}: keys and values have shapes {list(keys.shape)} and {list(values.shape)}; must be [B, K, S, d]."
        )
    # A sequence as its own page of S slots.
    keys, values = keys.transpose(1, 2), values.transpose(1, 2)
    _check(q, keys, values, lengths)
    if keys.shape[0] != q.shape[0]:
        raise UserError(
            f"{OP}: keys hold {keys.shape[0]} sequences and q {q.shape[0]}: they must be equal."
        )
    return _decode_attention(q, keys, values, lengths, None)


def _check(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None) -> None:
    operands.check(OP, q=q, keys=keys, values=values)
    operands.shape(OP, "q", q, ("B", "H", "d"))
    operands.shape(OP, "keys", keys, ("pages", "page_size", "K", q.shape[2]))
    operands.shape(OP, "values", values, tuple(keys.shape))
    if lengths is not None:
        _integers(q, "lengths", lengths, (q.shape[0],))
    heads, kv_heads, head_dim = q.shape[1], keys.shape[2], q.shape[2]
    if kv_heads == 0 or heads % kv_heads or heads // kv_heads > LARGEST_GROUP:
        raise UserError(
            f"{OP}: {heads} query heads and {kv_heads} key-value heads: must be 1…{LARGEST_GROUP} times as many."
        )
    if not 1 <= head_dim <= WIDEST_HEAD:
        raise UserError(f"{OP}: heads of {head_dim} elements; 1…{WIDEST_HEAD} are allowed.")


def _integers(q: Tensor, name: str, tensor: Tensor, shape: tuple[int | str, ...]) -> None:
    operands.same_device(OP, q=q, **{name: tensor})
    operands.shape(OP, name, tensor, shape)
    if tensor.dtype != torch.int32:
        raise UserError(
            f"{OP}: {name} is {operands.short(tensor.dtype)}; it must be int32: convert it with .int()."
        )


@torch.library.custom_op("smml::decode_attention", mutates_args=())
def _decode_attention(
    q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None, block_table: Tensor | None
) -> Tensor:
    batch, heads, head_dim = q.shape
    pages, page_size, kv_heads, _ = keys.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if not out.numel():
        return out
    q, keys, values = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, keys, values))
    lengths = None if lengths is None else lengths.contiguous()
    table = q if block_table is None else block_table  # any pointer, where none is followed
    table = table if table.stride(-1) == 1 else table.contiguous()
    capacity = page_size if block_table is None else table.shape[1] * page_size
    # How long each sequence is now, the GPU alone knows: one that is short fills fewer splits.
    most = min(MOST_SPLITS, triton.cdiv(capacity, GRANULE))
    splits = splits_for(batch * kv_heads, most, PROGRAMS_PER_PROCESSOR * processors(q.device))
    acc = torch.empty(batch, heads, splits, head_dim, dtype=torch.float32, device=q.device)
    stats = torch.empty(batch, heads, splits, 2, dtype=torch.float32, device=q.device)
    group, block_d = heads // kv_heads, max(triton.next_power_of_2(head_dim), 16)
    with operands.on(q):
        _tuned[capacity >= LONG][(splits, kv_heads, batch)](
            q, keys, values, table, lengths, acc, stats,
            *q.stride()[:2], *keys.stride()[:3], *values.stride()[:3], table.stride(0),
            kv_heads, head_dim, pages, capacity, splits, math.log2(math.e) / math.sqrt(head_dim),
            GROUP=group, PAGE=0 if block_table is None else page_size, GRANULE=GRANULE,
            ROWS=max(triton.next_power_of_2(group), 16), BLOCK_D=block_d,
        )  # fmt: skip
        _merge[(batch * heads,)](
            acc, stats, lengths, out, heads, head_dim, capacity, splits,
            GRANULE=GRANULE, SPLITS=triton.next_power_of_2(splits), BLOCK_S=8, BLOCK_D=block_d,
        )  # fmt: skip
    return out


@_decode_attention.register_fake
def _(
    q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None, block_table: Tensor | None
) -> Tensor:
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)


def gather(pages: Tensor, block_table: Tensor, lengths: Tensor) -> Tensor:
    """The cache pages [pages, page_size, K, d] of each sequence in order, contiguous: [B, K, longest, d]."""
    longest = int(lengths.max())
    rows = pages[block_table.long()]  # [B, max_pages, page_size, K, d]
    return rows.flatten(1, 2)[:, :longest].transpose(1, 2)


def reference(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor) -> Tensor:
    """The same in plain PyTorch over contiguous keys and values [B, K, S, d] (see `gather`)."""
    inside = torch.arange(keys.shape[2], device=q.device) < lengths[:, None]  # [B, S]
    k, v = (t.masked_fill(~inside[:, None, :, None], 0.0) for t in (keys, values))
    out = F.scaled_dot_product_attention(
        q[:, :, None], k, v, inside[:, None, None], enable_gqa=q.shape[1] != k.shape[1]
    )
    return torch.where(lengths[:, None, None] == 0, 0.0, out[:, :, 0])


def work(lengths: Sequence[int], heads: int, kv_heads: int, head_dim: int, itemsize: int) -> Work:
    """4·H·d FLOPs a cached token; its keys and values read once, queries read, the result written.

    The table's 4 bytes a page and the partial results, which stay in the caches, are left out.
    """
    tokens = sum(lengths)
    vectors = len(lengths) * heads * head_dim * itemsize
    cached = 2 * tokens * kv_heads * head_dim * itemsize
    return Work(4 * tokens * heads * head_dim, cached + vectors, vectors, vectors, 2)


def builds() -> list[Build]:
    """What is compiled without a GPU: pages of 16 and 128 tokens, a contiguous cache, and the merge."""
    found = []
    for page, dtype in ((16, "bf16"), (128, "bf16"), (0, "bf16"), (0, "fp32")):
        pointers = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr"), f"*{dtype}")
        pointers |= {"table_ptr": "*i32", "lengths_ptr": "*i32"}
        pointers |= {"acc_ptr": "*fp32", "stats_ptr": "*fp32", "scale_log2": "fp32"}
        constants = {"GROUP": 4, "PAGE": page, "GRANULE": GRANULE, "ROWS": 16}
        widest = {"BLOCK_D": WIDEST_HEAD, "BLOCK_N": 16}  # in float32, what fits
        constants |= widest if dtype == "fp32" else {"BLOCK_D": 128, "BLOCK_N": 64}
        signature = {name: pointers.get(name, "i32") for name in _split.arg_names}
        name = f"decode_attention/{'contiguous' if page == 0 else f'page-{page}'}/{dtype}"
        odd = ("table_batch", "kv_heads", "pages", "splits")
        warps, stages = (8, 2) if dtype == "fp32" else (4, 5 if page == 16 else 3)
        constants |= {} if page else {"lengths_ptr": None}
        found.append(Build(name, _split, signature, constants, warps, stages, odd=odd))
    pointers = dict.fromkeys(("acc_ptr", "stats_ptr"), "*fp32")
    pointers |= {"lengths_ptr": "*i32", "out_ptr": "*bf16"}
    signature = {name: pointers.get(name, "i32") for name in _merge.arg_names}
    constants = {"GRANULE": GRANULE, "SPLITS": 64, "BLOCK_S": 8, "BLOCK_D": 128}
    found.append(Build("decode_attention/merge/bf16", _merge, signature, constants))
    return found
