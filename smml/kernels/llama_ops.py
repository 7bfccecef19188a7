"""The fused kernels as the operations of a Llama: `Llama(config, ops=FUSED_OPS)`, in training and in decoding."""

import torch
from torch import Tensor

from smml.kernels.add_rms_norm import add_rms_norm
from smml.kernels.decode_attention import decode_attention_contiguous
from smml.kernels.flash_attention import attention
from smml.kernels.linear_cross_entropy import linear_cross_entropy
from smml.kernels.rms_norm import rms_norm
from smml.kernels.rope import rope
from smml.kernels.swiglu import swiglu
from smml.llama import ops
from smml.llama.ops import Ops


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return rms_norm(*_autocast(x, weight), eps)


def _add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return add_rms_norm(*_autocast(x, residual, weight), eps)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    q, k, v = _autocast(q, k, v)
    if mask is not None:  # padded batches, and a prompt that continues a cache
        return ops.attention(q, k, v, mask, causal)
    if q.shape[2] == 1 and not (torch.is_grad_enabled() and q.requires_grad):
        # One token looks at all of the cache, whose views are contiguous in d alone.
        return decode_attention_contiguous(q[:, :, 0], k, v)[:, :, None]
    return attention(q, k, v, mask, causal)


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in autocast's dtype where it is on: it casts for torch's own operations, not for ours.

    torch's normalisation stays in float32 under it; ours computes in float32 and reads and writes half the bytes.
    """
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(tensor.to(dtype) for tensor in tensors)


FUSED_OPS = Ops(_rms_norm, _add_rms_norm, rope, _attention, swiglu, linear_cross_entropy)
