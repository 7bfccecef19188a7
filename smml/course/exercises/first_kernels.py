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


@exercise(_without_mask, _first_block_only, _unscaled)
def scale_kernel(answer: Any) -> str:
    """A masked elementwise kernel, launched at lengths that its blocks do not divide."""
    if not hasattr(answer, "run"):
        raise WrongAnswer("scale_kernel is no kernel: put @triton.jit above its def.")
    device = "cpu" if triton_mode.INTERPRETED else "cuda"
    for elements in LENGTHS:
        x = torch.linspace(-2, 3, elements, device=device)
        out = torch.full((elements + BLOCK,), GUARD, device=device)
        grid = (triton.cdiv(elements, BLOCK),)
        answer[grid](x, out, 2.5, elements, BLOCK=BLOCK)
        if (out[elements:] != GUARD).any():
            raise WrongAnswer(
                f"with {elements} elements in blocks of {BLOCK} it writes past the end: mask the store."
            )
        if (out[:elements] == GUARD).any():
            raise WrongAnswer(
                f"of {elements} elements some are not written: each program's offsets start at "
                "tl.program_id(0) * BLOCK."
            )
        if not torch.allclose(out[:elements], 2.5 * x):
            raise WrongAnswer(f"with {elements} elements out is not a · x.")
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
