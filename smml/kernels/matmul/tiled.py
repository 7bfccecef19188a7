"""Rung 2: a program for each tile of C. A tile of A serves all columns of it, a tile of B all rows."""

import triton
import triton.language as tl
from torch import Tensor

from smml.kernels import operands
from smml.kernels.interpreter import cast, dot
from smml.kernels.matmul import problem
from smml.kernels.resources import Build

TILE = (128, 128)  # rows and columns of C a program
ROW_BYTES = 128  # of a tile of A along K: the widest row that shared memory swizzles
WARPS = {
    2: 4,
    4: 8,
}  # by bytes an element: float32 stays off the matrix units and needs more threads


@triton.jit
def tile_product(
    a_ptr, b_ptr, row, column, m, n, k, stride_am, stride_ak, stride_bk, stride_bn,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Tile (row, column) of A·B in float32 [BLOCK_M, BLOCK_N]; what lies outside A and B counts as zero."""
    # 64 bits from here on: m·stride passes 2³¹ for matrices that a GPU holds easily.
    rows = row.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = column.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K).to(tl.int64)
    a_ptrs = a_ptr + rows[:, None] * stride_am + inner[None, :] * stride_ak  # [BLOCK_M, BLOCK_K]
    b_ptrs = b_ptr + inner[:, None] * stride_bk + columns[None, :] * stride_bn  # [BLOCK_K, BLOCK_N]
    step = tl.full([], BLOCK_K, tl.int64)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, k, BLOCK_K):
        left = k - start
        # Reads BLOCK_M·BLOCK_K + BLOCK_K·BLOCK_N elements for BLOCK_M·BLOCK_N·BLOCK_K multiply-adds.
        a = tl.load(a_ptrs, mask=(rows < m)[:, None] & (inner < left)[None, :], other=0.0)
        b = tl.load(b_ptrs, mask=(inner < left)[:, None] & (columns < n)[None, :], other=0.0)
        total = dot(a, b, total)
        a_ptrs += step * stride_ak
        b_ptrs += step * stride_bk
    return total


@triton.jit
def store_tile(c_ptr, total, row, column, m, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Write the part of a tile that lies inside C [m, n], contiguous; writes each element once."""
    rows = row.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = column.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (rows < m)[:, None] & (columns < n)[None, :]
    c_ptrs = c_ptr + rows[:, None] * n + columns[None, :]
    tl.store(c_ptrs, cast(total, c_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _tiled(
    a_ptr, b_ptr, c_ptr, m, n, k, stride_am, stride_ak, stride_bk, stride_bn,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    tiles_n = tl.cdiv(n, BLOCK_N)
    row, column = tl.program_id(0) // tiles_n, tl.program_id(0) % tiles_n
    total = tile_product(
        a_ptr, b_ptr, row, column, m, n, k, stride_am, stride_ak, stride_bk, stride_bn,
        BLOCK_M, BLOCK_N, BLOCK_K,
    )  # fmt: skip
    store_tile(c_ptr, total, row, column, m, n, BLOCK_M, BLOCK_N)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a [M, K] · b [K, N], accumulated in float32, in their dtype. Not differentiable.

    Raises UserError for operands that do not fit each other.
    """
    c = problem.result("matmul.tiled", a, b)
    if c.numel():
        tiles = triton.cdiv(c.shape[0], TILE[0]) * triton.cdiv(c.shape[1], TILE[1])
        with operands.on(a):
            _tiled[(tiles,)](
                a, b, c, *c.shape, a.shape[1], *a.stride(), *b.stride(), **_launch(a.itemsize)
            )
    return c


def _launch(itemsize: int) -> dict[str, int]:
    """Tile and warps; one stage: nothing is fetched ahead."""
    block = {"BLOCK_M": TILE[0], "BLOCK_N": TILE[1], "BLOCK_K": ROW_BYTES // itemsize}
    return block | {"num_warps": WARPS[itemsize], "num_stages": 1}


def pointer_build(name: str, kernel: object, launch: dict[str, int], dtype: str) -> Build:
    """The build of a kernel with this file's pointer arguments, B stored as [N, K] as a linear layer's weight is."""
    signature = dict.fromkeys(("a_ptr", "b_ptr", "c_ptr"), f"*{dtype}")
    signature |= dict.fromkeys(("m", "n", "k", "stride_am", "stride_bn", "m_bucket"), "i32")
    constants = {"stride_ak": 1, "stride_bk": 1} | launch
    warps, stages = constants.pop("num_warps"), constants.pop("num_stages")
    return Build(name, kernel, signature, constants, warps, stages)


def builds() -> list[Build]:
    """What is compiled without a GPU."""
    return [
        pointer_build(f"matmul/tiled/{dtype}", _tiled, _launch(size), dtype)
        for dtype, size in (("bf16", 2), ("fp32", 4))
    ]
