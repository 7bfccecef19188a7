"""Linear layers packed once into the layout that oneDNN multiplies in: what a CPU needs to read a weight only once.

torch hands `x @ W.T` with few rows to a BLAS that is tuned for many, and then takes several times as long as the
weights take to arrive. oneDNN's kernels do not, if the weights lie in their own blocks.
"""

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A bias-free or biased linear layer for inference in float32 on a CPU; takes and gives what nn.Linear does."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] → [..., out]."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


def packed(model: nn.Module) -> nn.Module:
    """`model` with its linear layers packed, in place; as it is on a GPU and where torch has no oneDNN."""
    on_cpu = all(p.device.type == "cpu" for p in model.parameters())
    if on_cpu and torch.backends.mkldnn.is_available():
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, PackedLinear(child))
    return model
