"""Residual addition and the RMSNorm of its sum, in one pass: the sum is written once and never read back.

Backward, too, is one pass: the gradient that reaches the sum on its own way is added to that through the norm. The
kernels are those of `smml.kernels.rms_norm`.
"""

from typing import Any

import torch
from torch import Tensor

from smml.kernels import rms_norm
from smml.kernels.resources import Build
from smml.llama import ops
from smml.roofline import Work


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(rms_norm(x + residual), x + residual); x and residual [..., D] of one dtype, weight [D] as in `rms_norm`.

    The sum is rounded to x's dtype before it is normalised, as in PyTorch. Raises UserError as `rms_norm` does.
    """
    rms_norm.check("add_rms_norm", weight, x=x, residual=residual)
    return _add_rms_norm(x, residual, weight, eps)


@torch.library.custom_op("smml::add_rms_norm", mutates_args=())
def _add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return rms_norm.launch_forward(x, residual, weight, eps)


@_add_rms_norm.register_fake
def _(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    normed = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return normed, torch.empty_like(normed)


@torch.library.custom_op("smml::add_rms_norm_backward", mutates_args=())
def _add_rms_norm_backward(
    dnormed: Tensor, dtotal: Tensor, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return rms_norm.launch_backward(total, dnormed, dtotal, weight, eps)


@_add_rms_norm_backward.register_fake
def _(
    dnormed: Tensor, dtotal: Tensor, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(total), torch.empty_like(weight)


def _setup(
    ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, Tensor]
) -> None:
    _, _, weight, ctx.eps = inputs
    ctx.save_for_backward(output[1], weight)


def _backward(ctx: Any, dnormed: Tensor, dtotal: Tensor) -> tuple[Tensor | None, ...]:
    dx, dweight = _add_rms_norm_backward(dnormed, dtotal, *ctx.saved_tensors, ctx.eps)
    return dx, dx, dweight, None


_add_rms_norm.register_autograd(_backward, setup_context=_setup)

reference = ops.add_rms_norm


def work(rows: int, columns: int, itemsize: int) -> Work:
    """5 FLOPs an element (the sum, and RMSNorm's 4); reads x, residual and weight, writes the sum and its norm."""
    size = rows * columns * itemsize
    return Work(5 * rows * columns, 2 * size + columns * itemsize, 2 * size, 2 * size)


def backward_work(rows: int, columns: int, itemsize: int) -> Work:
    """13 FLOPs an element (RMSNorm's 12, a sum); reads the sum, two gradients and the weight, writes dx and dweight."""
    size, row = rows * columns * itemsize, columns * itemsize
    return Work(13 * rows * columns, 3 * size + row, size + row, size + row, launches=2)


def builds() -> list[Build]:
    """What is compiled without a GPU."""
    return rms_norm.builds_of("add_rms_norm", add=True)
