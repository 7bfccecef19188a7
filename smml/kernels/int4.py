"""Linear layer with 4-bit weights: y = x·Wᵀ, each group of a row's integers times its own scale.

Four integers lie in a 16-bit word, a quarter of the group apart: the word's lowest bits of neighbouring words are
neighbouring columns, so that the quarters go to the matrix units one after the other and none is shuffled. A group of
all rows lies together [K/group, N, group/4]: what a program reads is one piece. An integer becomes a number without
a conversion: its bits under the exponent of 128 (bfloat16; 1024 for float16) are that number plus the integer.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands
from smml.kernels.int8 import BLOCK_N, check_weight, launch, scale_type
from smml.kernels.interpreter import INTERPRETED, cast, dot
from smml.kernels.resources import TARGETS, Build
from smml.kernels.tuning import autotune
from smml.roofline import Work

OP = "linear_int4"  # in errors
LEAST, LARGEST = -8, 7
PER_WORD = 4
GROUPS = (64, 128, 256)


class Int4Weight(NamedTuple):
    """words [K/group, N, group/4] int16, scale [K/group, N] float32, `columns` K of the matrix.

    Bits 4j…4j+3 of word i of a group hold integer + 8 of its column j·group/4 + i. The last group is filled with zeros.
    """

    words: Tensor
    scale: Tensor
    columns: int


def quantize_int4(weight: Tensor, group: int = 128) -> Int4Weight:
    """weight [N, K] as integers −8…7, symmetric, a scale for each `group` columns of a row; error at most scale ÷ 2.

    The largest of a group becomes ±7. Raises UserError for a group not in GROUPS and for what is no finite matrix.
    """
    check_weight("quantize_int4", weight)
    if group not in GROUPS:
        allowed = ", ".join(map(str, GROUPS))
        raise UserError(f"quantize_int4: groups of {group}; allowed are {allowed}.")
    outputs, columns = weight.shape
    count = -(-columns // group)
    padded = torch.nn.functional.pad(weight.float(), (0, count * group - columns))
    grouped = padded.view(outputs, count, group).transpose(0, 1)  # [G, N, group]
    scale = grouped.abs().amax(2) / LARGEST
    scale = torch.where(scale > 0, scale, 1.0)  # a group of zeros has any scale
    integers = (grouped / scale[..., None]).round().clamp(LEAST, LARGEST).int() - LEAST
    quarters = integers.view(count, outputs, PER_WORD, group // PER_WORD)
    words = sum(quarters[:, :, j] << (4 * j) for j in range(PER_WORD))
    # 16 bits without a sign do not fit into int16's range as numbers, as bits they do.
    words = torch.where(words > 32_767, words - 65_536, words).to(torch.int16).contiguous()
    return Int4Weight(words, scale.contiguous(), columns)


def dequantize(weight: Int4Weight, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix [N, K] that the integers stand for."""
    words = weight.words.int()
    quarters = [((words >> (4 * j)) & 0xF) + LEAST for j in range(PER_WORD)]
    wide = scale_type(dtype)
    grouped = torch.cat(quarters, -1).to(wide) * weight.scale.to(wide)[..., None]  # [G, N, group]
    return grouped.transpose(0, 1).flatten(1)[:, : weight.columns].to(dtype)


def _assembly(quarter: int, kind: str, power: int, one: int, minus: int) -> str:
    """PTX for two words side by side: keep 4 bits of each, put them under an exponent, subtract it and 8."""
    return f"""{{
    .reg .b32 bits, one, minus;
    shr.u32 bits, $1, {4 * quarter};
    lop3.b32 bits, bits, 0x000F000F, 0x{power:04X}{power:04X}, 0xEA;
    mov.b32 one, 0x{one:04X}{one:04X};
    mov.b32 minus, 0x{minus:04X}{minus:04X};
    fma.rn.{kind} $0, bits, one, minus;
    }}"""


# 128, 1 and −136 in bfloat16; 1024, 1 and −1032 in float16.
BFLOAT16 = [_assembly(j, "bf16x2", 0x4300, 0x3F80, 0xC308) for j in range(PER_WORD)]
FLOAT16 = [_assembly(j, "f16x2", 0x6400, 0x3C00, 0xE408) for j in range(PER_WORD)]
B0, B1, B2, B3 = map(tl.constexpr, BFLOAT16)
F0, F1, F2, F3 = map(tl.constexpr, FLOAT16)


@triton.jit
def _unpack(words, dtype: tl.constexpr, j: tl.constexpr, bf16: tl.constexpr, fp16: tl.constexpr):
    """The integers in bits 4j…4j+3 of words, less 8, as `dtype`; exact in every one."""
    if INTERPRETED or dtype == tl.float32:
        return (((words >> (4 * j)) & 0xF) - 8).to(tl.float32)
    elif dtype == tl.bfloat16:  # noqa: RET505 (traced: only one branch exists in a compiled kernel)
        return tl.inline_asm_elementwise(bf16, "=r,r", [words], tl.bfloat16, is_pure=True, pack=2)
    else:
        return tl.inline_asm_elementwise(fp16, "=r,r", [words], tl.float16, is_pure=True, pack=2)


@triton.jit
def _linear(
    x_ptr, w_ptr, scale_ptr, out_ptr, x_stride, rows, outputs, inner, part,
    GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    WORDS: tl.constexpr = GROUP // 4
    # Neighbouring programs share their weights.
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(2)
    first = split * part
    last = tl.minimum(first + part, inner)
    i = tl.arange(0, WORDS)
    x_ptrs = x_ptr + m.to(tl.int64)[None, :] * x_stride + i[:, None]
    is_row = (m < rows)[None, :]
    acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    channel = (first // GROUP) * tl.cast(outputs, tl.int64) + n
    scale = tl.load(scale_ptr + channel, mask=n < outputs, other=0.0)
    for start in range(first, last, GROUP):
        # Reads BLOCK_N·GROUP/2 bytes of weights.
        w = tl.load(
            w_ptr + channel[:, None] * WORDS + i[None, :], mask=(n < outputs)[:, None], other=0
        )
        channel += outputs
        # One group ahead: what feeds no product, Triton does not copy ahead by itself.
        ahead = (n < outputs) & (start + GROUP < last)
        next_scale = tl.load(scale_ptr + channel, mask=ahead, other=0.0)
        k = start + i[:, None]
        x0 = tl.load(x_ptrs + start, mask=is_row & (k < last), other=0.0)
        x1 = tl.load(x_ptrs + start + WORDS, mask=is_row & (k + WORDS < last), other=0.0)
        x2 = tl.load(x_ptrs + start + 2 * WORDS, mask=is_row & (k + 2 * WORDS < last), other=0.0)
        x3 = tl.load(x_ptrs + start + 3 * WORDS, mask=is_row & (k + 3 * WORDS < last), other=0.0)
        of_group = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
        of_group = dot(_unpack(w, x0.dtype, 0, B0, F0), x0, of_group)
        of_group = dot(_unpack(w, x0.dtype, 1, B1, F1), x1, of_group)
        of_group = dot(_unpack(w, x0.dtype, 2, B2, F2), x2, of_group)
        of_group = dot(_unpack(w, x0.dtype, 3, B3, F3), x3, of_group)
        acc += of_group * scale[:, None]
        scale = next_scale
    place = (split * tl.cast(rows, tl.int64) + m)[:, None] * outputs + n[None, :]
    tl.store(
        out_ptr + place,
        cast(tl.trans(acc), out_ptr.dtype.element_ty),
        mask=(m < rows)[:, None] & (n < outputs)[None, :],
    )


_few = autotune(
    [triton.Config({"BLOCK_N": BLOCK_N}, num_warps=4, num_stages=stages) for stages in (5, 8, 3)],
    key=["outputs", "inner", "GROUP"],
)(_linear)
_many = autotune(
    [
        triton.Config({"BLOCK_N": 128}, num_warps=warps, num_stages=stages)
        for warps, stages in ((8, 3), (8, 4), (4, 3))
    ],
    key=["outputs", "inner", "BLOCK_M", "GROUP"],
)(_linear)


def linear_int4(x: Tensor, weight: Int4Weight) -> Tensor:
    """x·Wᵀ [..., N] of x [..., K] and 4-bit weights, accumulated in float32, in the dtype of x. Not differentiable.

    Raises UserError for shapes, dtypes and devices that do not fit.
    """
    words, scale, columns = weight
    operands.check(OP, x=x)
    operands.same_device(OP, x=x, words=words, scale=scale)
    if x.dim() == 0 or x.shape[-1] != columns:
        raise UserError(f"{OP}: x has shape {list(x.shape)}; it must be [..., {columns}].")
    operands.shape(OP, "words", words, ("K/group", "N", "group/4"))
    group = words.shape[2] * PER_WORD
    fits = group in GROUPS and words.shape[0] == -(-columns // group) and words.dtype == torch.int16
    if not fits or scale.dtype != torch.float32:
        raise UserError(
            f"{OP}: words {list(words.shape)} of {operands.short(words.dtype)} with scales of "
            f"{operands.short(scale.dtype)} are not {columns} columns as quantize_int4 packs them."
        )
    operands.shape(OP, "scale", scale, tuple(words.shape[:2]))
    return _linear_int4(x, words, scale)


@torch.library.custom_op("smml::linear_int4", mutates_args=())
def _linear_int4(x: Tensor, words: Tensor, scale: Tensor) -> Tensor:
    tallest = _tallest(x.device)
    return launch(x, words, scale, _few, _many, tallest, GROUP=words.shape[2] * PER_WORD)


def _tallest(device: torch.device) -> int:
    """Rows of x a program: Blackwell keeps all four sums of a group in tensor memory, which 4 of 128 would overflow."""
    if INTERPRETED or torch.cuda.get_device_capability(device) < (10, 0):
        return 128
    return 64


@_linear_int4.register_fake
def _(x: Tensor, words: Tensor, scale: Tensor) -> Tensor:
    return torch.empty((*x.shape[:-1], words.shape[1]), dtype=x.dtype, device=x.device)


def reference(x: Tensor, weight: Int4Weight) -> Tensor:
    """The same in plain PyTorch: the weights written out, then multiplied."""
    wide = scale_type(x.dtype)
    return (x.to(wide) @ dequantize(weight, wide).T).to(x.dtype)


def work(rows: int, outputs: int, inner: int, itemsize: int, group: int = 128) -> Work:
    """2·M·N·K FLOPs; reads half a byte a weight, a float32 scale a group and x, writes y."""
    groups = -(-inner // group) * outputs
    read = groups * (group // 2 + 4) + rows * inner * itemsize
    written = rows * outputs * itemsize
    return Work(2 * rows * outputs * inner, read, written, written)


def builds() -> list[Build]:
    """What is compiled without a GPU: a few rows in parts, and many rows."""
    found = []
    for name, dtype, blocks, warps, stages, targets in (
        ("few/bf16", "bf16", (16, BLOCK_N), 4, 5, TARGETS),
        ("few/1/fp16", "fp16", (16, BLOCK_N), 4, 5, TARGETS),
        ("many/bf16", "bf16", (128, 128), 8, 3, (80, 90)),
        ("many/64/bf16", "bf16", (64, 128), 8, 3, (100,)),
    ):
        out = "*fp32" if name.startswith("few") else f"*{dtype}"
        pointers = {"x_ptr": f"*{dtype}", "w_ptr": "*i16", "scale_ptr": "*fp32"}
        pointers["out_ptr"] = out
        signature = {argument: pointers.get(argument, "i32") for argument in _linear.arg_names}
        constants = {"GROUP": 128, "BLOCK_M": blocks[0], "BLOCK_N": blocks[1]}
        if "/1/" in name:  # an argument that is 1 is a constant in a compiled kernel
            constants["rows"] = 1
        found.append(
            Build(
                f"int4/{name}", _linear, signature, constants, warps, stages, targets, odd=("rows",)
            )
        )
    return found
