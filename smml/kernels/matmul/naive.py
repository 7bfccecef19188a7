"""Rung 1: a program for each element of C, which is one dot product. Nothing that was read is used twice."""

import triton
import triton.language as tl
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands
from smml.kernels.interpreter import cast
from smml.kernels.matmul import problem
from smml.kernels.resources import Build

TILE = (1, 1)  # elements of C a program
BLOCK_K = 256
MOST_PROGRAMS = (
    2**31 - 1
)  # of a grid's first dimension (CUDA C programming guide, technical specifications)


@triton.jit
def _naive(
    a_ptr, b_ptr, c_ptr, n, k, stride_am, stride_ak, stride_bk, stride_bn, BLOCK_K: tl.constexpr
):  # fmt: skip
    element = tl.program_id(0).to(tl.int64)
    row, column = element // n, element % n
    total = tl.zeros([BLOCK_K], tl.float32)
    for start in range(0, k, BLOCK_K):
        at = start + tl.arange(0, BLOCK_K).to(tl.int64)  # [BLOCK_K]
        # Reads 2 elements for each multiply-add.
        a = tl.load(a_ptr + row * stride_am + at * stride_ak, mask=at < k, other=0.0)
        b = tl.load(b_ptr + at * stride_bk + column * stride_bn, mask=at < k, other=0.0)
        total += a.to(tl.float32) * b.to(tl.float32)
    tl.store(c_ptr + element, cast(tl.sum(total, 0), c_ptr.dtype.element_ty))


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a [M, K] · b [K, N], accumulated in float32, in their dtype; M·N ≤ MOST_PROGRAMS. Not differentiable.

    Raises UserError for operands that do not fit each other and for more elements than programs.
    """
    c = problem.result("matmul.naive", a, b)
    if c.numel() > MOST_PROGRAMS:
        raise UserError(
            f"matmul.naive: C has {c.numel()} elements and each is a program, of which {MOST_PROGRAMS} can be "
            "started: use a tiled rung."
        )
    if c.numel():
        with operands.on(a):
            _naive[(c.numel(),)](
                a, b, c, c.shape[1], a.shape[1], *a.stride(), *b.stride(), BLOCK_K, num_warps=1
            )
    return c


def builds() -> list[Build]:
    """What is compiled without a GPU: B stored as [N, K], as the weights of a linear layer are."""
    signature = {"a_ptr": "*bf16", "b_ptr": "*bf16", "c_ptr": "*bf16"}
    signature |= dict.fromkeys(("n", "k", "stride_am", "stride_bn"), "i32")
    constants = {"stride_ak": 1, "stride_bk": 1, "BLOCK_K": BLOCK_K}
    return [Build("matmul/naive/bf16", _naive, signature, constants, num_warps=1)]
