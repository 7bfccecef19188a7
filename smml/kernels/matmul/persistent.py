"""Rung 6: one program a multiprocessor, which goes from tile to tile.

A program that ends after one tile leaves the copy engine and the matrix units idle while it writes C and the next one
starts. Here the loops over tiles and over K are one to the compiler: the next tile's operands are fetched while this
one's result is written, in two halves, so that its way out takes half the shared memory.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands
from smml.kernels.interpreter import cast, dot
from smml.kernels.matmul import problem
from smml.kernels.matmul.descriptors import (
    config,
    described,
    descriptor_build,
    flags,
    load_tile,
    refusal,
)
from smml.kernels.matmul.l2_ordered import tile_at
from smml.kernels.resources import Build
from smml.kernels.tuning import autotune

TILE = (128, 256)
PROGRAMS_INTERPRETED = 3  # few, so that each has several tiles to go through


@triton.jit
def _persistent(
    a, b, c, m, n, k, m_bucket, A_TRANSPOSED: tl.constexpr, B_TRANSPOSED: tl.constexpr, ITEMSIZE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr, STORES: tl.constexpr,
):  # fmt: skip
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    steps = tl.cdiv(k, BLOCK_K)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=True):
        row, column = tile_at(tile, tiles_m, tiles_n, GROUP_M)
        row, column = row * BLOCK_M, column * BLOCK_N
        total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for step in range(steps):
            left = load_tile(a, row, step * BLOCK_K, A_TRANSPOSED)  # [BLOCK_M, BLOCK_K]
            right = load_tile(b, step * BLOCK_K, column, B_TRANSPOSED)  # [BLOCK_K, BLOCK_N]
            total = dot(left, right, total)
        if STORES == 1:
            c.store([row, column], cast(total, c.dtype))
        else:
            # [BLOCK_M, BLOCK_N] as two of [BLOCK_M, BLOCK_N / 2], left and right
            halves = total.reshape(BLOCK_M, 2, BLOCK_N // 2).permute(0, 2, 1)
            near, far = halves.split()
            c.store([row, column], cast(near, c.dtype))
            c.store([row, column + BLOCK_N // 2], cast(far, c.dtype))


CONFIGS_16_BIT = (
    config(128, 256, 64, 16, 8, 4, STORES=2),
    config(128, 256, 64, 8, 8, 3, STORES=2),
    config(256, 128, 64, 8, 8, 4, STORES=2),
    config(128, 128, 64, 8, 4, 4, STORES=1),
)
CONFIGS_32_BIT = (
    config(128, 64, 16, 8, 8, 3, STORES=1),
    config(64, 64, 16, 8, 4, 4, STORES=1),
)
KEY = ("m_bucket", "n", "k", "A_TRANSPOSED", "B_TRANSPOSED")
_16_bit = autotune(CONFIGS_16_BIT, KEY)(_persistent)
_32_bit = autotune(CONFIGS_32_BIT, KEY)(_persistent)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a [M, K] · b [K, N], accumulated in float32, in their dtype. Not differentiable.

    Raises UserError for operands that do not fit each other, and where TMA cannot fetch them.
    """
    c = problem.result("matmul.persistent", a, b)
    if reason := refusal(a, b):
        raise UserError(f"matmul.persistent: {reason}: use matmul.pipelined.")
    (m, n), k = c.shape, a.shape[1]
    kernel, most = (_16_bit if a.itemsize == 2 else _32_bit), programs(a)
    with operands.on(a):
        kernel[
            lambda meta: (
                min(most, triton.cdiv(m, meta["BLOCK_M"]) * triton.cdiv(n, meta["BLOCK_N"])),
            )
        ](*described(a, b, c), m, n, k, triton.next_power_of_2(m), *flags(a, b))
    return c


def programs(a: Tensor) -> int:
    """Programs that run at the same time: the multiprocessors of a's GPU."""
    if not a.is_cuda:
        return PROGRAMS_INTERPRETED
    return torch.cuda.get_device_properties(a.device).multi_processor_count


def builds() -> list[Build]:
    """What is compiled without a GPU: weights stored as [N, K] and as [K, N], and float32."""
    first, full = CONFIGS_16_BIT[0], CONFIGS_32_BIT[0]
    return [
        descriptor_build(f"matmul/persistent/{name}", _persistent, chosen, dtype, b_transposed=t)
        for name, chosen, dtype, t in (
            ("bf16", first, "bf16", True),
            ("bf16/B as it is", first, "bf16", False),
            ("fp32", full, "fp32", True),
        )
    ]
