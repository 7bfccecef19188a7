"""Softmax over the last dimension, fused: each row is read once, kept in registers, written once.

Unfused, PyTorch's five operations (maximum, subtract, exp, sum, divide) read and write the matrix over and over.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands
from smml.kernels.interpreter import cast
from smml.kernels.resources import Build
from smml.roofline import Work

WIDEST = 65_536  # columns that one program can hold in its registers


@triton.jit
def _forward(x_ptr, y_ptr, x_stride, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)  # [BLOCK] ≥ columns
    inside = column < columns
    x = tl.load(x_ptr + row * x_stride + column, mask=inside, other=float("-inf")).to(tl.float32)
    # The maximum makes the largest exponent 0. A row of −Inf alone gives NaN, as in PyTorch.
    numerator = tl.exp(x - tl.max(x, 0))
    y = numerator / tl.sum(numerator, 0)
    tl.store(y_ptr + row * columns + column, cast(y, y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _backward(y_ptr, dy_ptr, dx_ptr, dy_stride, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < columns
    y = tl.load(y_ptr + row * columns + column, mask=inside, other=0.0).to(tl.float32)
    dy = tl.load(dy_ptr + row * dy_stride + column, mask=inside, other=0.0).to(tl.float32)
    dx = y * (dy - tl.sum(y * dy, 0))
    tl.store(dx_ptr + row * columns + column, cast(dx, dx_ptr.dtype.element_ty), mask=inside)


def softmax(x: Tensor) -> Tensor:
    """Softmax of x [..., N] over N ≤ WIDEST, computed in float32, in the dtype of x.

    Raises UserError for a wider x and for a dtype or device that kernels do not run on.
    """
    operands.check("softmax", x=x)
    if x.dim() == 0 or x.shape[-1] > WIDEST:
        raise UserError(
            f"softmax: x has shape {list(x.shape)}; its last dimension must have 1…{WIDEST} elements: "
            "use torch.softmax for wider ones."
        )
    return _softmax(x)


@torch.library.custom_op("smml::softmax", mutates_args=())
def _softmax(x: Tensor) -> Tensor:
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if y.numel():
        flat = operands.rows(x)  # [R, N]
        count, columns = flat.shape
        with operands.on(x):
            _forward[(count,)](flat, y, flat.stride(0), columns, **_launch(columns))
    return y


@_softmax.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@torch.library.custom_op("smml::softmax_backward", mutates_args=())
def _softmax_backward(dy: Tensor, y: Tensor) -> Tensor:
    dx = torch.empty(y.shape, dtype=y.dtype, device=y.device)
    if y.numel():
        y, flat = y.contiguous(), operands.rows(dy)
        count, columns = flat.shape
        with operands.on(y):
            _backward[(count,)](y, flat, dx, flat.stride(0), columns, **_launch(columns))
    return dx


@_softmax_backward.register_fake
def _(dy: Tensor, y: Tensor) -> Tensor:
    return torch.empty(y.shape, dtype=y.dtype, device=y.device)


_softmax.register_autograd(
    lambda ctx, dy: _softmax_backward(dy, *ctx.saved_tensors),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(output),
)


def _launch(columns: int) -> dict[str, int]:
    """Block and warps for rows of so many columns: 16 elements a thread, up to 32 warps."""
    block = triton.next_power_of_2(columns)
    return {"BLOCK": block, "num_warps": min(max(block // 512, 1), 32)}


def reference(x: Tensor) -> Tensor:
    """The same in plain PyTorch, in float32."""
    return torch.softmax(x.float(), -1).to(x.dtype)


def unfused(x: Tensor, out: Tensor | None = None) -> Tensor:
    """The same as five operations of PyTorch on x [..., N], each of which goes through memory; into `out` if given."""
    out = torch.sub(x, x.amax(-1, keepdim=True), out=out)
    out = torch.exp(out, out=out)
    return torch.div(out, out.sum(-1, keepdim=True), out=out)


def work(rows: int, columns: int, itemsize: int) -> Work:
    """About 5 FLOPs an element (maximum, subtract, exp, sum, divide), each element read once and written once."""
    elements = rows * columns
    size = elements * itemsize
    return Work(5 * elements, size, size, size)


def unfused_work(rows: int, columns: int, itemsize: int) -> Work:
    """The five operations of `unfused`: maximum, subtract, exp, sum, divide: 5 reads and 3 writes of the matrix.

    Two of the writes go over what was read before. The column of row maxima and sums is small and counted too.
    """
    size, column = rows * columns * itemsize, rows * itemsize
    return Work(5 * rows * columns, 5 * size + 2 * column, 3 * size + 2 * column, size, 5)


def builds() -> list[Build]:
    """What is compiled without a GPU: a short and a long row."""
    found = []
    for columns in (1024, 32_768):
        launch = _launch(columns)
        warps = launch.pop("num_warps")
        for dtype in ("fp32", "bf16"):
            x = f"*{dtype}"
            forward = {"x_ptr": x, "y_ptr": x, "x_stride": "i32", "columns": "i32"}
            backward = {"y_ptr": x, "dy_ptr": x, "dx_ptr": x, "dy_stride": "i32", "columns": "i32"}
            name = f"softmax/{columns}/{dtype}"
            found.append(Build(f"{name}/forward", _forward, forward, launch, warps))
            # Two rows of 32 elements a thread do not fit into the 64 registers that 32 warps leave each.
            spill = 160 if columns > 16_384 else 0
            found.append(
                Build(f"{name}/backward", _backward, backward, launch, warps, spill_bytes=spill)
            )
    return found
