"""Linear layer and cross-entropy in one: the logits of a few rows at a time, and never the whole matrix of them.

The gradient of a chunk's logits takes their place as soon as they are known and goes straight into the products that
need it, so that the forward pass leaves the gradients of hidden states and weight, and backward has only to scale them.
"""

from collections.abc import Callable, Sequence

import torch
import triton
from torch import Tensor

from smml.errors import UserError
from smml.kernels import cross_entropy, cross_entropy_in_place, operands
from smml.kernels.cross_entropy import check_targets, counted, refuse_unknown, row_losses
from smml.kernels.cross_entropy_in_place import loss_and_gradient_in_place
from smml.kernels.rescale import rescale
from smml.llama import ops
from smml.llama.ops import IGNORE_INDEX
from smml.roofline import Work, gemm

# Rows of a chunk. The product that sums the weight's gradient over chunks reads and writes that sum for each: with so
# many rows it does 2·ROWS FLOPs for every 4 bytes of it (bfloat16), far above any GPU's ridge.
LEAST_ROWS = 2048
MOST_CHUNKS = 8

# (logits, targets, scale) → losses; with a scale the logits become (softmax − one-hot) · scale, without they stay.
Rows = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk: int | None = None
) -> Tensor:
    """Mean cross-entropy in nats, float32 scalar, of hidden [N, D] · weight [V, D]ᵀ against targets int64 [N].

    `chunk` rows of logits exist at a time (default: `rows_per_chunk`). Under autocast both are cast first, as a linear
    layer's are. Gradients are rounded to the dtype of the logits before the incoming gradient scales them: a loss
    scale does not save a float16 gradient from underflow here, bfloat16 needs none. Targets as in `cross_entropy`;
    backward runs once. Raises UserError for other shapes, dtypes and devices.
    """
    hidden, weight = _autocast(hidden), _autocast(weight)
    operands.check("linear_cross_entropy", hidden=hidden, weight=weight)
    operands.same_device("linear_cross_entropy", hidden=hidden, targets=targets)
    operands.shape("linear_cross_entropy", "hidden", hidden, ("N", "D"))
    operands.shape("linear_cross_entropy", "weight", weight, ("V", hidden.shape[1]))
    check_targets("linear_cross_entropy", targets, hidden.shape[0], weight.shape[0])
    if chunk is None:
        chunk = rows_per_chunk(*hidden.shape, weight.shape[0])
    if chunk < 1:
        raise UserError(f"linear_cross_entropy: chunk={chunk} is not possible: give at least 1.")
    wanted = [torch.is_grad_enabled() and x.requires_grad for x in (hidden, weight)]
    return _Ahead.apply(hidden, weight, targets, chunk, wanted)


def rows_per_chunk(rows: int, width: int, columns: int) -> int:
    """Rows of logits that exist at a time: a power of two, at least LEAST_ROWS, at most MOST_CHUNKS chunks of them.

    Where the vocabulary is small, as many as take no more memory than the hidden states themselves.
    """
    least = max(LEAST_ROWS, -(-rows // MOST_CHUNKS), rows * width // columns)
    return min(triton.next_power_of_2(least), max(rows, 1))


def in_chunks(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    chunk: int,
    wanted: Sequence[bool],
    rows: Rows,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and the gradients of hidden and of weight, those not `wanted` without elements; differentiates nothing.

    The weight's gradient is summed in its own dtype. Within a product sums are float32; between chunks they are rounded
    at most MOST_CHUNKS times, which costs a bit or two of the last place, where a float32 sum would cost twice the
    memory and twice the traffic.
    """
    count = counted(targets)
    scale = 1 / count if any(wanted) else None
    size = min(chunk, len(hidden))
    logits = hidden.new_empty(size, len(weight))
    losses = hidden.new_empty(len(hidden), dtype=torch.float32)
    of_hidden = hidden.new_empty(hidden.shape if wanted[0] else 0)
    of_weight = weight.new_empty(weight.shape if wanted[1] else 0)
    for start in range(0, len(hidden), size or 1):
        part = slice(start, start + size)
        x = hidden[part]  # [chunk, D]
        y = torch.mm(x, weight.T, out=logits[: len(x)])  # [chunk, V]
        losses[part] = rows(y, targets[part], scale)
        if wanted[0]:
            torch.mm(y, weight, out=of_hidden[part])
        if wanted[1] and start:
            of_weight.addmm_(y.T, x)
        elif wanted[1]:
            torch.mm(y.T, x, out=of_weight)
    return losses.sum() / count, of_hidden, of_weight if len(hidden) else of_weight.zero_()


@torch.library.custom_op("smml::linear_cross_entropy", mutates_args=())
def _linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, of_hidden: bool, of_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    refuse_unknown("linear_cross_entropy", targets, len(weight))
    return in_chunks(hidden, weight, targets, chunk, (of_hidden, of_weight), _rows)


def _rows(logits: Tensor, targets: Tensor, scale: Tensor | None) -> Tensor:
    if scale is None:
        return row_losses(logits, targets)[0]
    return loss_and_gradient_in_place(logits, targets, scale)


@_linear_cross_entropy.register_fake
def _(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, of_hidden: bool, of_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        hidden.new_empty((), dtype=torch.float32),
        hidden.new_empty(hidden.shape if of_hidden else 0),
        weight.new_empty(weight.shape if of_weight else 0),
    )


class _Ahead(torch.autograd.Function):
    """The loss whose forward pass computes the gradients; they are no outputs, so that backward may change them."""

    @staticmethod
    def forward(
        ctx, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, wanted: Sequence[bool]
    ) -> Tensor:
        loss, *gradients = _linear_cross_entropy(hidden, weight, targets, chunk, *wanted)
        ctx.save_for_backward(*gradients)
        ctx.wanted = wanted
        return loss

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (
            ctx.saved_tensors
        )  # raises where backward has run before: rescale counts as a change
        for ahead in gradients:
            rescale(ahead, gradient)
        wanted = (g if want else None for g, want in zip(gradients, ctx.wanted, strict=True))
        return *wanted, None, None, None


def _autocast(x: Tensor) -> Tensor:
    """x as autocast would hand it to a linear layer."""
    device = x.device.type
    active = device != "meta" and torch.is_autocast_enabled(device)
    return x.to(torch.get_autocast_dtype(device)) if active else x


def reference(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The same in plain PyTorch, all logits at once."""
    return ops.linear_cross_entropy(hidden, weight, targets)


def in_torch(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and both gradients by the same chunks in PyTorch's own operations, as quickly as they run here."""
    with torch.no_grad():
        return in_chunks(hidden, weight, targets, chunk, (True, True), _torch_rows)


def _torch_rows(logits: Tensor, targets: Tensor, scale: Tensor | None) -> Tensor:
    kept = targets != IGNORE_INDEX
    column = targets.where(kept, 0).unsqueeze(1)  # [chunk, 1]
    logits -= logits.amax(1, keepdim=True)
    picked = logits.gather(1, column).squeeze(1)
    total = logits.exp_().sum(1)
    logits *= (kept * scale / total).unsqueeze(1)  # softmax · scale
    logits.scatter_add_(1, column, (kept * -scale).unsqueeze(1))
    return (total.log() - picked) * kept


def memory_bytes(rows: int, width: int, columns: int, itemsize: int, chunk: int) -> int:
    """Most bytes held beside the operands, forward and backward: one chunk of logits, both gradients, the losses."""
    logits, gradients = min(chunk, rows) * columns, (rows + columns) * width
    return (logits + gradients) * itemsize + 4 * (rows + min(chunk, rows))


def unfused_memory_bytes(rows: int, columns: int) -> int:
    """Most bytes that `reference` holds: in backward, the log-softmax, its gradient and that of the logits, in float32."""
    return 3 * 4 * rows * columns


def work(
    rows: int, width: int, columns: int, itemsize: int, chunk: int, *, backward: bool = True
) -> Work:
    """All of `kernels`: 6·N·D·V FLOPs with gradients and 2·N·D·V without, beside a few for each logit."""
    found = kernels(rows, width, columns, itemsize, chunk, backward=backward)
    return sum(found[1:], found[0])


def kernels(
    rows: int, width: int, columns: int, itemsize: int, chunk: int, *, backward: bool = True
) -> list[Work]:
    """Of every chunk: the logits' product, the rows' losses and, with `backward`, gradients and two more products."""
    found = []
    for start in range(0, rows, chunk):
        size = min(chunk, rows - start)
        found.append(gemm(size, columns, width, itemsize))
        if not backward:
            found.append(cross_entropy.work(size, columns, itemsize))
            continue
        found.append(cross_entropy_in_place.work(size, columns, itemsize))
        found.append(gemm(size, width, columns, itemsize))
        sum_read = columns * width * itemsize if start else 0
        found.append(gemm(columns, width, size, itemsize) + Work(0, sum_read, 0, 0, launches=0))
    return found
