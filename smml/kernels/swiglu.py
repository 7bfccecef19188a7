"""SwiGLU, silu(gate) · up, fused: gate and up are read once, and once more by backward, which keeps nothing else."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands
from smml.kernels.interpreter import cast
from smml.kernels.resources import Build
from smml.llama import ops
from smml.roofline import Work

# 16 elements a thread of each operand: two loads of 16 bytes of gate and two of up are on their way at once.
BLOCK, NUM_WARPS = 2048, 4


@triton.jit
def _forward(x_ptr, y_ptr, x_stride, width, blocks, BLOCK: tl.constexpr):
    row = (tl.program_id(0) // blocks).to(tl.int64)
    column = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    inside = column < width
    # Reads 2 elements, writes 1.
    gate_row = x_ptr + row * x_stride
    gate = tl.load(gate_row + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_row + width + column, mask=inside, other=0.0).to(tl.float32)
    y = gate / (1 + tl.exp(-gate)) * up
    tl.store(y_ptr + row * width + column, cast(y, y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _backward(dy_ptr, x_ptr, dx_ptr, dy_stride, x_stride, width, blocks, BLOCK: tl.constexpr):
    row = (tl.program_id(0) // blocks).to(tl.int64)
    column = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    inside = column < width
    # Reads 3 elements, writes 2.
    gate_row = x_ptr + row * x_stride
    gate = tl.load(gate_row + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_row + width + column, mask=inside, other=0.0).to(tl.float32)
    dy = tl.load(dy_ptr + row * dy_stride + column, mask=inside, other=0.0).to(tl.float32)
    gone = tl.exp(-gate)
    share = 1 / (1 + gone)  # sigmoid(gate)
    dgate = dy * up * share * (1 + gate * (1 - share))
    dup = dy * (gate * share)
    to = dx_ptr + row * 2 * width + column
    tl.store(to, cast(dgate, dx_ptr.dtype.element_ty), mask=inside)
    tl.store(to + width, cast(dup, dx_ptr.dtype.element_ty), mask=inside)


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) · up [..., F] of gate_up [..., 2F], which holds gate, then up (arXiv:2002.05202).

    Computed in float32 and rounded once. Raises UserError for an odd last dimension and for a dtype or device that
    kernels do not run on.
    """
    operands.check("swiglu", gate_up=gate_up)
    if gate_up.dim() == 0 or gate_up.shape[-1] % 2:
        raise UserError(
            f"swiglu: gate_up has shape {list(gate_up.shape)}; its last dimension must be even: gate, then up."
        )
    return _swiglu(gate_up)


@torch.library.custom_op("smml::swiglu", mutates_args=())
def _swiglu(gate_up: Tensor) -> Tensor:
    width = gate_up.shape[-1] // 2
    y = torch.empty((*gate_up.shape[:-1], width), dtype=gate_up.dtype, device=gate_up.device)
    if y.numel():
        x = operands.rows(gate_up)  # [N, 2F]
        launch = _launch(width)
        blocks = triton.cdiv(width, launch["BLOCK"])
        with operands.on(x):
            _forward[(x.shape[0] * blocks,)](x, y, x.stride(0), width, blocks, **launch)
    return y


@_swiglu.register_fake
def _(gate_up: Tensor) -> Tensor:
    shape = (*gate_up.shape[:-1], gate_up.shape[-1] // 2)
    return torch.empty(shape, dtype=gate_up.dtype, device=gate_up.device)


@torch.library.custom_op("smml::swiglu_backward", mutates_args=())
def _swiglu_backward(dy: Tensor, gate_up: Tensor) -> Tensor:
    dx = torch.empty(gate_up.shape, dtype=gate_up.dtype, device=gate_up.device)
    if dx.numel():
        x, dy = operands.rows(gate_up), operands.rows(dy)  # [N, 2F], [N, F]
        width = dy.shape[1]
        launch = _launch(width)
        blocks = triton.cdiv(width, launch["BLOCK"])
        strides = (dy.stride(0), x.stride(0))
        with operands.on(x):
            _backward[(x.shape[0] * blocks,)](dy, x, dx, *strides, width, blocks, **launch)
    return dx


@_swiglu_backward.register_fake
def _(dy: Tensor, gate_up: Tensor) -> Tensor:
    return torch.empty(gate_up.shape, dtype=gate_up.dtype, device=gate_up.device)


def _setup(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


_swiglu.register_autograd(
    lambda ctx, dy: _swiglu_backward(dy, *ctx.saved_tensors), setup_context=_setup
)


def _launch(width: int) -> dict[str, int]:
    block = min(BLOCK, triton.next_power_of_2(width))
    return {"BLOCK": block, "num_warps": max(block * NUM_WARPS // BLOCK, 1)}


reference = ops.swiglu


def work(rows: int, width: int, itemsize: int) -> Work:
    """5 FLOPs an output (negate, exp, add, divide, multiply); reads 2 elements, writes 1."""
    size = rows * width * itemsize
    return Work(5 * rows * width, 2 * size, size, size)


def backward_work(rows: int, width: int, itemsize: int) -> Work:
    """13 FLOPs an output: 4 for the sigmoid again, 7 for dgate, 2 for dup; reads 3 elements, writes 2."""
    size = rows * width * itemsize
    return Work(13 * rows * width, 3 * size, 2 * size, 2 * size)


def builds() -> list[Build]:
    """What is compiled without a GPU."""
    names = ("x_stride", "dy_stride", "width", "blocks")
    kinds = dict.fromkeys(("x_ptr", "y_ptr", "dy_ptr", "dx_ptr"), "*bf16")
    kinds |= dict.fromkeys(names, "i32")
    return [
        Build(f"swiglu/{way}", kernel, kinds, {"BLOCK": BLOCK}, NUM_WARPS, odd=("blocks",))
        for way, kernel in (("forward", _forward), ("backward", _backward))
    ]
