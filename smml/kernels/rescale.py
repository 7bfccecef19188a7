"""x times a number that only the GPU knows, in place; a factor of exactly 1 costs a launch and touches nothing.

A gradient that was computed ahead of its backward pass is multiplied by the incoming gradient there, which is 1 for a
loss that backward() is called on. Asking the GPU for it would make Python wait.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands
from smml.kernels.interpreter import cast
from smml.kernels.resources import Build
from smml.roofline import Work, elementwise

BLOCK = 4096
PROGRAMS = 2048  # enough to fill any GPU, few enough to come and go in microseconds


@triton.jit
def _rescale(x_ptr, factor_ptr, elements, BLOCK: tl.constexpr):
    factor = tl.load(factor_ptr).to(tl.float32)
    if factor != 1.0:  # NaN too
        first = tl.program_id(0).to(tl.int64) * BLOCK
        step = tl.num_programs(0).to(tl.int64) * BLOCK
        for start in range(first, elements, step):
            offsets = start + tl.arange(0, BLOCK)
            inside = offsets < elements
            x = tl.load(x_ptr + offsets, mask=inside).to(tl.float32)
            tl.store(x_ptr + offsets, cast(x * factor, x_ptr.dtype.element_ty), mask=inside)


def rescale(x: Tensor, factor: Tensor) -> None:
    """x *= factor, in place; x contiguous, factor a float32 scalar on its device.

    Raises UserError for another layout, dtype or device: a copy would not be in place.
    """
    operands.check("rescale", x=x)
    operands.same_device("rescale", x=x, factor=factor)
    operands.shape("rescale", "factor", factor, ())
    if factor.dtype != torch.float32:
        raise UserError(
            f"rescale: factor is {operands.short(factor.dtype)}; it must be float32: convert it with .to()."
        )
    if not x.is_contiguous():
        raise UserError(
            f"rescale: x has strides {list(x.stride())}; it must be contiguous: pass x.contiguous()."
        )
    _rescale_op(x, factor)


@torch.library.custom_op("smml::rescale", mutates_args=("x",))
def _rescale_op(x: Tensor, factor: Tensor) -> None:
    if x.numel():
        grid = (min(triton.cdiv(x.numel(), BLOCK), PROGRAMS),)
        with operands.on(x):
            _rescale[grid](x, factor, x.numel(), BLOCK=BLOCK)


@_rescale_op.register_fake
def _(x: Tensor, factor: Tensor) -> None:
    return None


def reference(x: Tensor, factor: Tensor) -> None:
    """The same in plain PyTorch."""
    x.mul_(factor)


def work(elements: int, itemsize: int) -> Work:
    """1 FLOP an element, each read and written once; nothing where the factor is 1."""
    return elementwise(elements, itemsize, in_place=True)


def builds() -> list[Build]:
    """What is compiled without a GPU."""
    return [
        Build(
            f"rescale/{dtype}",
            _rescale,
            {"x_ptr": f"*{dtype}", "factor_ptr": "*fp32", "elements": "i32"},
            {"BLOCK": BLOCK},
        )
        for dtype in ("fp32", "bf16")
    ]
