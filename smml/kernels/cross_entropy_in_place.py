"""Cross-entropy whose forward pass leaves the gradient in the logits' own memory: the loss that training asks for.

The gradient needs the row's sum, so that a row is read twice; the second reading follows at once and finds it in the
caches. Memory sees one reading and one writing, where a loss with a backward pass of its own takes three.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands
from smml.kernels.cross_entropy import (
    check,
    counted,
    cross_entropy,
    gradient_of_row,
    launch,
    log_sum_exp,
    loss_of_row,
    options_for,
    refuse_unknown,
)
from smml.kernels.rescale import rescale
from smml.kernels.resources import Build
from smml.llama.ops import IGNORE_INDEX
from smml.roofline import Work

# A wide row gets all the threads of a multiprocessor: then one row is under way on each, and together they fit into an
# L2 cache of 50 MB, where the second reading finds them.
MOST_WARPS = 32


@triton.jit
def _in_place(
    x_ptr,
    targets_ptr,
    losses_ptr,
    scale_ptr,
    x_stride,
    columns,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
    VECTOR: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    row_ptr, target = x_ptr + row * x_stride, tl.load(targets_ptr + row)
    lse = log_sum_exp(row_ptr, columns, BLOCK, LANES, VECTOR)
    loss = loss_of_row(row_ptr, target, lse, columns)
    tl.store(losses_ptr + row, loss)
    tl.debug_barrier()  # the target's logit is read before any thread writes over it
    gradient_of_row(row_ptr, row_ptr, target, loss, lse, tl.load(scale_ptr), columns, BLOCK)


def cross_entropy_in_place(logits: Tensor, targets: Tensor) -> Tensor:
    """As `cross_entropy`, but where a gradient is asked for the logits are consumed: their memory holds it afterwards.

    Nothing may read the logits after this call: autograd raises where an operation before it kept them, and backward
    runs once. An incoming gradient other than 1 costs backward a further reading and writing. Raises UserError as
    `cross_entropy` does, and for logits that are a leaf (a parameter would be overwritten) or not contiguous.
    """
    check(logits, targets)
    if not (logits.requires_grad and torch.is_grad_enabled()):
        return cross_entropy(logits, targets)
    base = logits if logits._base is None else logits._base
    if base.is_leaf and base.requires_grad:
        raise UserError(
            "cross_entropy_in_place: logits is a leaf that requires a gradient, or a view of one, and would be overwritten: "
            "use cross_entropy."
        )
    if not logits.is_contiguous():
        raise UserError(
            f"cross_entropy_in_place: logits has strides {list(logits.stride())}; it must be contiguous to be written "
            "into: use cross_entropy."
        )
    return _Consumed.apply(logits, targets)


@torch.library.custom_op("smml::cross_entropy_in_place", mutates_args=("logits",))
def loss_and_gradient_in_place(logits: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """Losses [N] of the rows; logits [N, V], contiguous, become (softmax − one-hot) · scale, a float32 scalar."""
    refuse_unknown("cross_entropy_in_place", targets, logits.shape[1])
    count, columns = logits.shape
    losses = torch.empty(count, dtype=torch.float32, device=logits.device)
    if count:
        with operands.on(logits):
            _in_place[(count,)](
                logits,
                targets.contiguous(),
                losses,
                scale,
                columns,
                columns,
                **launch(logits, MOST_WARPS),
            )
    return losses


@loss_and_gradient_in_place.register_fake
def _(logits: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    return logits.new_empty(logits.shape[0], dtype=torch.float32)


class _Consumed(torch.autograd.Function):
    """The loss whose forward pass leaves the gradient in the logits."""

    @staticmethod
    def forward(ctx, logits: Tensor, targets: Tensor) -> Tensor:
        count = counted(targets)
        loss = loss_and_gradient_in_place(logits, targets, 1 / count).sum() / count
        ctx.save_for_backward(logits)
        return loss

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (ahead,) = (
            ctx.saved_tensors
        )  # raises where backward has run before: rescale counts as a change
        rescale(ahead, gradient)
        return ahead, None


def reference(logits: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """`loss_and_gradient_in_place` in plain PyTorch, with less memory than the logits' own beside them in float32."""
    losses = F.cross_entropy(logits.float(), targets, ignore_index=IGNORE_INDEX, reduction="none")
    kept = targets != IGNORE_INDEX
    softmax = torch.softmax(logits.float(), -1)
    softmax[kept.nonzero().squeeze(1), targets[kept]] -= 1
    logits.copy_(softmax.mul_((kept * scale).unsqueeze(1)))
    return losses


def work(rows: int, columns: int, itemsize: int) -> Work:
    """Loss and gradient together: about 7 FLOPs a logit, each read from memory once and its gradient written over it."""
    size = rows * columns * itemsize
    return Work(7 * rows * columns, size + 12 * rows, size + 4 * rows, 4 * rows)


def builds() -> list[Build]:
    """What is compiled without a GPU."""
    found = []
    for dtype, columns, vector in (("bf16", 128_256, 8), ("fp32", 128_256, 4), ("bf16", 50_257, 1)):
        options = options_for(columns, vector, MOST_WARPS)
        warps = options.pop("num_warps")
        signature = {
            "x_ptr": f"*{dtype}",
            "targets_ptr": "*i64",
            "losses_ptr": "*fp32",
            "scale_ptr": "*fp32",
            "x_stride": "i32",
            "columns": "i32",
        }
        odd = ("x_stride", "columns") if vector == 1 else ()
        name = f"cross_entropy_in_place/{columns}/{dtype}"
        found.append(Build(name, _in_place, signature, options, warps, odd=odd))
    return found
