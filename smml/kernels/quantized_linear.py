"""A Llama for inference with the linear layers of its blocks in 8 or 4 bits; all else stays as it is."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from smml.errors import UserError
from smml.kernels import int4, int8
from smml.llama.model import Llama


class Int8Linear(nn.Module):
    """nn.Linear for inference with 8-bit weights, a scale an output channel."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        words, scale, self.columns = int8.quantize_int8(linear.weight.detach())
        self.register_buffer("words", words)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] → [..., out]."""
        weight = int8.Int8Weight(self.words, self.scale, self.columns)
        return _with_bias(int8.linear_int8(x, weight), self.bias)


class Int4Linear(nn.Module):
    """nn.Linear for inference with 4-bit weights, a scale for each 128 columns of a row."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        words, scale, self.columns = int4.quantize_int4(linear.weight.detach())
        self.register_buffer("words", words)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] → [..., out]."""
        weight = int4.Int4Weight(self.words, self.scale, self.columns)
        return _with_bias(int4.linear_int4(x, weight), self.bias)


LAYERS: dict[int, Callable[[nn.Linear], nn.Module]] = {8: Int8Linear, 4: Int4Linear}


def quantize_model(model: Llama, bits: int) -> Llama:
    """`model` with every nn.Linear of its layers in `bits` (8 or 4) bits a weight, in place; for inference.

    The embedding, which is looked up, and the output matrix keep their dtype. Do not cast the result to another dtype:
    that would round the float32 scales. Raises UserError for other bits.
    """
    if bits not in LAYERS:
        allowed = " or ".join(map(str, LAYERS))
        raise UserError(f"quantize_model: {bits} bits; allowed are {allowed}.")
    for parent in list(model.layers.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, LAYERS[bits](child))
    return model.requires_grad_(False).eval()


def _with_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else torch.add(y, bias)
