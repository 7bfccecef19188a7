"""Where the memory of a training step goes, by kind, as torch holds it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smml.llama.model import Llama


@dataclass(frozen=True)
class StepBytes:
    """Bytes held at the moment between forward and backward of a step that is not the first."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All four together."""
        return self.weights + self.gradients + self.optimizer + self.activations


def step_bytes(model: Llama, optimizer: torch.optim.Optimizer, batch: Tensor) -> StepBytes:
    """Bytes by kind for batch [B, T + 1]: does a forward and backward, leaves gradients, updates nothing.

    Activations are the storages that forward saves for backward, each once; parameters and buffers are not theirs.
    The optimizer must have stepped before.
    """
    own = {
        tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())
    }
    kept: list[Tensor] = []  # alive until counted, so that no address is used twice
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept.append(tensor)
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens, targets = batch[:, :-1].contiguous(), batch[:, 1:].contiguous()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(tokens, targets)
    activations = sum(saved.values())
    kept.clear()
    loss.backward()
    moments = [t for state in optimizer.state.values() for t in state.values() if t.dim()]
    return StepBytes(
        weights=sum(p.nbytes for p in model.parameters()),
        gradients=sum(p.grad.nbytes for p in model.parameters()),
        optimizer=sum(t.nbytes for t in moments),
        activations=activations,
    )
