"""Rotary embedding, fused: a program turns many heads of one token, so that its angles are read once for all of them.

x may be a view: of a product that holds queries, keys and values side by side, the first two are read where they stand.
"""

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

MOST_HEADS = 64  # of one program: with heads of 128, 32 numbers a thread of either half
PAIRS_A_WARP = 1024  # 32 a thread: four loads of 16 bytes of either half are on their way at once


@triton.jit
def _rotate(
    x_ptr,
    cos_ptr,
    sin_ptr,
    y_ptr,
    x_batch,
    x_token,
    x_head,
    cos_batch,
    cos_token,
    sin_batch,
    sin_token,
    tokens,
    heads,
    half,
    groups,
    BACKWARD: tl.constexpr,
    HEADS: tl.constexpr,
    PAIRS: tl.constexpr,
):
    place = tl.program_id(0) // groups  # token of all batches
    batch, token = (place // tokens).to(tl.int64), (place % tokens).to(tl.int64)
    pair = tl.arange(0, PAIRS)[None, :]  # [1, PAIRS], PAIRS ≥ half
    head = tl.program_id(0) % groups * HEADS + tl.arange(0, HEADS)[:, None]  # [HEADS, 1]
    real = pair < half
    inside = (head < heads) & real
    x_at = x_ptr + batch * x_batch + token * x_token + head.to(tl.int64) * x_head + pair
    first = tl.load(x_at, mask=inside, other=0.0).to(tl.float32)  # [HEADS, PAIRS]
    second = tl.load(x_at + half, mask=inside, other=0.0).to(tl.float32)
    cos_at = cos_ptr + batch * cos_batch + token * cos_token + pair
    sin_at = sin_ptr + batch * sin_batch + token * sin_token + pair
    cos_1 = tl.load(cos_at, mask=real, other=0.0).to(tl.float32)  # [1, PAIRS]
    cos_2 = tl.load(cos_at + half, mask=real, other=0.0).to(tl.float32)
    sin_1 = tl.load(sin_at, mask=real, other=0.0).to(tl.float32)
    sin_2 = tl.load(sin_at + half, mask=real, other=0.0).to(tl.float32)
    if (
        BACKWARD
    ):  # the transposed matrix of each pair: with the halves' opposite signs, the angle's negative
        sin_1, sin_2 = sin_2, sin_1
    y_at = y_ptr + (place.to(tl.int64) * heads + head) * 2 * half + pair
    dtype = y_ptr.dtype.element_ty
    tl.store(y_at, cast(first * cos_1 + second * sin_1, dtype), mask=inside)
    tl.store(y_at + half, cast(second * cos_2 + first * sin_2, dtype), mask=inside)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + d/2) of every head by its position's angle (arXiv:2104.09864); contiguous, in x's dtype.

    x [B, T, N, d], which may be a view with any strides; cos and sin [T, d] or [B, T, d] of x's dtype or float32, the
    first half of sin with the minus sign of the rotation. Float32 tables are not rounded to x's dtype first.
    Raises UserError for other shapes and dtypes, and for tables that want a gradient.
    """
    operands.check("rope", x=x)
    operands.check("rope", cos=cos, sin=sin)
    operands.same_device("rope", x=x, cos=cos)
    operands.shape("rope", "x", x, ("B", "T", "N", "d"))
    batch, tokens, _, width = x.shape
    if width % 2:
        raise UserError(f"rope: x has shape {list(x.shape)}; its last dimension must be even.")
    if cos.dtype not in (x.dtype, torch.float32):
        raise UserError(
            f"rope: cos is {operands.short(cos.dtype)} and x is {operands.short(x.dtype)}: "
            f"the tables must be {operands.short(x.dtype)} or float32; convert them with .to()."
        )
    for name, table in (("cos", cos), ("sin", sin)):
        each = (batch, tokens, width) if table.dim() == 3 else (tokens, width)
        operands.shape("rope", name, table, each)
        if table.requires_grad:
            raise UserError(f"rope: {name} wants a gradient, and gets none: pass {name}.detach().")
    return _rope(x, cos, sin, False)


@torch.library.custom_op("smml::rope", mutates_args=())
def _rope(x: Tensor, cos: Tensor, sin: Tensor, backward: bool) -> Tensor:
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if y.numel():
        x, cos, sin = (t if t.stride(-1) == 1 else t.contiguous() for t in (x, cos, sin))
        batch, tokens, heads, width = x.shape
        groups, launch = _launch(heads, width // 2)
        strides = (*x.stride()[:3], *_table_strides(cos), *_table_strides(sin))
        sizes = (tokens, heads, width // 2, groups)
        with operands.on(x):
            _rotate[(batch * tokens * groups,)](
                x, cos, sin, y, *strides, *sizes, BACKWARD=backward, **launch
            )
    return y


@_rope.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, backward: bool) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, bool], output: Tensor) -> None:
    _, cos, sin, ctx.backward = inputs
    ctx.save_for_backward(cos, sin)


_rope.register_autograd(
    lambda ctx, dy: (_rope(dy, *ctx.saved_tensors, not ctx.backward), None, None, None),
    setup_context=_setup,
)


def _table_strides(table: Tensor) -> tuple[int, int]:
    """Strides of batch and token; every batch reads the same [T, d]."""
    return (table.stride(0) if table.dim() == 3 else 0), table.stride(-2)


def _launch(heads: int, half: int) -> tuple[int, dict[str, int]]:
    """Programs a token, and the tile and warps of each: as few as hold at most MOST_HEADS, of equal size."""
    groups = triton.cdiv(heads, MOST_HEADS)
    tile = {
        "HEADS": triton.next_power_of_2(triton.cdiv(heads, groups)),
        "PAIRS": triton.next_power_of_2(half),
    }
    warps = tile["HEADS"] * tile["PAIRS"] // PAIRS_A_WARP
    return groups, tile | {"num_warps": min(max(warps, 1), 8)}


reference = ops.rope


def work(tokens: int, heads: int, width: int, itemsize: int) -> Work:
    """3 FLOPs an element (two products, a sum), forward and backward alike; reads x, writes y.

    Reads cos and sin of each token too, once for all its heads.
    """
    size = tokens * heads * width * itemsize
    table = tokens * width * itemsize
    return Work(3 * tokens * heads * width, size + 2 * table, size, size)


def builds() -> list[Build]:
    """What is compiled without a GPU: the heads of an 8B Llama forward, of a 1B one backward."""
    kinds = dict.fromkeys(("x_ptr", "cos_ptr", "sin_ptr", "y_ptr"), "*bf16")
    found = []
    for heads, half, backward in ((40, 64, False), (40, 32, True)):
        groups, launch = _launch(heads, half)
        warps = launch.pop("num_warps")
        numbers = [n for n in _rotate.arg_names if n.islower() and n not in kinds]
        found.append(
            Build(
                f"rope/{heads}x{2 * half}/{'backward' if backward else 'forward'}",
                _rotate,
                kinds | dict.fromkeys(numbers, "i32"),
                {**launch, "BACKWARD": backward, "groups": groups},
                warps,
                odd=("heads",),
            )
        )
    return found
