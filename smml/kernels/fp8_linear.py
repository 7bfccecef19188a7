"""Linear layers of a Llama that multiply in fp8 forward, in place of the torch ones whose parameters they take over."""

import torch
from torch import Tensor, nn

from smml.kernels.matmul import fp8


class Fp8Linear(nn.Module):
    """x [..., K] → [..., N] in the dtype of x with the parameters of `linear`; backward multiplies in bfloat16."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """x · Wᵀ + bias. Raises UserError where K is no multiple of 16 or N none of 8."""
        y = fp8.linear(x.to(torch.bfloat16), self.weight.to(torch.bfloat16)).to(x.dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)


def available(device: torch.device | str) -> bool:
    """Whether fp8 products run there: on GPUs of compute capability 8.9 and more, and in the interpreter."""
    device = torch.device(device)
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 9)
