"""Rung 5: whole tiles fetched by the copy engine (TMA, Hopper and later) from a description of the matrix.

With pointers, every thread computes addresses and masks for its part of a tile. Here one thread names the tile's
corner; the engine finds the addresses, fills what lies outside with zeros, and writes into shared memory.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from smml.errors import UserError
from smml.kernels import operands
from smml.kernels.interpreter import cast, dot
from smml.kernels.matmul import problem
from smml.kernels.matmul.l2_ordered import tile_at
from smml.kernels.resources import Build
from smml.kernels.tuning import autotune

TILE = (128, 256)
ALIGNMENT_BYTES = (
    16  # of the base and of the distance of rows (CUDA driver API, cuTensorMapEncodeTiled)
)
TARGETS = (90, 100)  # where the copy engine is


@triton.jit
def load_tile(descriptor, row, column, TRANSPOSED: tl.constexpr):
    """The tile whose corner is (row, column), of a matrix described as it is or, TRANSPOSED, by its transpose."""
    if TRANSPOSED:
        return descriptor.load([column, row]).T
    else:  # noqa: RET505 (traced: only one branch exists in a compiled kernel)
        return descriptor.load([row, column])


@triton.jit
def _described(
    a, b, c, m, n, k, m_bucket, A_TRANSPOSED: tl.constexpr, B_TRANSPOSED: tl.constexpr, ITEMSIZE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    row, column = tile_at(tl.program_id(0), tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N), GROUP_M)
    row, column = row * BLOCK_M, column * BLOCK_N
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, k, BLOCK_K):
        left = load_tile(a, row, start, A_TRANSPOSED)  # [BLOCK_M, BLOCK_K]
        right = load_tile(b, start, column, B_TRANSPOSED)  # [BLOCK_K, BLOCK_N]
        total = dot(left, right, total)
    c.store([row, column], cast(total, c.dtype))


def set_blocks(arguments: dict[str, object]) -> None:
    """Give the descriptors among a kernel's arguments the tile shapes of the configuration about to run."""
    m, n, k = (arguments[f"BLOCK_{letter}"] for letter in "MNK")
    for name, block in {"a": [m, k], "b": [k, n]}.items():
        transposed = arguments[f"{name.upper()}_TRANSPOSED"]
        arguments[name].block_shape = block[::-1] if transposed else block
    arguments["c"].block_shape = [m, n // arguments.get("STORES", 1)]


def config(
    m: int, n: int, k: int, group: int, warps: int, stages: int, **more: int
) -> triton.Config:
    """A configuration whose descriptors are shaped before it runs."""
    shape = {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "GROUP_M": group}
    return triton.Config(shape | more, num_warps=warps, num_stages=stages, pre_hook=set_blocks)


CONFIGS_16_BIT = (
    config(128, 256, 64, 16, 8, 4),
    config(128, 128, 64, 8, 4, 3),
    config(256, 128, 64, 8, 8, 4),
    config(64, 128, 64, 8, 4, 4),
)
# Larger tiles of float32, whose operands every thread holds in registers, spill.
CONFIGS_32_BIT = (config(128, 64, 16, 8, 8, 3), config(64, 64, 16, 8, 4, 4))
KEY = ("m_bucket", "n", "k", "A_TRANSPOSED", "B_TRANSPOSED")
_16_bit = autotune(CONFIGS_16_BIT, KEY)(_described)
_32_bit = autotune(CONFIGS_32_BIT, KEY)(_described)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a [M, K] · b [K, N], accumulated in float32, in their dtype. Not differentiable.

    Raises UserError for operands that do not fit each other, and where `refusal` finds that TMA cannot fetch them.
    """
    c = problem.result("matmul.descriptors", a, b)
    if reason := refusal(a, b):
        raise UserError(f"matmul.descriptors: {reason}: use matmul.pipelined.")
    (m, n), k = c.shape, a.shape[1]
    kernel = _16_bit if a.itemsize == 2 else _32_bit
    with operands.on(a):
        kernel[lambda meta: (triton.cdiv(m, meta["BLOCK_M"]) * triton.cdiv(n, meta["BLOCK_N"]),)](
            *described(a, b, c), m, n, k, triton.next_power_of_2(m), *flags(a, b)
        )
    return c


def described(*matrices: Tensor) -> list[TensorDescriptor]:
    """A descriptor of each matrix or of its transpose, whichever has contiguous rows; the blocks come later."""
    stored = [x.T if transposed(x) else x for x in matrices]
    return [TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1]) for x in stored]


def flags(a: Tensor, b: Tensor) -> tuple[bool, bool, int]:
    """A_TRANSPOSED, B_TRANSPOSED, ITEMSIZE of a kernel."""
    return transposed(a), transposed(b), a.itemsize


def transposed(x: Tensor) -> bool:
    """Whether x's columns, and not its rows, are contiguous."""
    return x.stride(1) != 1


def refusal(a: Tensor, b: Tensor) -> str | None:
    """Why the copy engine cannot serve a·b, or None: the hardware, an empty operand, or one out of alignment.

    One stride of each operand must be 1 and the other, like the address, a multiple of 16 bytes; C's rows, too.
    """
    if a.is_cuda and torch.cuda.get_device_capability(a.device) < (9, 0):
        return f"{torch.cuda.get_device_name(a.device)} has no TMA, which came with Hopper"
    if not (a.numel() and b.numel()):
        return f"an operand is empty ({list(a.shape)} · {list(b.shape)})"
    for name, x in (("a", a), ("b", b)):
        far, near = x.stride() if x.stride(1) == 1 else x.stride()[::-1]
        if near != 1 or far <= 0 or far * x.itemsize % ALIGNMENT_BYTES:
            return (
                f"{name} has strides {list(x.stride())}; one must be 1 and the other a positive multiple of "
                f"{ALIGNMENT_BYTES // x.itemsize} elements ({ALIGNMENT_BYTES} bytes)"
            )
        if x.data_ptr() % ALIGNMENT_BYTES:
            return (
                f"{name} starts at {x.data_ptr():#x}, not at a multiple of {ALIGNMENT_BYTES} bytes"
            )
    if b.shape[1] * b.itemsize % ALIGNMENT_BYTES:
        return (
            f"C has rows of {b.shape[1]} elements; they must be a multiple of {ALIGNMENT_BYTES // b.itemsize} "
            f"({ALIGNMENT_BYTES} bytes)"
        )
    return None


def descriptor_build(
    name: str, kernel: object, config: triton.Config, dtype: str, b_transposed: bool
) -> Build:
    """The build of a kernel with this file's descriptor arguments, for one configuration."""
    blocks = {letter: config.kwargs[f"BLOCK_{letter}"] for letter in "MNK"}
    m, n, k = blocks.values()
    described = {
        "a": (m, k),
        "b": (n, k) if b_transposed else (k, n),
        "c": (m, n // config.kwargs.get("STORES", 1)),
    }
    signature = {x: f"tensordesc<{dtype}[{r}, {c}]>" for x, (r, c) in described.items()}
    signature |= dict.fromkeys(("m", "n", "k", "m_bucket"), "i32")
    constants = config.kwargs | {
        "A_TRANSPOSED": False,
        "B_TRANSPOSED": b_transposed,
        "ITEMSIZE": 4 if dtype == "fp32" else 2,
    }
    warps, stages = config.num_warps, config.num_stages
    return Build(name, kernel, signature, constants, warps, stages, TARGETS)


def builds() -> list[Build]:
    """What is compiled without a GPU: a weight stored as [N, K], and float32."""
    return [
        descriptor_build(
            "matmul/descriptors/bf16", _described, CONFIGS_16_BIT[0], "bf16", b_transposed=True
        ),
        descriptor_build(
            "matmul/descriptors/fp32", _described, CONFIGS_32_BIT[0], "fp32", b_transposed=True
        ),
    ]
