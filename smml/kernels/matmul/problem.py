"""What every rung is given: two matrices, checked, and the empty matrix that it fills."""

import torch
from torch import Tensor

from smml.errors import UserError
from smml.kernels import operands


def check(op: str, a: Tensor, b: Tensor) -> None:
    """Raise UserError unless a is [M, K] and b [K, N], of one floating dtype and on one device."""
    operands.check(op, a=a, b=b)
    operands.shape(op, "a", a, ("M", "K"))
    operands.shape(op, "b", b, (a.shape[1], "N"))


def result(op: str, a: Tensor, b: Tensor) -> Tensor:
    """An empty C [M, N], contiguous, for operands that were checked; UserError where they hold no numbers."""
    check(op, a, b)
    if a.is_meta:
        raise UserError(
            f"{op}: a is on meta, where there are no numbers: use smml.kernels.matmul.product, or move it."
        )
    return torch.empty(a.shape[0], b.shape[1], dtype=a.dtype, device=a.device)
