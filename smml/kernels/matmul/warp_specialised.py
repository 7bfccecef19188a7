"""Rung 7: each warp has one job. One loads, two warpgroups multiply, and none waits for the others but through barriers.

The compiler of the earlier rungs lets every warp load, multiply and store in turn. Here the jobs are written by hand,
in Gluon (see hopper.py): loads run ahead of the products across the borders of tiles, a tile's sums leave while the
next one's operands already lie in shared memory, and of the registers nearly all go to those who hold the sums.
"""

import functools
from typing import Any

import torch
import triton
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands
from smml.kernels.matmul import problem
from smml.kernels.resources import Build

OP = "matmul.warp_specialised"
DTYPES = (torch.bfloat16, torch.float16)
ROW_BYTES = 16  # TMA wants rows of a matrix, and its first element, at multiples of this
BLOCK_M, BLOCK_K_BYTES = 128, 128
GROUP = (
    16  # 16 rows of 128 × 8 columns of 256: what 128 multiprocessors work on is a square of 2048
)
# 192 KiB of operands in shared memory, with the 32 KiB of `staging` nearly all that there is: 4 or 6 stages.
RING_BYTES = 192 * 1024
WARPS = 4  # of the first consumer; Gluon adds those of the second and of the loader
# (4 + 4 + 4) warps · 32 threads · 168 registers are all of a multiprocessor's 65,536, rounded down to steps of 8.
LAUNCH = {"num_warps": WARPS, "maxnreg": 168}


def available(device: torch.device | str = "cuda") -> bool:
    """Whether `device` is a GPU of compute capability 9 (Hopper) and this Triton ships Gluon."""
    device = torch.device(device)
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device)[0] == 9 and _gluon()


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a [M, K] · b [K, N], accumulated in float32, in their dtype, bfloat16 or float16. Not differentiable.

    Either may be a transposed view: it is read where it lies. Other layouts are copied. Raises UserError off Hopper,
    for other dtypes, and where K or N is no multiple of 8, which the copy engine cannot address.
    """
    require(OP, a.device)
    operands.check(OP, dtypes=DTYPES, a=a, b=b)
    c = problem.result(OP, a, b)
    (m, n), k = c.shape, a.shape[1]
    if not c.numel():
        return c
    if not k:
        return c.zero_()
    for name, length in (("K", k), ("N", n)):
        if length * a.itemsize % ROW_BYTES:
            raise UserError(
                f"{OP}: {name} is {length}; it must be a multiple of {ROW_BYTES // a.itemsize}: pad with zeros, "
                "or use smml.kernels.matmul.pipelined."
            )
    block_n = tile_columns(m, n, multiprocessors(a.device))
    with operands.on(a):
        launch(*addressable(a), *addressable(b), c, block_n)
    return c


def require(op: str, device: torch.device) -> None:
    """Raise UserError unless `available(device)`."""
    if not available(device):
        raise UserError(
            f"{op}: runs on a Hopper GPU only (compute capability 9, Triton with Gluon), and the operands are on "
            f"{device}: use smml.kernels.matmul.pipelined."
        )


def addressable(x: Tensor) -> tuple[Tensor, bool]:
    """x or x transposed, whichever has its rows in memory as TMA wants them, and whether it is the second; else a copy."""
    for memory, transposed in ((x, False), (x.T, True)):
        stride, unit = memory.stride()
        misaligned = stride * x.itemsize % ROW_BYTES or x.data_ptr() % ROW_BYTES
        if unit == 1 and stride >= memory.shape[1] and not misaligned:
            return memory, transposed
    # Not .contiguous(): that returns a misaligned tensor, or one row of any stride, as it is.
    return x.clone(memory_format=torch.contiguous_format), False


def tile_columns(m: int, n: int, multiprocessors: int) -> int:
    """256 or 128 columns a tile: the one whose rounds of tiles take less.

    The narrow tile reads 4/3 as many bytes a FLOP, and is taken to be slower by that, which L2 makes it at worst.
    """

    def time(columns: int, slowness: float) -> float:
        tiles = triton.cdiv(m, BLOCK_M) * triton.cdiv(n, columns)
        return triton.cdiv(tiles, multiprocessors) * columns * slowness

    return 256 if time(256, 1) <= time(128, 4 / 3) else 128


def launch(
    a: Tensor,
    a_transposed: bool,
    b: Tensor,
    b_transposed: bool,
    c: Tensor,
    block_n: int,
    scales: tuple[Tensor, Tensor] | None = None,
    promoted: bool = False,
) -> None:
    """Fill c [M, N] from operands as `addressable` gives them; scales [M] and [N] (or one number each) in float32."""
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    from smml.kernels.matmul import hopper

    m, n = c.shape
    k = a.shape[0] if a_transposed else a.shape[1]
    constants = _constants(a.itemsize, block_n, a_transposed, b_transposed, promoted)
    shapes = _boxes(constants)
    described = [
        TensorDescriptor.from_tensor(x, list(shape), _layout(x.itemsize))
        for x, shape in zip((a, b, c), shapes, strict=True)
    ]
    given = (None, None, 0, 0)
    if scales:
        given = (*scales, *(int(scale.numel() > 1) for scale in scales))
    tiles = triton.cdiv(m, BLOCK_M) * triton.cdiv(n, block_n)
    grid = (min(tiles, multiprocessors(c.device)),)
    hopper.gemm[grid](*described, *given, m, n, k, **constants, SCALED=bool(scales), **LAUNCH)


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Multiprocessors of a GPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count


def build(
    name: str,
    dtype: str,
    block_n: int,
    transposed: tuple[bool, bool],
    scaled: bool = False,
    promoted: bool = False,
) -> Build:
    """A build for operands of `dtype` as Triton writes it, of which the named ones lie transposed; C is bf16 or fp16."""
    from smml.kernels.matmul import hopper

    itemsize = 1 if dtype.startswith("fp8") else 2
    out = "bf16" if itemsize == 1 else dtype
    constants = _constants(itemsize, block_n, *transposed, promoted) | {"SCALED": scaled}
    signature = dict.fromkeys(hopper.gemm.arg_names, "i32")
    for argument, kind, shape in zip("abc", (dtype, dtype, out), _boxes(constants), strict=True):
        layout = _layout(itemsize if argument != "c" else 2)
        signature[f"{argument}_desc"] = f"tensordesc<{kind}[{shape[0]}, {shape[1]}],{layout!r}>"
    signature |= {"a_scale_ptr": "*fp32", "b_scale_ptr": "*fp32"}
    if not scaled:
        constants |= dict.fromkeys(("a_scale_ptr", "b_scale_ptr"))
        constants |= dict.fromkeys(("a_scale_stride", "b_scale_stride"), 0)
    return Build(
        name,
        hopper.gemm,
        signature,
        constants,
        num_warps=WARPS,
        targets=(90,),
        odd=("a_scale_stride", "b_scale_stride"),
        gluon=True,
        options={"maxnreg": LAUNCH["maxnreg"]},
    )


def builds() -> list[Build]:
    """What is compiled without a GPU: forward by a weight [N, K], both of a backward's products, and narrow tiles."""
    return [
        build("matmul/warp_specialised/256/bf16/x·Wᵀ", "bf16", 256, (False, True)),
        build("matmul/warp_specialised/256/bf16/dy·W", "bf16", 256, (False, False)),
        build("matmul/warp_specialised/256/bf16/dyᵀ·x", "bf16", 256, (True, False)),
        build("matmul/warp_specialised/128/fp16/x·Wᵀ", "fp16", 128, (False, True)),
    ]


def _gluon() -> bool:
    """Whether Gluon's names for Hopper that the kernel uses can be imported; Triton marks them as experimental."""
    try:
        from smml.kernels.matmul import hopper
    except (ImportError, AttributeError):
        return False
    return hopper.gemm.is_gluon()


@functools.cache
def _layout(itemsize: int) -> Any:
    """How a box lies in shared memory: rows of 128 bytes, swizzled so that no two threads meet in a bank."""
    from triton.experimental.gluon import language as gl

    return gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=8 * itemsize, rank=2)


def _constants(
    itemsize: int, block_n: int, a_transposed: bool, b_transposed: bool, promoted: bool
) -> dict[str, Any]:
    block_k = BLOCK_K_BYTES // itemsize
    return {
        "BLOCK_N": block_n,
        "BLOCK_K": block_k,
        "A_TRANSPOSED": a_transposed,
        "B_TRANSPOSED": b_transposed,
        "STAGES": RING_BYTES // ((BLOCK_M + block_n) * BLOCK_K_BYTES),
        "GROUP": GROUP,
        "PROMOTED": promoted,
    }


def _boxes(constants: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    """Boxes of A, B and C that one copy moves, rows and columns as they lie in memory."""
    from smml.kernels.matmul import hopper

    block_n, block_k = constants["BLOCK_N"], constants["BLOCK_K"]
    rows, piece = hopper.ROWS.value, hopper.SLICE.value
    a, b = (rows, block_k), (block_k, block_n)
    return (
        a[::-1] if constants["A_TRANSPOSED"] else a,
        b[::-1] if constants["B_TRANSPOSED"] else b,
        (rows, piece),
    )
