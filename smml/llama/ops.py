"""The operations of a Llama that a fused kernel can replace, each as plain PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = -100  # targets that count in no loss, as in torch and transformers


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / √(mean(x²) + eps) · weight over the last dimension; x [..., D], weight [D] (arXiv:1910.07467)."""
    return F.rms_norm(x, weight.shape, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(rms_norm(x + residual), x + residual); x and residual [..., D]. Fused, the sum is read and written once."""
    total = x + residual
    return F.rms_norm(total, weight.shape, weight, eps), total


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + d/2) of every head by its position's angle (arXiv:2104.09864).

    x [B, T, N, d], query and key heads side by side; cos and sin [T, d] or [B, T, d], equal in both halves except
    that the first half of sin carries the minus sign of the rotation.
    """
    cos, sin = cos.unsqueeze(-2).to(x.dtype), sin.unsqueeze(-2).to(x.dtype)  # [(B,) T, 1, d]
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """softmax(q·kᵀ/√d)·v [B, H, T, d]; q [B, H, T, d], k and v [B, K, S, d], H/K query heads share a key head.

    `mask`, boolean and broadcast to [B, H, T, S], is true where a query may look. `causal` says instead that query t
    looks at keys 0…t.
    """
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
    )


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) · up [..., F]; gate_up [..., 2F] holds gate, then up (arXiv:2002.05202)."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats over targets ≠ IGNORE_INDEX, in float32; hidden [N, D], weight [V, D], targets [N]."""
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, ignore_index=IGNORE_INDEX)


@dataclass(frozen=True)
class Ops:
    """One set of the operations above, with their arguments; a set of fused kernels replaces some or all of them."""

    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = rms_norm
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]] = add_rms_norm
    rope: Callable[[Tensor, Tensor, Tensor], Tensor] = rope
    attention: Callable[[Tensor, Tensor, Tensor, Tensor | None, bool], Tensor] = attention
    swiglu: Callable[[Tensor], Tensor] = swiglu
    linear_cross_entropy: Callable[[Tensor, Tensor, Tensor], Tensor] = linear_cross_entropy


TORCH_OPS = Ops()
