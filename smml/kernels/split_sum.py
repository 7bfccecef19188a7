"""Partial products of a matrix product whose inner dimension was cut into parts, added up in a fixed order.

Few rows make few output tiles, too few to keep all of a GPU's memory busy; parts of the inner dimension make more.
Adding them in order, and not by atomics, gives the same bits every time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from smml.kernels.interpreter import cast
from smml.kernels.resources import Build

BLOCK = 512


@triton.jit
def _sum(parts_ptr, out_ptr, elements, splits, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < elements
    total = tl.zeros([BLOCK], tl.float32)
    # Reads `splits` numbers an element, which lie in the L2 cache, and writes one.
    for split in range(splits):
        total += tl.load(
            parts_ptr + tl.cast(elements, tl.int64) * split + place, mask=inside, other=0.0
        )
    tl.store(out_ptr + place, cast(total, out_ptr.dtype.element_ty), mask=inside)


def sum_parts(parts: Tensor, out: Tensor) -> None:
    """Add parts [S, M, N], float32 and contiguous, up into out [M, N], contiguous, of any float dtype."""
    _sum[(triton.cdiv(out.numel(), BLOCK),)](
        parts, out, out.numel(), parts.shape[0], BLOCK=BLOCK, num_warps=4
    )


def room(splits: int, rows: int, columns: int, out: Tensor) -> Tensor:
    """Where a kernel writes its parts: float32 [splits, rows, columns], or, of one part, the result itself."""
    if splits == 1:
        return out
    return torch.empty(splits, rows, columns, dtype=torch.float32, device=out.device)


def build() -> Build:
    """What is compiled without a GPU."""
    signature = {"parts_ptr": "*fp32", "out_ptr": "*bf16", "elements": "i32", "splits": "i32"}
    return Build("split_sum/bf16", _sum, signature, {"BLOCK": BLOCK}, odd=("splits",))
