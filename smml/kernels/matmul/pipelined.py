"""Rung 4: the same kernel, with the tiles of the next steps on their way while this step's are multiplied.

The compiler does it: `num_stages` buffers in shared memory, filled by asynchronous copies. What is left to choose is
the shape of the tiles, and a tuner measures that on the GPU itself.
"""

from dataclasses import replace

import triton
from torch import Tensor

from smml.kernels import operands
from smml.kernels.matmul import problem
from smml.kernels.matmul.l2_ordered import ordered_kernel
from smml.kernels.matmul.tiled import pointer_build
from smml.kernels.resources import TARGETS, Build
from smml.kernels.tuning import autotune

TILE = (128, 256)  # the shape that large products are expected to choose


def _config(m: int, n: int, k: int, group: int, warps: int, stages: int) -> triton.Config:
    shape = {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "GROUP_M": group}
    return triton.Config(shape, num_warps=warps, num_stages=stages)


# 16-bit operands: an accumulator of 128 × 256 fills the registers of two warpgroups, and three stages of its operands
# take 144 KiB of shared memory. The last ones are for few rows, whose tiles would otherwise be too few.
CONFIGS_16_BIT = (
    _config(128, 256, 64, 16, 8, 3),
    _config(128, 128, 64, 8, 8, 3),
    _config(256, 128, 64, 8, 8, 3),
    _config(64, 128, 64, 8, 4, 4),
    _config(16, 64, 128, 1, 4, 4),
)
# float32 is multiplied by the ordinary units, each thread of which holds its operands in registers.
CONFIGS_32_BIT = (
    _config(128, 128, 16, 8, 8, 3),
    _config(64, 64, 16, 8, 4, 4),
    _config(16, 64, 32, 1, 4, 4),
)
# Every multiple of rows would be tuned anew; between two powers of 2 the best shape rarely changes.
KEY = ("m_bucket", "n", "k", "stride_ak", "stride_bk")
_16_bit = autotune(CONFIGS_16_BIT, KEY)(ordered_kernel)
_32_bit = autotune(CONFIGS_32_BIT, KEY)(ordered_kernel)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a [M, K] · b [K, N], accumulated in float32, in their dtype. Not differentiable.

    The first call for a shape on a GPU tunes: about a second. Raises UserError for operands that do not fit.
    """
    c = problem.result("matmul.pipelined", a, b)
    if c.numel():
        (m, n), k = c.shape, a.shape[1]
        kernel = _16_bit if a.itemsize == 2 else _32_bit
        with operands.on(a):
            kernel[lambda meta: (triton.cdiv(m, meta["BLOCK_M"]) * triton.cdiv(n, meta["BLOCK_N"]),)](
                a, b, c, m, n, k, *a.stride(), *b.stride(), triton.next_power_of_2(m)
            )  # fmt: skip
    return c


def builds() -> list[Build]:
    """What is compiled without a GPU: the shape for large products, an A100's, the one for few rows, and float32."""
    # 128 × 256 needs wgmma, which takes its operands from shared memory: an A100 would spill 12 bytes.
    large, square, _, _, few = CONFIGS_16_BIT
    return [
        replace(
            pointer_build(f"matmul/pipelined/{name}", ordered_kernel, _launch(config), dtype),
            targets=targets,
        )
        for name, config, dtype, targets in (
            ("128x256/bf16", large, "bf16", (90, 100)),
            ("128x128/bf16", square, "bf16", (80,)),
            ("16x64/bf16", few, "bf16", TARGETS),
            ("128x128/fp32", CONFIGS_32_BIT[0], "fp32", TARGETS),
        )
    ]


def _launch(config: triton.Config) -> dict[str, int]:
    return config.kwargs | {"num_warps": config.num_warps, "num_stages": config.num_stages}
