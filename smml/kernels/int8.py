"""Linear layer with 8-bit weights: y = x·Wᵀ, each output channel's integers times one scale, read once.

With few rows a product waits for its weights, so half the bytes are half the time. W is the left operand: its 64 rows
fill the matrix units however few rows x has, and go to them from registers. Two integers lie in a 16-bit word, half a
block of columns apart, so that neighbouring words hold neighbouring columns and none is shuffled; a block of all rows
lies together [K/BLOCK, N, BLOCK/2]: what a program reads is one piece. An integer becomes a number without a
conversion: its bits under the exponent of 128 (bfloat16; 1024 for float16) are that number plus the integer.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands, split_sum
from smml.kernels.interpreter import INTERPRETED, cast, dot
from smml.kernels.resources import Build
from smml.kernels.tuning import autotune
from smml.kernels.waves import processors, splits_for
from smml.roofline import Work

OP = "linear_int8"  # in errors
LARGEST = 127
FEW_ROWS = 16  # up to here a product waits for its weights
BLOCK = 128  # columns whose words lie together
BLOCK_N = 64
LEAST_PART = 1024  # of K, so that a part is worth its own program
PROGRAMS_PER_PROCESSOR = 4


class Int8Weight(NamedTuple):
    """words [K/BLOCK, N, BLOCK/2] int16, scale [N] float32, `columns` K of the matrix.

    The low byte of word i of a block holds the integer of its column i, the high byte that of column BLOCK/2 + i.
    The last block is filled with zeros.
    """

    words: Tensor
    scale: Tensor
    columns: int


def quantize_int8(weight: Tensor) -> Int8Weight:
    """weight [N, K] as 8-bit integers, symmetric, the largest of each row at ±127; error at most scale ÷ 2.

    Raises UserError for what is no finite matrix.
    """
    check_weight("quantize_int8", weight)
    outputs, columns = weight.shape
    count = -(-columns // BLOCK)
    padded = torch.nn.functional.pad(weight.float(), (0, count * BLOCK - columns))
    largest = padded.abs().amax(1) if columns else padded.new_zeros(outputs)
    # A row of zeros, and one so small that its scale underflows, has any scale.
    scale = torch.where(largest / LARGEST > 0, largest / LARGEST, 1.0)
    integers = (padded / scale[:, None]).round().clamp(-LARGEST, LARGEST).to(torch.int16)
    low, high = integers.view(outputs, count, 2, BLOCK // 2).transpose(0, 1).unbind(2)
    return Int8Weight((low & 0xFF | high << 8).contiguous(), scale, columns)


def dequantize(weight: Int8Weight, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix [N, K] that the integers stand for."""
    low, high = (weight.words << 8) >> 8, weight.words >> 8  # with their signs
    wide = scale_type(dtype)
    integers = torch.cat((low, high), -1).transpose(0, 1).flatten(1)[:, : weight.columns]
    return (integers.to(wide) * weight.scale.to(wide)[:, None]).to(dtype)


def scale_type(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which integers and scales are multiplied: float64 for an exact reference, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_weight(op: str, weight: Tensor) -> None:
    """Raise UserError unless `weight` is a finite float matrix."""
    operands.shape(op, "weight", weight, ("N", "K"))
    if weight.dtype not in operands.FLOATS:
        raise UserError(
            f"{op}: weight is {operands.short(weight.dtype)}; it must be float32, float16 or bfloat16."
        )
    if not weight.is_meta and not torch.isfinite(weight).all():
        raise UserError(f"{op}: weight holds NaN or Inf, for which there is no scale: repair it.")


def _bfloat16(half: int) -> str:
    """PTX for two words side by side: 128 + the low 7 bits of each byte, less 128, or 256 where its sign is set."""
    return f"""{{
    .reg .b32 bits, low, sign, minus;
    shr.u32 bits, $1, {8 * half};
    lop3.b32 low, bits, 0x007F007F, 0x43004300, 0xEA;
    lop3.b32 sign, bits, 0x00800080, 0x43004300, 0xEA;
    mov.b32 minus, 0xBF80BF80;
    fma.rn.bf16x2 $0, sign, minus, low;
    }}"""


def _float16(half: int) -> str:
    """PTX for two words side by side: 1024 + 128 + each byte (its sign bit turned over), less 1152."""
    return f"""{{
    .reg .b32 bits, one, minus;
    shr.u32 bits, $1, {8 * half};
    lop3.b32 bits, bits, 0x00FF00FF, 0x64806480, 0x6A;
    mov.b32 one, 0x3C003C00;
    mov.b32 minus, 0xE480E480;
    fma.rn.f16x2 $0, bits, one, minus;
    }}"""


BFLOAT16, FLOAT16 = [_bfloat16(0), _bfloat16(1)], [_float16(0), _float16(1)]
B0, B1 = map(tl.constexpr, BFLOAT16)
F0, F1 = map(tl.constexpr, FLOAT16)


@triton.jit
def _unpack(words, dtype: tl.constexpr, j: tl.constexpr, bf16: tl.constexpr, fp16: tl.constexpr):
    """The integers in byte j of words as `dtype`; exact in every one."""
    if INTERPRETED or dtype == tl.float32:
        return ((words << (8 - 8 * j)).to(tl.int16) >> 8).to(tl.float32)
    elif dtype == tl.bfloat16:  # noqa: RET505 (traced: only one branch exists in a compiled kernel)
        return tl.inline_asm_elementwise(bf16, "=r,r", [words], tl.bfloat16, is_pure=True, pack=2)
    else:
        return tl.inline_asm_elementwise(fp16, "=r,r", [words], tl.float16, is_pure=True, pack=2)


@triton.jit
def _linear(
    x_ptr, w_ptr, scale_ptr, out_ptr, x_stride, rows, outputs, inner, part,
    BLOCK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    HALF: tl.constexpr = BLOCK // 2
    # Neighbouring programs share their weights.
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(2)
    first = split * part
    last = tl.minimum(first + part, inner)
    i = tl.arange(0, HALF)
    x_ptrs = x_ptr + m.to(tl.int64)[None, :] * x_stride + i[:, None]
    is_row = (m < rows)[None, :]
    acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for start in range(first, last, BLOCK):
        channel = (start // BLOCK) * tl.cast(outputs, tl.int64) + n
        # Reads BLOCK_N·BLOCK bytes of weights.
        w = tl.load(
            w_ptr + channel[:, None] * HALF + i[None, :], mask=(n < outputs)[:, None], other=0
        )
        k = start + i[:, None]
        x0 = tl.load(x_ptrs + start, mask=is_row & (k < last), other=0.0)
        x1 = tl.load(x_ptrs + start + HALF, mask=is_row & (k + HALF < last), other=0.0)
        acc = dot(_unpack(w, x0.dtype, 0, B0, F0), x0, acc)
        acc = dot(_unpack(w, x0.dtype, 1, B1, F1), x1, acc)
    acc *= tl.load(scale_ptr + n, mask=n < outputs, other=0.0)[:, None]
    place = (split * tl.cast(rows, tl.int64) + m)[:, None] * outputs + n[None, :]
    tl.store(
        out_ptr + place,
        cast(tl.trans(acc), out_ptr.dtype.element_ty),
        mask=(m < rows)[:, None] & (n < outputs)[None, :],
    )


_few = autotune(
    [triton.Config({"BLOCK_N": BLOCK_N}, num_warps=4, num_stages=stages) for stages in (4, 6, 3)],
    key=["outputs", "inner"],
)(_linear)
_many = autotune(
    [
        triton.Config({"BLOCK_N": 128}, num_warps=warps, num_stages=stages)
        for warps, stages in ((8, 3), (8, 4), (4, 3))
    ],
    key=["outputs", "inner", "BLOCK_M"],
)(_linear)


def linear_int8(x: Tensor, weight: Int8Weight) -> Tensor:
    """x·Wᵀ [..., N] of x [..., K] and 8-bit weights, accumulated in float32, in the dtype of x. Not differentiable.

    Raises UserError for shapes, dtypes and devices that do not fit.
    """
    words, scale, columns = weight
    operands.check(OP, x=x)
    operands.same_device(OP, x=x, words=words, scale=scale)
    if x.dim() == 0 or x.shape[-1] != columns:
        raise UserError(f"{OP}: x has shape {list(x.shape)}; it must be [..., {columns}].")
    operands.shape(OP, "words", words, (-(-columns // BLOCK), "N", BLOCK // 2))
    operands.shape(OP, "scale", scale, (words.shape[1],))
    if (words.dtype, scale.dtype) != (torch.int16, torch.float32):
        raise UserError(
            f"{OP}: words are {operands.short(words.dtype)} and scale {operands.short(scale.dtype)}; they must be "
            "int16 and float32, as quantize_int8 makes them."
        )
    return _linear_int8(x, words, scale)


@torch.library.custom_op("smml::linear_int8", mutates_args=())
def _linear_int8(x: Tensor, words: Tensor, scale: Tensor) -> Tensor:
    return launch(x, words, scale, _few, _many, BLOCK=BLOCK)


@_linear_int8.register_fake
def _(x: Tensor, words: Tensor, scale: Tensor) -> Tensor:
    return torch.empty((*x.shape[:-1], words.shape[1]), dtype=x.dtype, device=x.device)


def launch(
    x: Tensor, words: Tensor, scale: Tensor, few: Any, many: Any, tallest: int = 128, **block: int
) -> Tensor:
    """Run the kernel for `few` or for `many` rows over words [blocks, N, …], up to `tallest` rows a program.

    `block` names the kernel's columns of a block.
    """
    outputs, inner = words.shape[1], x.shape[-1]
    out = torch.empty((*x.shape[:-1], outputs), dtype=x.dtype, device=x.device)
    if not inner:
        return out.zero_()
    if out.numel():
        flat = operands.rows(x)  # [M, K]
        rows = flat.shape[0]
        block_m = 16 if rows <= FEW_ROWS else 64 if rows <= 64 else tallest
        splits, part = parts(rows, outputs, inner, *block.values(), x.device)
        with operands.on(x):
            written = split_sum.room(splits, rows, outputs, out)
            (few if block_m == 16 else many)[
                lambda meta: (
                    triton.cdiv(rows, block_m), triton.cdiv(outputs, meta["BLOCK_N"]), splits
                )
            ](
                flat, words.contiguous(), scale.contiguous(), written,
                flat.stride(0), rows, outputs, inner, part, BLOCK_M=block_m, **block,
            )  # fmt: skip
            if splits > 1:
                split_sum.sum_parts(written, out)
    return out


def parts(
    rows: int, outputs: int, inner: int, granule: int, device: torch.device
) -> tuple[int, int]:
    """Number of parts of K and their length, a multiple of `granule`: one part where there are rows to fill the GPU."""
    if rows > FEW_ROWS:
        return 1, inner
    most = inner // LEAST_PART
    splits = splits_for(
        triton.cdiv(outputs, BLOCK_N), most, PROGRAMS_PER_PROCESSOR * processors(device)
    )
    part = triton.cdiv(triton.cdiv(inner, splits), granule) * granule
    return triton.cdiv(inner, part), part


def reference(x: Tensor, weight: Int8Weight) -> Tensor:
    """The same in plain PyTorch: the weights written out, then multiplied."""
    wide = scale_type(x.dtype)
    return (x.to(wide) @ dequantize(weight, wide).T).to(x.dtype)


def work(rows: int, outputs: int, inner: int, itemsize: int) -> Work:
    """2·M·N·K FLOPs; reads K·N bytes of weights (K in whole blocks), a scale a channel and x, writes y."""
    read = outputs * (-(-inner // BLOCK) * BLOCK + 4) + rows * inner * itemsize
    written = rows * outputs * itemsize
    return Work(2 * rows * outputs * inner, read, written, written)


def builds() -> list[Build]:
    """What is compiled without a GPU: a few rows in parts, many rows, and the sum of the parts."""
    found = [split_sum.build()]
    for name, dtype, blocks, warps, stages in (
        ("few/bf16", "bf16", (16, BLOCK_N), 4, 4),
        ("few/1/fp16", "fp16", (16, BLOCK_N), 4, 4),
        ("many/bf16", "bf16", (128, 128), 8, 3),
    ):
        out = "*fp32" if name.startswith("few") else f"*{dtype}"
        pointers = {"x_ptr": f"*{dtype}", "w_ptr": "*i16", "scale_ptr": "*fp32", "out_ptr": out}
        signature = {argument: pointers.get(argument, "i32") for argument in _linear.arg_names}
        constants = {"BLOCK": BLOCK, "BLOCK_M": blocks[0], "BLOCK_N": blocks[1]}
        if "/1/" in name:  # an argument that is 1 is a constant in a compiled kernel
            constants["rows"] = 1
        found.append(
            Build(f"int8/{name}", _linear, signature, constants, warps, stages, odd=("rows",))
        )
    return found
