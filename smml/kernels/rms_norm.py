"""RMSNorm over the last dimension, fused: forward reads a row once and writes one, backward reads two and writes one.

Backward also sums the weight's gradient over all rows: a program walks many rows and keeps its own sum in registers;
a second kernel adds the programs' sums in a fixed order, so that one input always gives the same bits.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands, rms_norm_rows
from smml.kernels.resources import Build
from smml.llama import ops
from smml.roofline import Work

WIDEST = (
    65_536  # columns; the sums of a wider weight's gradient do not fit into a program's registers
)
WARPS_A_PROCESSOR = 16  # in backward: each thread may take 128 registers
INTERPRETED_PROGRAMS = 4  # in backward, where there is no GPU whose processors could be counted
SUM_TILE = (
    16_384  # elements of the programs' sums that one program adds up, all on their way at once
)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / √(mean(x²) + eps) · weight over the last dimension, in x's dtype; x [..., D], weight [D] (arXiv:1910.07467).

    The weight is of x's dtype or float32, and so is its gradient; arithmetic is in float32, and rounds once.
    Raises UserError for other dtypes, shapes that do not fit, and D > WIDEST.
    """
    check("rms_norm", weight, x=x)
    return _rms_norm(x, weight, eps)


def check(op: str, weight: Tensor, **streams: Tensor) -> None:
    """Raise UserError unless streams [..., D] of one shape and dtype can be normalised with weight [D]."""
    operands.check(op, **streams)
    (first, x), *others = streams.items()
    operands.same_device(op, **{first: x}, weight=weight)
    if weight.dtype not in (x.dtype, torch.float32):
        raise UserError(
            f"{op}: weight is {operands.short(weight.dtype)} and {first} is {operands.short(x.dtype)}: "
            f"the weight must be {operands.short(x.dtype)} or float32; convert it with .to()."
        )
    if x.dim() == 0 or x.shape[-1] > WIDEST:
        raise UserError(
            f"{op}: {first} has shape {list(x.shape)}; its last dimension must have 1…{WIDEST} elements: "
            "use torch.nn.functional.rms_norm for wider ones."
        )
    operands.shape(op, "weight", weight, (x.shape[-1],))
    for name, other in others:
        operands.shape(op, name, other, tuple(x.shape))


@torch.library.custom_op("smml::rms_norm", mutates_args=())
def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return launch_forward(x, None, weight, eps)[0]


@_rms_norm.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@torch.library.custom_op("smml::rms_norm_backward", mutates_args=())
def _rms_norm_backward(dy: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return launch_backward(x, dy, None, weight, eps)


@_rms_norm_backward.register_fake
def _(dy: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return dx, torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
    x, weight, ctx.eps = inputs
    ctx.save_for_backward(x, weight)


_rms_norm.register_autograd(
    lambda ctx, dy: (*_rms_norm_backward(dy, *ctx.saved_tensors, ctx.eps), None),
    setup_context=_setup,
)


def launch_forward(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor | None]:
    """(y, total) of checked operands: total is x + residual, which y is the norm of; None without a residual."""
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    total = None if residual is None else torch.empty_like(y)
    if y.numel():
        x = operands.rows(x)  # [N, D]
        added = None if residual is None else operands.rows(residual)
        (count, columns), added_stride = x.shape, 0 if added is None else added.stride(0)
        buffers = (x, added, weight.contiguous(), y, total, x.stride(0), added_stride)
        options = forward_launch(columns, x.itemsize) | {"ADD": added is not None}
        with operands.on(x):
            if "PARTS" in options:
                rms_norm_rows.wide_forward[(count,)](*buffers, eps, columns, **options)
            else:
                grid = (triton.cdiv(count, options["ROWS"]),)
                rms_norm_rows.forward[grid](*buffers, count, columns, eps, **options)
    return y, total


def launch_backward(
    x: Tensor, dy: Tensor, dtotal: Tensor | None, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(dx, dweight): x is what was normalised, dy the norm's gradient; dtotal, where given, is added to dx."""
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dweight = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
    if not dx.numel():
        dweight.zero_()
    else:
        x, dy = operands.rows(x), operands.rows(dy)
        other = None if dtotal is None else operands.rows(dtotal)
        count, columns = x.shape
        options = backward_launch(columns, x.itemsize) | {"ADD": other is not None}
        tiles = triton.cdiv(count, options.get("ROWS", 1))
        programs = min(tiles, _resident_programs(x.device, options["num_warps"]))
        sums = torch.empty((programs, columns), dtype=torch.float32, device=x.device)
        buffers = (x, dy, other, weight.contiguous(), dx, sums)
        strides = (x.stride(0), dy.stride(0), 0 if other is None else other.stride(0))
        with operands.on(x):
            if "PARTS" in options:
                grid = rms_norm_rows.wide_backward[(programs,)]
                grid(*buffers, *strides, count, eps, columns, **options)
            else:
                grid = rms_norm_rows.backward[(programs,)]
                grid(*buffers, *strides, count, columns, eps, **options)
            summing = _sum_launch(programs)
            rms_norm_rows.add_up[(triton.cdiv(columns, summing["BLOCK"]),)](
                sums, dweight, programs, columns, **summing
            )
    return dx, dweight


def forward_launch(columns: int, itemsize: int) -> dict[str, int]:
    """Tile and warps: 16 or 32 elements a thread, several short rows a program; a wide row in parts of 16 KiB.

    16 elements of 2 bytes are two loads of 16 bytes, so that 1,500 threads have 48 KB on their way: more than one
    processor's share of bandwidth times latency.
    """
    block = triton.next_power_of_2(columns)
    if block > 16_384:
        return _parts(columns, itemsize) | {"maxnreg": 64}  # two programs a processor
    if block <= 1024:
        return {"ROWS": 4096 // block if block > 64 else 64, "BLOCK": block, "num_warps": 4}
    return {"ROWS": 1, "BLOCK": block, "num_warps": block // (512 if block <= 4096 else 1024)}


def backward_launch(columns: int, itemsize: int) -> dict[str, int]:
    """Tile and warps: 16 elements a thread, whose values, weight and sums fill its registers; a wide row in parts."""
    block = triton.next_power_of_2(columns)
    if block > 8192:
        return _parts(columns, itemsize)
    tile = max(block, 2048)
    return {
        "ROWS": min(tile // block, 64),
        "BLOCK": block,
        "STAGES": 3 if itemsize == 2 else 2,  # of float32, two rows to come do not fit on an A100
        "num_warps": tile // 512,
    }


def _parts(columns: int, itemsize: int) -> dict[str, int]:
    block = 16_384 // itemsize
    return {"PARTS": triton.cdiv(columns, block), "BLOCK": block, "num_warps": 16}


def _sum_launch(programs: int) -> dict[str, int]:
    padded = triton.next_power_of_2(programs)
    return {"PROGRAMS": padded, "BLOCK": max(SUM_TILE // padded, 4), "num_warps": 8}


def _resident_programs(device: torch.device, num_warps: int) -> int:
    """Programs of so many warps that a GPU runs at once."""
    if device.type != "cuda":
        return INTERPRETED_PROGRAMS
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return processors * max(WARPS_A_PROCESSOR // num_warps, 1)


reference = ops.rms_norm


def work(rows: int, columns: int, itemsize: int) -> Work:
    """4 FLOPs an element (square, sum, two products); reads rows and weight, writes rows."""
    size = rows * columns * itemsize
    return Work(4 * rows * columns, size + columns * itemsize, size, size)


def backward_work(rows: int, columns: int, itemsize: int) -> Work:
    """12 FLOPs an element: 2 for the mean, 2 products, 2 for the sum along the row, 4 for dx, 2 for dweight.

    Reads x, dy and the weight, writes dx and dweight.
    """
    size, row = rows * columns * itemsize, columns * itemsize
    return Work(12 * rows * columns, 2 * size + row, size + row, size + row, launches=2)


def builds() -> list[Build]:
    """What is compiled without a GPU: rows that fill registers, rows in parts, and the programs' sums."""
    summing = _sum_launch(528)
    warps = summing.pop("num_warps")
    signature = {"sums_ptr": "*fp32", "dweight_ptr": "*bf16", "programs": "i32", "columns": "i32"}
    return [
        *builds_of("rms_norm", add=False),
        Build("rms_norm/add_up", rms_norm_rows.add_up, signature, summing, warps),
    ]


def builds_of(op: str, *, add: bool) -> list[Build]:
    """Forward and backward in bfloat16, with a residual or without, of a narrow row and of a wide one."""
    tensors = ("x_ptr", "residual_ptr", "total_ptr", "dtotal_ptr", "dy_ptr", "y_ptr", "dx_ptr")
    numbers = ("x_stride", "residual_stride", "dy_stride", "dtotal_stride", "rows", "columns")
    kinds = {"sums_ptr": "*fp32", "weight_ptr": "*bf16", "eps": "fp32"}
    kinds |= dict.fromkeys(tensors, "*bf16") | dict.fromkeys(numbers, "i32")
    absent = ("residual_ptr", "residual_stride", "total_ptr", "dtotal_ptr", "dtotal_stride")
    found = []
    for columns in (4096, 32_768):
        for way, launch in (("forward", forward_launch), ("backward", backward_launch)):
            options = launch(columns, 2)
            wide = "PARTS" in options
            kernel = getattr(rms_norm_rows, f"wide_{way}" if wide else way)
            constants = {k: v for k, v in options.items() if k.isupper()} | {"ADD": add}
            if wide:
                constants["columns"] = columns
            if not add:
                missing = [name for name in absent if name in kernel.arg_names]
                constants |= {name: 0 if "stride" in name else None for name in missing}
            found.append(
                Build(
                    f"{op}/{columns}/{way}",
                    kernel,
                    kinds,
                    constants,
                    options["num_warps"],
                    # The sums take 64 of the 128 registers a thread; how the rest is shared out is the compiler's.
                    spill_bytes=400 if wide and way == "backward" else 0,
                    options={k: v for k, v in options.items() if k == "maxnreg"},
                )
            )
    return found
