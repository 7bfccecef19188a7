"""The two operations in which Triton's interpreter and its compiler differ, made equal: products and rounding.

The interpreter keeps bfloat16 as the integers of its bits (triton-lang/triton#11584): a product of two such tiles
multiplies those integers, and a float32 is cut to bfloat16 where the GPU rounds it.
"""

import triton
import triton.language as tl

from smml import triton_mode

INTERPRETED = tl.constexpr(triton_mode.INTERPRETED)


@triton.jit
def dot(a, b, acc):
    """acc + a·b in float32; a [M, K], b [K, N], acc [M, N]. float32 operands are not cut to tf32."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:  # noqa: RET505 (traced: only one branch exists in a compiled kernel)
        return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def cast(x, dtype: tl.constexpr):
    """x, float32, in `dtype`, rounded to the nearest and ties to even; NaN and Inf stay."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = tl.where(x == x, rounded.to(tl.float32, bitcast=True), x)
    return x.to(dtype)
