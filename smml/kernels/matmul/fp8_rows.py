"""Rows of numbers as float8_e4m3fn, each with a scale of its own, and such numbers back in float32.

float8_e4m3fn has a sign, 4 bits of exponent and 3 behind the leading one; it reaches 448, has no infinity, and one
code, 127, is NaN. A row's scale is its largest magnitude ÷ 448, so that no number overflows and few vanish.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands
from smml.kernels.interpreter import INTERPRETED
from smml.kernels.resources import Build
from smml.roofline import Work

FP8 = torch.float8_e4m3fn
LARGEST = tl.constexpr(448.0)
# Rows whose largest magnitude is less are taken for it: 448 ÷ it must not overflow.
SMALLEST = tl.constexpr(1e-30)
WIDEST = 65_536  # columns of a row that one program can hold in its registers


@triton.jit
def to_fp8(x):
    """x, float32 within ±448 or NaN, as float8_e4m3fn, rounded to the nearest and ties to even."""
    if not INTERPRETED:
        return x.to(tl.float8e4nv)
    # The interpreter's own conversion drops the carry out of the mantissa (7.9 becomes 4) and makes NaN 384.
    sign = x.to(tl.uint32, bitcast=True) >> 31
    size = tl.where(x == x, tl.abs(x), 480.0)  # whose code is that of NaN
    bits = size.to(tl.uint32, bitcast=True)
    bits = bits + 0x7FFFF + ((bits >> 20) & 1)
    normal = (bits >> 20) - (120 << 3)  # of the exponents' biases, 127 and 7, 120 is the difference
    # Below 2⁻⁶ the step is 2⁻⁹: that of a float32 near 2¹⁴.
    fixed = (size + 24576.0) - 24576.0
    code = tl.where(size < 0.015625, (fixed * 512.0).to(tl.uint32), normal) + (sign << 7)
    return code.to(tl.uint8).to(tl.float8e4nv, bitcast=True)


@triton.jit
def operand(x):
    """x in float8_e4m3fn as a product takes it: as it is, or interpreted, in float32."""
    if not INTERPRETED:
        return x
    # The interpreter reads the code of NaN as 480.
    nan = (x.to(tl.uint8, bitcast=True) & 127) == 127
    return tl.where(nan, float("nan"), x.to(tl.float32))


@triton.jit
def _quantize_kernel(x_ptr, q_ptr, scale_ptr, x_stride, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < columns
    x = tl.load(x_ptr + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    largest = tl.maximum(tl.max(tl.abs(x), 0), SMALLEST)
    tl.store(scale_ptr + row, largest / LARGEST)
    # An infinite row has the inverse 0: its infinities become NaN.
    tl.store(q_ptr + row * columns + column, to_fp8(x * (LARGEST / largest)), mask=inside)


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [..., D] as float8_e4m3fn [..., D] and the float32 scale [..., 1] of each row: x ≈ q · scale.

    A row's largest magnitude becomes 448; NaN and Inf become NaN. D ≤ WIDEST. Raises UserError for other shapes,
    dtypes and devices. Not differentiable.
    """
    operands.check("quantize", x=x)
    if x.dim() == 0 or not 1 <= x.shape[-1] <= WIDEST:
        raise UserError(
            f"quantize: x has shape {list(x.shape)}; its last dimension must have 1…{WIDEST} elements: "
            "split longer rows."
        )
    return _quantize(x)


def require(op: str, x: Tensor) -> None:
    """Raise UserError where x is on a GPU without such numbers: before compute capability 8.9 (Ada)."""
    if x.is_cuda and torch.cuda.get_device_capability(x.device) < (8, 9):
        raise UserError(
            f"{op}: {torch.cuda.get_device_name(x.device)} has no float8; it takes a GPU of compute capability 8.9 "
            "or more: use bfloat16."
        )


@torch.library.custom_op("smml::quantize_fp8", mutates_args=())
def _quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    require("quantize", x)
    q = torch.empty(x.shape, dtype=FP8, device=x.device)
    scale = torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=x.device)
    if q.numel():
        flat = operands.rows(x)
        rows, columns = flat.shape
        with operands.on(x):
            _quantize_kernel[(rows,)](
                flat, q, scale, flat.stride(0), columns, **_launch(columns)
            )  # fmt: skip
    return q, scale


@_quantize.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    q = torch.empty(x.shape, dtype=FP8, device=x.device)
    return q, torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=x.device)


def _launch(columns: int) -> dict[str, int]:
    """Block and warps for rows of so many columns: 16 elements a thread, up to 32 warps."""
    block = triton.next_power_of_2(columns)
    return {"BLOCK": block, "num_warps": min(max(block // 512, 1), 32)}


def reference(x: Tensor) -> tuple[Tensor, Tensor]:
    """`quantize` in plain PyTorch."""
    size = x.float().abs()
    largest = size.where(size == size, 0.0).amax(-1, keepdim=True).clamp_min(SMALLEST.value)
    inverse = torch.full_like(largest, LARGEST.value) / largest  # a number ÷ a tensor rounds twice
    return (x.float() * inverse).to(FP8), largest / LARGEST.value


def work(rows: int, columns: int, itemsize: int) -> Work:
    """2 FLOPs an element (maximum, multiply); reads x, writes a byte an element and 4 a row."""
    elements = rows * columns
    written = elements + 4 * rows
    return Work(2 * elements, elements * itemsize, written, written)


def builds() -> list[Build]:
    """What is compiled without a GPU: rows as wide as a Llama 8B's inner layer. An A100 has no such numbers."""
    signature = {"x_ptr": "*bf16", "q_ptr": "*fp8e4nv", "scale_ptr": "*fp32"}
    signature |= {"x_stride": "i32", "columns": "i32"}
    launch = _launch(14_336)
    warps = launch.pop("num_warps")
    name = "matmul/fp8/quantize"
    return [Build(name, _quantize_kernel, signature, launch, warps, targets=(90, 100))]
