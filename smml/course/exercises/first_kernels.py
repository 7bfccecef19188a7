"""Exercises of 01_leveraging_hardware/03_first_triton_kernels."""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from smml import triton_mode
from smml.course.checking import WrongAnswer, attempt, exercise, expect_close

GUARD = -7.0
LENGTHS = (1, 256, 1000)
BLOCK = 256


@triton.jit
def _without_mask(x_ptr, out_ptr, a, elements, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < elements, other=0.0)
    tl.store(out_ptr + offsets, a * x)


@triton.jit
def _first_block_only(x_ptr, out_ptr, a, elements, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    inside = offsets < elements
    tl.store(out_ptr + offsets, a * tl.load(x_ptr + offsets, mask=inside), mask=inside)


@triton.jit
def _unscaled(x_ptr, out_ptr, a, elements, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < elements
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets, mask=inside), mask=inside)


def _launched(kernel: Any) -> Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]:
    def scale(x: torch.Tensor, out: torch.Tensor, a: float) -> torch.Tensor:
        kernel[(triton.cdiv(x.numel(), BLOCK),)](x, out, a, x.numel(), BLOCK=BLOCK)
        return out

    return scale


@exercise(_launched(_without_mask), _launched(_first_block_only), _launched(_unscaled))
def scale(answer: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]) -> str:
    """A masked elementwise kernel and its launch, at lengths that blocks do not divide."""
    device = "cpu" if triton_mode.INTERPRETED else "cuda"
    for elements in LENGTHS:
        x = torch.linspace(-2, 3, elements, device=device)
        memory = torch.full((elements + 4 * BLOCK,), GUARD, device=device)
        attempt(answer, x, memory[:elements], 2.5)
        if (memory[elements:] != GUARD).any():
            raise WrongAnswer(
                f"with {elements} elements it writes past the end of out: mask the store."
            )
        if (memory[:elements] == GUARD).any():
            raise WrongAnswer(
                f"of {elements} elements some are not written to out: launch enough programs, and start each "
                "one's offsets at tl.program_id(0) * BLOCK."
            )
        if not torch.allclose(memory[:elements], 2.5 * x):
            raise WrongAnswer(
                f"with {elements} elements out is not a · x: load x, multiply it by a, store the product."
            )
    return "right at every length, nothing written past the end"


@exercise(lambda: 3, lambda: 6 / 2, lambda: 8 / 2)
def gelu_saving(answer: Callable[[], float]) -> str:
    """How many times fewer bytes three elementwise operations ask for as one."""
    given = attempt(answer)
    expect_close(
        "gelu_saving()",
        given,
        3.5,
        "Count passes over the array: each operation reads its operands, all of them, and writes its result.",
    )
    return "seven passes become two"
