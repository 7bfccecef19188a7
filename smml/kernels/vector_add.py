"""Vector addition, the first kernel: one program an output block, a mask where the last block passes the end."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from smml.kernels import operands
from smml.kernels.interpreter import cast
from smml.kernels.resources import Build
from smml.roofline import Work, elementwise

BLOCK = 1024


@triton.jit
def _add(x_ptr, y_ptr, out_ptr, elements, BLOCK: tl.constexpr):
    # 64 bits: an offset of more than 2³¹ − 1 elements is an ordinary one on a GPU of 80 GB.
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    inside = offsets < elements
    # Reads 2 elements, writes 1.
    x = tl.load(x_ptr + offsets, mask=inside).to(tl.float32)
    y = tl.load(y_ptr + offsets, mask=inside).to(tl.float32)
    tl.store(out_ptr + offsets, cast(x + y, out_ptr.dtype.element_ty), mask=inside)


def vector_add(x: Tensor, y: Tensor) -> Tensor:
    """x + y of two tensors of one shape, dtype and device.

    Raises UserError for operands that differ in any of these. Layouts that are not contiguous are copied first.
    """
    operands.check("vector_add", x=x, y=y)
    operands.shape("vector_add", "y", y, tuple(x.shape))
    return _vector_add(x, y)


@torch.library.custom_op("smml::vector_add", mutates_args=())
def _vector_add(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.contiguous(), y.contiguous()
    out = torch.empty_like(x)
    if out.numel():
        grid = (triton.cdiv(out.numel(), BLOCK),)
        with operands.on(x):
            _add[grid](x, y, out, out.numel(), BLOCK=BLOCK)
    return out


@_vector_add.register_fake
def _(x: Tensor, y: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


_vector_add.register_autograd(lambda ctx, grad: (grad, grad))


def reference(x: Tensor, y: Tensor) -> Tensor:
    """The same in plain PyTorch."""
    return x + y


def work(elements: int, itemsize: int) -> Work:
    """1 FLOP an element; 2 elements read, 1 written."""
    return elementwise(elements, itemsize, inputs=2)


def builds() -> list[Build]:
    """What is compiled without a GPU."""
    return [
        Build(
            f"vector_add/{dtype}",
            _add,
            {"x_ptr": f"*{dtype}", "y_ptr": f"*{dtype}", "out_ptr": f"*{dtype}", "elements": "i32"},
            {"BLOCK": BLOCK},
        )
        for dtype in ("fp32", "fp16", "bf16")
    ]
