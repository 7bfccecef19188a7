"""What a kernel may be given: checked before every launch, so that a wrong tensor is an error and never a wrong number."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from smml import triton_mode
from smml.errors import UserError

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def check(op: str, *, dtypes: tuple[torch.dtype, ...] = FLOATS, **tensors: Tensor) -> None:
    """All tensors on one device on which kernels run in this process, and all of one dtype out of `dtypes`.

    Raises UserError naming the tensor. Tensors of other dtypes (targets, scales) are left to `same_device`.
    """
    same_device(op, **tensors)
    first, *others = tensors.items()
    if first[1].dtype not in dtypes:
        allowed = ", ".join(short(dtype) for dtype in dtypes)
        raise UserError(
            f"{op}: {first[0]} is {short(first[1].dtype)}; allowed are {allowed}: convert it with .to()."
        )
    for name, tensor in others:
        if tensor.dtype != first[1].dtype:
            raise UserError(
                f"{op}: {name} is {short(tensor.dtype)} and {first[0]} is {short(first[1].dtype)}: "
                "they must be of one dtype; convert one with .to()."
            )


def same_device(op: str, **tensors: Tensor) -> None:
    """Raise UserError unless all tensors are on one device, and on one that this process's kernels can reach."""
    first, *others = tensors.items()
    for name, tensor in others:
        if tensor.device != first[1].device:
            raise UserError(
                f"{op}: {name} is on {tensor.device} and {first[0]} on {first[1].device}: "
                "they must be on one device; move one with .to()."
            )
    device = first[1].device.type
    if device == "cpu" and not triton_mode.INTERPRETED:
        raise UserError(
            f"{op}: {first[0]} is on the CPU, and kernels are compiled for the GPU here: move it with .cuda(), "
            "or set TRITON_INTERPRET=1 before Python starts."
        )
    if device == "cuda" and triton_mode.INTERPRETED:
        raise UserError(
            f"{op}: {first[0]} is on a GPU, and kernels are interpreted here: unset TRITON_INTERPRET and start again."
        )
    if device not in ("cpu", "cuda", "meta"):
        raise UserError(f"{op}: {first[0]} is on {device}; kernels run on cuda or cpu.")


def shape(op: str, name: str, tensor: Tensor, expected: tuple[int | str, ...]) -> None:
    """Raise UserError unless `tensor` has the expected shape; a string stands for any length and names it."""
    fits = len(expected) == tensor.dim() and all(
        isinstance(want, str) or want == got
        for want, got in zip(expected, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, expected))
        raise UserError(f"{op}: {name} has shape {list(tensor.shape)}; it must be [{wanted}].")


def rows(x: Tensor) -> Tensor:
    """x [..., D] as [N, D] whose rows are contiguous: a view where the strides allow it, else a copy.

    Rows may lie at any distance from each other; a zero stride (an expanded tensor) is read as it stands.
    """
    flat = x.reshape(-1, x.shape[-1])
    return flat if flat.stride(-1) == 1 or flat.shape[-1] <= 1 else flat.contiguous()


def on(tensor: Tensor) -> AbstractContextManager[object]:
    """Where kernels on `tensor` must be launched: with its GPU, of several, as the current one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def short(dtype: torch.dtype) -> str:
    """Name of a dtype without the leading "torch."."""
    return str(dtype).removeprefix("torch.")
