"""Tiles of queries, keys and values: how a kernel reads one, in which order programs take them, which descriptors serve.

Every tensor is a view [B, heads, rows, d] with any strides whose head dimension is contiguous. On Hopper and later a
tile is fetched by one bulk copy through a tensor descriptor (TMA), which fills what lies outside with zeros.
"""

from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from smml import triton_mode
from smml.kernels.interpreter import INTERPRETED, dot

# Heads whose blocks run at the same time: enough that the longest blocks of a causal product all start early, few
# enough that the keys and values that they share stay in the L2 cache.
HEADS_TOGETHER = 8
LONG = 1024  # tokens from which tiles are tuned anew: a short sequence, which fills no GPU, prefers small ones


@triton.jit
def load_tile(
    source,
    batch,
    head,
    first,
    count,
    batch_stride,
    head_stride,
    row_stride,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    TMA: tl.constexpr,
):
    """Rows first… of one head, [ROWS, BLOCK_D]; zeros where there is none (before 0, from `count`, beyond HEAD_DIM)."""
    if TMA:
        return source.load([batch, head, first, 0]).reshape(ROWS, BLOCK_D)
    else:  # noqa: RET505 (traced: only one branch exists in a compiled kernel)
        rows = first + tl.arange(0, ROWS)
        column = tl.arange(0, BLOCK_D)
        base = source + batch.to(tl.int64) * batch_stride + head.to(tl.int64) * head_stride
        inside = ((rows >= 0) & (rows < count))[:, None] & (column < HEAD_DIM)[None, :]
        offsets = rows.to(tl.int64)[:, None] * row_stride + column[None, :]
        return tl.load(base + offsets, mask=inside, other=0.0)


@triton.jit
def product(a, b, acc):
    """acc + a·b in float32 on the matrix units; float32 operands as three products of tf32, an error of about 1e-6.

    Multiplied one by one, two whole tiles of float32 do not fit into the registers.
    """
    if INTERPRETED:
        return dot(a, b, acc)
    else:  # noqa: RET505 (traced: only one branch exists in a compiled kernel)
        return tl.dot(a, b, acc, input_precision="tf32x3")


@triton.jit
def block_and_head(blocks, heads, TOGETHER: tl.constexpr, LAST_FIRST: tl.constexpr):
    """This program's (block, head): TOGETHER heads in turn, blocks ascending or, LAST_FIRST, descending.

    The longest blocks of a causal product go first, so that no processor is left with one at the end.
    """
    program = tl.program_id(0)
    section = program // (TOGETHER * blocks)
    first = section * TOGETHER
    together = tl.minimum(heads - first, TOGETHER)
    inside = program % (TOGETHER * blocks)
    block, head = inside // together, first + inside % together
    if LAST_FIRST:
        block = blocks - 1 - block
    return block, head


def contiguous_heads(x: Tensor) -> Tensor:
    """x [B, heads, rows, d] as it stands where its head dimension is contiguous, else a copy."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def bulk_copies(*tensors: Tensor) -> bool:
    """Whether descriptors can serve all of these: Hopper or later, 16-byte aligned, no zero strides.

    Interpreted, alignment alone decides, so that both ways are walked without a GPU.
    """
    device = tensors[0]
    able = triton_mode.INTERPRETED or torch.cuda.get_device_capability(device.device)[0] >= 9
    return able and all(map(_aligned, tensors))


def _aligned(x: Tensor) -> bool:
    strides = x.stride()[:-1]
    return x.data_ptr() % 16 == 0 and all(s > 0 and s * x.itemsize % 16 == 0 for s in strides)


def source(x: Tensor, tma: bool, block_d: int) -> Tensor | TensorDescriptor:
    """What a kernel is given for x: a descriptor, whose rows a block each configuration sets, or x itself."""
    if not tma:
        return x
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, 1, block_d])


def shape_blocks(arguments: Mapping[str, Any], rows: Mapping[str, str]) -> None:
    """Give the descriptors among `arguments` the rows of a block: name → name of the constant that holds them."""
    for name, constant in rows.items():
        if isinstance(arguments[name], TensorDescriptor):
            arguments[name].block_shape[2] = arguments[constant]


def padded(head_dim: int) -> int:
    """Columns of a tile: a power of two that the matrix units take, ≥ 16."""
    return max(16, triton.next_power_of_2(head_dim))


def strides(prefix: str, x: Tensor) -> dict[str, int]:
    """Arguments prefix_batch, prefix_head and prefix_row of a kernel: strides of x in elements."""
    names = (f"{prefix}_batch", f"{prefix}_head", f"{prefix}_row")
    return dict(zip(names, x.stride()[:3], strict=True))
