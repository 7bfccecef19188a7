"""The product of 8-bit floating-point matrices: twice the FLOP/s of bfloat16, half the bytes, and numbers of 4 bits.

Each row of A and each column of B brings a scale (see fp8_rows.py), which leaves the sum over K: scales multiply C
afterwards. On Hopper the product is the warp-specialised kernel of hopper.py, elsewhere the one below.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands
from smml.kernels.interpreter import INTERPRETED, cast, dot
from smml.kernels.matmul import fp8_rows, warp_specialised
from smml.kernels.matmul.fp8_rows import FP8, operand, quantize
from smml.kernels.resources import Build
from smml.roofline import Work

OP = "matmul.fp8"
TILE = {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 128, "GROUP": 8}
# One tile of 128 × 128 sums and as many that wait to be added, in 8 warps: 128 registers of a thread's 255.
LAUNCH = {"num_warps": 8, "num_stages": 4}


@triton.jit
def _matmul_kernel(
    a_desc,
    b_desc,
    c_ptr,
    a_scale_ptr,
    b_scale_ptr,
    a_scale_stride,
    b_scale_stride,
    M,
    N,
    K,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    PROMOTED: tl.constexpr,
):
    # GROUP rows of tiles are walked column by column, so that what runs at once shares operands in L2.
    tile = tl.program_id(0)
    in_group = GROUP * tl.cdiv(N, BLOCK_N)
    first = tile // in_group * GROUP
    height = min(tl.cdiv(M, BLOCK_M) - first, GROUP)
    row = (first + tile % in_group % height) * BLOCK_M
    column = tile % in_group // height * BLOCK_N

    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for depth in range(0, K, BLOCK_K):
        a = a_desc.load([row, depth])  # [BLOCK_M, BLOCK_K]
        b = b_desc.load([column, depth])  # [BLOCK_N, BLOCK_K]
        if INTERPRETED:
            acc = dot(operand(a), operand(b).T, acc)
        elif PROMOTED:
            acc = tl.dot(a, b.T, acc, max_num_imprecise_acc=BLOCK_K)
        else:
            acc = tl.dot(a, b.T, acc)

    rows = row + tl.arange(0, BLOCK_M)
    columns = column + tl.arange(0, BLOCK_N)
    a_scale = tl.load(a_scale_ptr + rows * a_scale_stride, mask=rows < M, other=0.0)
    b_scale = tl.load(b_scale_ptr + columns * b_scale_stride, mask=columns < N, other=0.0)
    c = acc * a_scale[:, None] * b_scale[None, :]
    at = c_ptr + rows.to(tl.int64)[:, None] * N + columns[None, :]
    tl.store(at, cast(c, tl.bfloat16), mask=(rows < M)[:, None] & (columns < N)[None, :])


def matmul(
    a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, *, fast_accumulation: bool = False
) -> Tensor:
    """(a · a_scale) · (b · b_scale) [M, N] in bfloat16 from a [M, K] and b [K, N] in float8_e4m3fn. Not differentiable.

    Scales are float32: one number, or [M, 1] and [1, N]. K must be a multiple of 16 and N of 8. b is a weight [N, K]
    transposed; another layout is copied. Hopper's matrix unit keeps about 14 bits of an fp8 sum (DeepSeek-V3 Technical
    Report, 2024, 3.3.2): sums go to float32 every 128 products, unless `fast_accumulation`. Raises UserError for what
    does not fit.
    """
    operands.check(OP, dtypes=(FP8,), a=a, b=b)
    operands.same_device(OP, a=a, b=b, a_scale=a_scale, b_scale=b_scale)
    operands.shape(OP, "a", a, ("M", "K"))
    operands.shape(OP, "b", b, (a.shape[1], "N"))
    for name, length, unit in (("K", a.shape[1], 16), ("N", b.shape[1], 8)):
        if length % unit:
            raise UserError(
                f"{OP}: {name} is {length}; it must be a multiple of {unit}: pad with zeros."
            )
    for name, scale, rows in (
        ("a_scale", a_scale, (a.shape[0], 1)),
        ("b_scale", b_scale, (1, b.shape[1])),
    ):
        if scale.dtype != torch.float32 or (scale.numel() != 1 and tuple(scale.shape) != rows):
            raise UserError(
                f"{OP}: {name} is {operands.short(scale.dtype)} {list(scale.shape)}; it must be float32, one number "
                f"or {list(rows)}: quantize() makes them."
            )
    return _matmul(a, b, a_scale, b_scale, fast_accumulation)


@torch.library.custom_op("smml::matmul_fp8", mutates_args=())
def _matmul(
    a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, fast_accumulation: bool
) -> Tensor:
    fp8_rows.require(OP, a)
    (m, k), n = a.shape, b.shape[1]
    c = torch.empty((m, n), dtype=torch.bfloat16, device=a.device)
    if not c.numel():
        return c
    if not k:
        return c.zero_()
    a, weight = _addressable(a), _addressable(b.T)
    scales = a_scale.contiguous(), b_scale.contiguous()
    with operands.on(a):
        if warp_specialised.available(a.device):
            # Sums that wait to be added take as many registers as the sums: only narrow tiles leave room for them.
            columns = 128
            if fast_accumulation:
                count = warp_specialised.multiprocessors(a.device)
                columns = warp_specialised.tile_columns(m, n, count)
            promoted = not fast_accumulation
            warp_specialised.launch(a, False, weight, True, c, columns, scales, promoted)
        else:
            _launch(a, weight, c, scales, not fast_accumulation)
    return c


@_matmul.register_fake
def _(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, fast_accumulation: bool) -> Tensor:
    return a.new_empty((a.shape[0], b.shape[1]), dtype=torch.bfloat16)


def _launch(a: Tensor, b: Tensor, c: Tensor, scales: tuple[Tensor, Tensor], promoted: bool) -> None:
    from triton.tools.tensor_descriptor import TensorDescriptor

    (m, n), k = c.shape, a.shape[1]
    described = (
        TensorDescriptor.from_tensor(a, [TILE["BLOCK_M"], TILE["BLOCK_K"]]),
        TensorDescriptor.from_tensor(b, [TILE["BLOCK_N"], TILE["BLOCK_K"]]),
    )
    grid = (triton.cdiv(m, TILE["BLOCK_M"]) * triton.cdiv(n, TILE["BLOCK_N"]),)
    strides = (int(scale.numel() > 1) for scale in scales)
    _matmul_kernel[grid](
        *described, c, *scales, *strides, m, n, k, **TILE, PROMOTED=promoted, **LAUNCH
    )


def _addressable(x: Tensor) -> Tensor:
    """x [R, K] with contiguous rows that TMA can address; a copy where it must be."""
    memory, transposed = warp_specialised.addressable(x)
    return memory.T.contiguous() if transposed else memory


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., K] · weight [N, K]ᵀ in bfloat16, multiplied in fp8; its gradients are multiplied in bfloat16.

    Both are quantised row by row on the way. Raises UserError for other dtypes and shapes, as `matmul` does.
    """
    operands.check("linear_fp8", dtypes=(torch.bfloat16,), x=x, weight=weight)
    operands.shape("linear_fp8", "weight", weight, ("N", x.shape[-1] if x.dim() else "K"))
    if x.dim() == 0 or x.shape[-1] == 0 or x.shape[-1] % 16 or weight.shape[0] % 8:
        raise UserError(
            f"linear_fp8: x is {list(x.shape)} and weight {list(weight.shape)}; K must be a multiple of 16 and N of "
            "8: pad with zeros."
        )
    return _linear(x, weight)


@torch.library.custom_op("smml::linear_fp8", mutates_args=())
def _linear(x: Tensor, weight: Tensor) -> Tensor:
    q, scale = quantize(x.reshape(-1, x.shape[-1]))
    weight_q, weight_scale = quantize(weight)
    y = _matmul(q, weight_q.T, scale, weight_scale.T, False)
    return y.view(*x.shape[:-1], weight.shape[0])


@_linear.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _linear_backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:
    x, weight = ctx.saved_tensors
    dw = dy.reshape(-1, dy.shape[-1]).T @ x.reshape(-1, x.shape[-1])
    return dy @ weight, dw


_linear.register_autograd(
    _linear_backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs)
)


def reference(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor) -> Tensor:
    """`matmul` in plain PyTorch, in float32."""
    return ((a.float() @ b.float()) * a_scale * b_scale).to(torch.bfloat16)


def work(m: int, n: int, k: int) -> Work:
    """2·m·n·k FLOPs; reads a byte an element of a and b and 4 a scale of a row or column, writes 2 an element of c."""
    written = 2 * m * n
    return Work(2 * m * n * k, m * k + k * n + 4 * (m + n), written, written)


def builds() -> list[Build]:
    """What is compiled without a GPU: this file's kernels, and Hopper's with both ways to add."""
    a = f"tensordesc<fp8e4nv[{TILE['BLOCK_M']}, {TILE['BLOCK_K']}]>"
    b = f"tensordesc<fp8e4nv[{TILE['BLOCK_N']}, {TILE['BLOCK_K']}]>"
    strides = ("a_scale_stride", "b_scale_stride")
    signature = {"a_desc": a, "b_desc": b, "c_ptr": "*bf16"}
    signature |= {"a_scale_ptr": "*fp32", "b_scale_ptr": "*fp32"}
    signature |= dict.fromkeys((*strides, "M", "N", "K"), "i32")
    return [
        Build(
            "matmul/fp8/tile",
            _matmul_kernel,
            signature,
            TILE | {"PROMOTED": True},
            LAUNCH["num_warps"],
            LAUNCH["num_stages"],
            targets=(90, 100),  # an A100 has no fp8 units
            odd=strides,
        ),
        *fp8_rows.builds(),
        *(
            warp_specialised.build(
                f"matmul/fp8/warp_specialised/{name}",
                "fp8e4nv",
                columns,
                (False, True),
                True,
                promoted,
            )
            for name, columns, promoted in (("fast", 256, False), ("promoted", 128, True))
        ),
    ]
