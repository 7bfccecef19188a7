"""Mean cross-entropy over wide rows of logits: one reading for the loss, a second one for the gradient.

The sum of exponents is kept relative to the largest logit seen so far (the online softmax of Milakov and Gimelshein,
arXiv:1805.02867), so that the maximum and the sum need one reading of a row instead of two. Every thread keeps a
maximum and a sum of its own: the loop over a row has no barrier, and the threads meet once, at its end.
"""

import math

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands
from smml.kernels.interpreter import cast
from smml.kernels.resources import Build
from smml.llama.ops import IGNORE_INDEX
from smml.roofline import Work

IGNORED = tl.constexpr(IGNORE_INDEX)
LOG2E = tl.constexpr(math.log2(math.e))
PER_THREAD = 32  # logits that a thread has in flight: 64 bytes or more, the latency of memory times its bandwidth


@triton.jit
def log_sum_exp(row_ptr, columns, BLOCK: tl.constexpr, LANES: tl.constexpr, VECTOR: tl.constexpr):
    """log Σ exp of one row, float32; lane = thread, each with VECTOR neighbouring logits of 16 bytes at a time."""
    largest = tl.full([LANES], float("-inf"), tl.float32)
    total = tl.zeros([LANES], tl.float32)
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        # Kept in the caches, where there is room: the gradient reads the row again.
        x = tl.load(
            row_ptr + column,
            mask=column < columns,
            other=float("-inf"),
            eviction_policy="evict_last",
        ).to(tl.float32)
        x = tl.reshape(x, [BLOCK // (LANES * VECTOR), LANES, VECTOR])
        larger = tl.maximum(largest, tl.max(tl.max(x, 2), 0))  # [LANES]
        base = _base(larger)
        # A multiply-add and the hardware's power of two; exp() would take three instructions more.
        power = tl.exp2(x * LOG2E - base[None, :, None])
        total = total * tl.exp2(largest * LOG2E - base) + tl.sum(tl.sum(power, 2), 0)
        largest = larger
    base = _base(tl.max(largest, 0))
    return (base + tl.log2(tl.sum(total * tl.exp2(largest * LOG2E - base), 0))) / LOG2E


@triton.jit
def _base(largest):
    """The largest logit as a power of two; 0 where none but −Inf was seen, since −Inf − (−Inf) is NaN."""
    return tl.where(largest == float("-inf"), 0.0, largest) * LOG2E


@triton.jit
def loss_of_row(row_ptr, target, lse, columns):
    """lse − logit of the target: 0 where ignored, NaN where there is no such column."""
    known = (target >= 0) & (target < columns)
    logit = tl.load(row_ptr + tl.where(known, target, 0)).to(tl.float32)
    wrong = tl.where(target == IGNORED, 0.0, float("nan"))
    return tl.where(known, lse - logit, wrong)


@triton.jit
def gradient_of_row(row_ptr, out_ptr, target, loss, lse, scale, columns, BLOCK: tl.constexpr):
    """(softmax − one-hot) · scale of one row; 0 where ignored, NaN where the target is no column.

    From the last block to the first: what was read last is still in the caches.
    """
    known = (target >= 0) & (target < columns)
    scale = tl.where(known, scale, float("nan"))
    blocks = tl.cdiv(columns, BLOCK)
    for i in range(0, blocks):
        column = (blocks - 1 - i) * BLOCK + tl.arange(0, BLOCK)
        inside = column < columns
        if target == IGNORED:
            gradient = tl.zeros([BLOCK], tl.float32)
        else:
            x = tl.load(row_ptr + column, mask=inside, other=0.0, eviction_policy="evict_first")
            gradient = tl.exp2(x.to(tl.float32) * LOG2E - lse * LOG2E) * scale
        tl.store(out_ptr + column, cast(gradient, out_ptr.dtype.element_ty), mask=inside)
    if known:
        tl.debug_barrier()  # another thread has just written the softmax of the target there
        at_target = (tl.exp(-loss) - 1.0) * scale
        tl.store(out_ptr + target, cast(at_target, out_ptr.dtype.element_ty))


@triton.jit
def _forward(
    x_ptr,
    targets_ptr,
    losses_ptr,
    lse_ptr,
    x_stride,
    columns,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
    VECTOR: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    row_ptr, target = x_ptr + row * x_stride, tl.load(targets_ptr + row)
    lse = log_sum_exp(row_ptr, columns, BLOCK, LANES, VECTOR)
    tl.store(lse_ptr + row, lse)
    tl.store(losses_ptr + row, loss_of_row(row_ptr, target, lse, columns))


@triton.jit
def _backward(
    x_ptr, targets_ptr, lse_ptr, scale_ptr, dx_ptr, x_stride, columns, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    row_ptr, out_ptr = x_ptr + row * x_stride, dx_ptr + row * columns
    target, lse, scale = tl.load(targets_ptr + row), tl.load(lse_ptr + row), tl.load(scale_ptr)
    loss = loss_of_row(row_ptr, target, lse, columns)
    gradient_of_row(row_ptr, out_ptr, target, loss, lse, scale, columns, BLOCK)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats, float32 scalar; logits [N, V], targets int64 [N], IGNORE_INDEX leaves one out.

    NaN where all are ignored. An ignored row's gradient is 0, whatever it holds. A target that is no column raises
    UserError on a CPU; on a GPU, which Python does not wait for, it makes the loss and its row's gradient NaN.
    Raises UserError for other shapes, dtypes and devices.
    """
    check(logits, targets)
    return _cross_entropy(logits, targets)[0]


def check(logits: Tensor, targets: Tensor) -> None:
    """Raise UserError unless logits are [N, V], V > 0, in a float dtype, and targets int64 [N] beside them."""
    operands.check("cross_entropy", logits=logits)
    operands.same_device("cross_entropy", logits=logits, targets=targets)
    operands.shape("cross_entropy", "logits", logits, ("N", "V"))
    check_targets("cross_entropy", targets, *logits.shape)


def check_targets(op: str, targets: Tensor, rows: int, columns: int) -> None:
    """Raise UserError unless targets are int64 [rows] and there are columns; values are looked at when run."""
    operands.shape(op, "targets", targets, (rows,))
    if targets.dtype != torch.int64:
        raise UserError(
            f"{op}: targets is {operands.short(targets.dtype)}; it must be int64: convert it with .long()."
        )
    if columns == 0:
        raise UserError(f"{op}: there are no classes (V = 0): give at least one.")


def refuse_unknown(op: str, targets: Tensor, columns: int) -> None:
    """On a CPU, raise UserError naming the first target that is neither IGNORE_INDEX nor a column."""
    if targets.device.type == "cpu":
        wrong = targets[(targets != IGNORE_INDEX) & ((targets < 0) | (targets >= columns))]
        if len(wrong):
            raise UserError(
                f"{op}: target {int(wrong[0])} is not in 0…{columns - 1}; "
                f"{IGNORE_INDEX} leaves a row out: correct the targets."
            )


def counted(targets: Tensor) -> Tensor:
    """Number of targets that are not ignored, as a float32 scalar on their device."""
    return (targets != IGNORE_INDEX).sum().float()


@torch.library.custom_op("smml::cross_entropy", mutates_args=())
def _cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Loss, and log Σ exp of the rows [N], which is all that backward needs beside the logits."""
    refuse_unknown("cross_entropy", targets, logits.shape[1])
    losses, lse = row_losses(logits, targets)
    return losses.sum() / counted(targets), lse


def row_losses(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and log Σ exp of each row, float32 [N] each; launches the kernel, differentiates nothing."""
    logits, targets = operands.rows(logits), targets.contiguous()
    count, columns = logits.shape
    losses, lse = (torch.empty(count, dtype=torch.float32, device=logits.device) for _ in range(2))
    if count:
        with operands.on(logits):
            _forward[(count,)](
                logits, targets, losses, lse, logits.stride(0), columns, **launch(logits)
            )
    return losses, lse


@_cross_entropy.register_fake
def _(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return (
        logits.new_empty((), dtype=torch.float32),
        logits.new_empty(logits.shape[0], dtype=torch.float32),
    )


@torch.library.custom_op("smml::cross_entropy_backward", mutates_args=())
def _cross_entropy_backward(
    gradient: Tensor, logits: Tensor, targets: Tensor, lse: Tensor
) -> Tensor:
    out = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    logits, targets = operands.rows(logits), targets.contiguous()
    count, columns = logits.shape
    if count:
        scale = gradient / counted(targets)
        options = launch(logits)
        with operands.on(logits):
            _backward[(count,)](
                logits,
                targets,
                lse.contiguous(),
                scale,
                out,
                logits.stride(0),
                columns,
                BLOCK=options["BLOCK"],
                num_warps=options["num_warps"],
            )
    return out


@_cross_entropy_backward.register_fake
def _(gradient: Tensor, logits: Tensor, targets: Tensor, lse: Tensor) -> Tensor:
    return torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)


def _keep(ctx, inputs, output) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, output[1])


def _differentiate(ctx, gradient: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, None]:
    if gradient is None:
        return None, None
    return _cross_entropy_backward(gradient, *ctx.saved_tensors), None


_cross_entropy.register_autograd(_differentiate, setup_context=_keep)


def launch(logits: Tensor, most_warps: int = 8) -> dict[str, int]:
    """Block, lanes, vector and warps for rows of these logits; vectors only where every row starts at 16 bytes."""
    aligned = logits.stride(0) % 16 == 0 and logits.data_ptr() % 16 == 0
    return options_for(logits.shape[1], 16 // logits.itemsize if aligned else 1, most_warps)


def options_for(columns: int, vector: int, most_warps: int = 8) -> dict[str, int]:
    """Block, lanes, vector and warps for rows so wide; the loads of a thread are of `vector` logits."""
    warps = min(max(triton.next_power_of_2(columns) // 4096, 4), most_warps)
    lanes = 32 * warps
    # Single loads need an address each: fewer of them, so that the registers suffice for more rows at a time.
    in_flight = lanes * (PER_THREAD if vector > 1 else PER_THREAD // 4)
    block = max(min(in_flight, triton.next_power_of_2(columns)), lanes)
    return {
        "BLOCK": block,
        "LANES": lanes,
        "VECTOR": min(vector, block // lanes),
        "num_warps": warps,
    }


def reference(logits: Tensor, targets: Tensor) -> Tensor:
    """The same in plain PyTorch, in float32."""
    return F.cross_entropy(logits.float(), targets, ignore_index=IGNORE_INDEX)


def work(rows: int, columns: int, itemsize: int) -> Work:
    """Maximum, subtract, exp, add: about 4 FLOPs a logit, each read once; reads 8 bytes and writes 8 a row."""
    return Work(4 * rows * columns, rows * (columns * itemsize + 8), 8 * rows, 8 * rows)


def backward_work(rows: int, columns: int, itemsize: int) -> Work:
    """Subtract, exp, scale: about 3 FLOPs a logit, each read once and its gradient written; reads 12 bytes a row."""
    size = rows * columns * itemsize
    return Work(3 * rows * columns, size + 12 * rows, size, size)


def builds() -> list[Build]:
    """What is compiled without a GPU: a vocabulary of 128,256, and in float32 one that no vector of 16 bytes divides."""
    found = []
    for dtype, columns, vector in (("bf16", 128_256, 8), ("fp32", 50_257, 1)):
        options = options_for(columns, vector)
        warps = options.pop("num_warps")
        x, odd = f"*{dtype}", ("x_stride", "columns") if vector == 1 else ()
        rows = {"x_ptr": x, "targets_ptr": "*i64", "lse_ptr": "*fp32"}
        sizes = {"x_stride": "i32", "columns": "i32"}
        forward = rows | {"losses_ptr": "*fp32"} | sizes
        backward = rows | {"scale_ptr": "*fp32", "dx_ptr": x} | sizes
        name = f"cross_entropy/{columns}/{dtype}"
        found.append(Build(f"{name}/forward", _forward, forward, options, warps, odd=odd))
        block = {"BLOCK": options["BLOCK"]}
        found.append(Build(f"{name}/backward", _backward, backward, block, warps, odd=odd))
    return found
