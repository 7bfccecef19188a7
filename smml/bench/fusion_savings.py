"""What fusing the operations of a Llama saves: bytes of PyTorch's plain operations, listed, against the kernels' counts.

Nothing is timed here. The plain operations run on the meta device, which has shapes and no memory, at any size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smml.bench.op_roofline import operations
from smml.kernels import (
    add_rms_norm,
    cross_entropy_in_place,
    linear_cross_entropy,
    rms_norm,
    rope,
    swiglu,
)
from smml.llama import ops
from smml.llama.config import LlamaConfig
from smml.roofline import Work

EPS = 1e-5


@dataclass(frozen=True)
class Case:
    """One operation: plain and fused function of `shapes`, the first `differentiable` of which want gradients.

    `classes` > 0 adds targets as the last argument. `kernels` are the fused ones' counts, forward and backward.
    """

    name: str
    plain: Callable[..., Any]
    fused: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    differentiable: int
    kernels: tuple[Work, ...]
    classes: int = 0

    @property
    def work(self) -> Work:
        """All kernels together."""
        return sum(self.kernels[1:], self.kernels[0])


def plain_rms_norm(x: Tensor, weight: Tensor, eps: float = EPS) -> Tensor:
    """RMSNorm [..., D] as its definition has it, an operation a step."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def _plain_add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    total = x + residual
    return plain_rms_norm(total, weight), total


def cases(shape: LlamaConfig, tokens: int, itemsize: int) -> list[Case]:
    """The five operations at the sizes of a Llama on `tokens` tokens."""
    D, d, F, V = shape.dim, shape.head_dim, shape.feed_forward_dim, shape.vocab_size
    heads = shape.heads + shape.kv_heads
    turn = rope.work(tokens, heads, d, itemsize)
    chunk = linear_cross_entropy.rows_per_chunk(tokens, D, V)
    rows, width = (tokens, D), (tokens, D, itemsize)
    return [
        Case(
            "RMSNorm",
            plain_rms_norm,
            lambda x, weight: rms_norm.rms_norm(x, weight, EPS),
            (rows, (D,)),
            2,
            (rms_norm.work(*width), rms_norm.backward_work(*width)),
        ),
        Case(
            "residual + RMSNorm",
            _plain_add_rms_norm,
            lambda *given: add_rms_norm.add_rms_norm(*given, EPS),
            (rows, rows, (D,)),
            3,
            (add_rms_norm.work(*width), add_rms_norm.backward_work(*width)),
        ),
        Case(
            "RoPE", ops.rope, rope.rope, ((1, tokens, heads, d), (tokens, d), (tokens, d)), 1,
            (turn, turn),
        ),
        Case(
            "SwiGLU", ops.swiglu, swiglu.swiglu, ((tokens, 2 * F),), 1,
            (swiglu.work(tokens, F, itemsize), swiglu.backward_work(tokens, F, itemsize)),
        ),
        Case(
            "cross-entropy",
            plain_cross_entropy,
            lambda x, targets: cross_entropy_in_place.cross_entropy_in_place(1 * x, targets),
            ((tokens, V),),
            1,
            (cross_entropy_in_place.work(tokens, V, itemsize),),
            V,
        ),
        Case(
            "linear + cross-entropy",
            linear_cross_entropy.reference,
            linear_cross_entropy.linear_cross_entropy,
            (rows, (V, D)),
            2,
            tuple(linear_cross_entropy.kernels(*rows, V, itemsize, chunk)),
            V,
        ),
    ]  # fmt: skip


def plain_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in PyTorch, in float32, as a Llama's loss is computed."""
    return torch.nn.functional.cross_entropy(logits.float(), targets, ignore_index=ops.IGNORE_INDEX)


def plain_operations(case: Case, dtype: torch.dtype) -> list[Work]:
    """Work of each plain operation, forward and backward, as torch lists them; nothing is computed."""
    given = [torch.empty(s, dtype=dtype, device="meta") for s in case.shapes]
    found = operations(lambda: _gradients(case, case.plain, _targets(case, given)))
    return [operation.work for operation in found]


def error(case: Case, device: str, seed: int = 0) -> float:
    """Largest ‖fused − exact‖ ÷ ‖exact‖ of values and gradients in float32, against the plain operations in float64."""
    generator = torch.Generator().manual_seed(seed)
    exact = [torch.randn(s, generator=generator, dtype=torch.float64) for s in case.shapes]
    given = _targets(case, [t.float().to(device) for t in exact])
    wanted = _gradients(
        case, case.plain, [t.double() if t.is_floating_point() else t for t in given]
    )
    pairs = zip(_gradients(case, case.fused, given), wanted, strict=True)
    return max(float((got - want).norm() / want.norm()) for got, want in pairs)


def _targets(case: Case, given: list[Tensor]) -> list[Tensor]:
    if not case.classes:
        return given
    rows = torch.arange(len(given[0]), device=given[0].device)
    return [*given, rows * 7 % case.classes]


def _gradients(case: Case, function: Callable[..., Any], given: list[Tensor]) -> list[Tensor]:
    """Values, then gradients; the incoming gradient is the value itself, so that nothing is constant."""
    leaves = [
        t.detach().requires_grad_(i < case.differentiable) if t.is_floating_point() else t
        for i, t in enumerate(given)
    ]
    values = function(*leaves)
    values = values if isinstance(values, tuple) else (values,)
    incoming = [v.detach() if v.dim() else torch.ones_like(v) for v in values]
    wanted = leaves[: case.differentiable]
    return [*(v.detach() for v in values), *torch.autograd.grad(values, wanted, incoming)]
