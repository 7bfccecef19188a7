"""Rung 3: the tiles in an order in which those that run at the same time share rows of A and columns of B.

Row by row, a wave of programs reads one row of A's tiles and as many columns of B's as it has programs. In groups of
GROUP_M rows, a wave reads a block that is nearly square, and its tiles come from the L2 cache more often.
"""

import triton
import triton.language as tl
from torch import Tensor

from smml.kernels import operands
from smml.kernels.matmul import problem, tiled
from smml.kernels.matmul.tiled import store_tile, tile_product
from smml.kernels.resources import Build

TILE = tiled.TILE
GROUP_M = 8  # rows of tiles a group


@triton.jit
def tile_at(number, tiles_m, tiles_n, GROUP_M: tl.constexpr):
    """Row and column of the tile that is the `number`th to start; `traffic.grouped` is the same in Python."""
    group = number // (GROUP_M * tiles_n)
    height = tl.minimum(tiles_m - group * GROUP_M, GROUP_M)  # the last group may be lower
    within = number % (GROUP_M * tiles_n)
    return group * GROUP_M + within % height, within // height


@triton.jit
def ordered_kernel(
    a_ptr, b_ptr, c_ptr, m, n, k, stride_am, stride_ak, stride_bk, stride_bn, m_bucket,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """One tile of C. `m_bucket` is not read: the next rung tunes by it."""
    row, column = tile_at(tl.program_id(0), tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N), GROUP_M)
    total = tile_product(
        a_ptr, b_ptr, row, column, m, n, k, stride_am, stride_ak, stride_bk, stride_bn,
        BLOCK_M, BLOCK_N, BLOCK_K,
    )  # fmt: skip
    store_tile(c_ptr, total, row, column, m, n, BLOCK_M, BLOCK_N)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a [M, K] · b [K, N], accumulated in float32, in their dtype. Not differentiable.

    Raises UserError for operands that do not fit each other.
    """
    c = problem.result("matmul.l2_ordered", a, b)
    if c.numel():
        tiles = triton.cdiv(c.shape[0], TILE[0]) * triton.cdiv(c.shape[1], TILE[1])
        with operands.on(a):
            ordered_kernel[(tiles,)](
                a, b, c, *c.shape, a.shape[1], *a.stride(), *b.stride(), 1, **_launch(a.itemsize)
            )
    return c


def _launch(itemsize: int) -> dict[str, int]:
    return tiled._launch(itemsize) | {"GROUP_M": GROUP_M}


def builds() -> list[Build]:
    """What is compiled without a GPU."""
    return [tiled.pointer_build("matmul/l2_ordered/bf16", ordered_kernel, _launch(2), "bf16")]
