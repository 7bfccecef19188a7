"""The product that the rest of the package uses: the best rung for the operands, differentiable, known to torch.compile."""

import torch
from torch import Tensor

from smml.kernels.matmul import descriptors, persistent, pipelined, problem, warp_specialised
from smml.roofline import Work, gemm

# Fewer tiles of 128 × 128 than this share of the multiprocessors leave the large tiles' rungs half idle.
LEAST_FILLED = 0.5


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a [M, K] · b [K, N], accumulated in float32, in their dtype; either may be a transposed view.

    Raises UserError for operands that differ in dtype or device or do not fit each other.
    """
    problem.check("matmul", a, b)
    return _matmul(a, b)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., K] · weightᵀ [..., N]; weight [N, K]. Raises UserError as `matmul` does."""
    return matmul(x.reshape(-1, x.shape[-1]), weight.T).view(*x.shape[:-1], weight.shape[0])


def chosen(a: Tensor, b: Tensor) -> str:
    """Name of the rung in LADDER that multiplies a [M, K] by b [K, N].

    float32 stays with the pointers: off the matrix units the operands' way does not matter. Then the hand-written
    kernel on Hopper, the persistent one wherever TMA can fetch the operands and C has tiles enough, else pointers.
    """
    tiles = -(-a.shape[0] // 128) * -(-b.shape[1] // 128)
    few = tiles < LEAST_FILLED * persistent.programs(a)
    if a.dtype == torch.float32 or few or descriptors.refusal(a, b):
        return "pipelined"
    return "warp_specialised" if warp_specialised.available(a.device) else "persistent"


@torch.library.custom_op("smml::matmul", mutates_args=())
def _matmul(a: Tensor, b: Tensor) -> Tensor:
    rungs = {
        "pipelined": pipelined.matmul,
        "persistent": persistent.matmul,
        "warp_specialised": warp_specialised.matmul,
    }
    return rungs[chosen(a, b)](a, b)


@_matmul.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return torch.empty(a.shape[0], b.shape[1], dtype=a.dtype, device=a.device)


def _backward(ctx: torch.autograd.function.FunctionCtx, dc: Tensor) -> tuple[Tensor | None, ...]:
    """dA = dC·Bᵀ and dB = Aᵀ·dC, each laid out as its operand is, so that no optimizer copies it."""
    a, b = ctx.saved_tensors
    da = db = None
    if ctx.needs_input_grad[0]:
        da = _matmul(b, dc.T).T if descriptors.transposed(a) else _matmul(dc, b.T)
    if ctx.needs_input_grad[1]:
        db = _matmul(dc.T, a).T if descriptors.transposed(b) else _matmul(a.T, dc)
    return da, db


_matmul.register_autograd(
    _backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs)
)


def reference(a: Tensor, b: Tensor) -> Tensor:
    """The same in plain PyTorch, in float32."""
    return (a.float() @ b.float()).to(a.dtype)


def work(m: int, n: int, k: int, itemsize: int) -> Work:
    """2·m·n·k FLOPs; each operand read once, C written once."""
    return gemm(m, n, k, itemsize)


def backward_work(m: int, n: int, k: int, itemsize: int) -> Work:
    """Both gradients: two products of the same FLOPs."""
    return gemm(m, k, n, itemsize) + gemm(k, n, m, itemsize)
