"""What every way to train one Llama on several ranks offers to its caller, and so to its proof and its clock."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, distributed, nn

from smml.llama.config import LlamaConfig
from smml.llama.model import Llama

Bytes = dict[str, int]  # by collective, or by what they are held for


class Strategy(ABC):
    """One Llama, trained by all ranks together; its weights are those of Llama(config, seed=seed), however they lie.

    `data` is token ids [batch, tokens + 1], the same on every rank, which takes of it what it needs. The loss is the mean
    over all of them. Options are the strategy's own keyword arguments. Raises UserError for ranks that do not divide what
    they must.
    """

    def __init__(self, config: LlamaConfig, seed: int = 0) -> None:
        self.config, self.seed = config, seed
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.optimizer: torch.optim.Optimizer | None = None

    @abstractmethod
    def backward(self, data: Tensor) -> Tensor:
        """Forward and backward, until gradients are those of the whole batch. Returns this rank's share of the loss:
        a detached scalar; the shares of all ranks add up to it (0 on a rank that sees none).
        """

    @abstractmethod
    def parameters(self) -> list[nn.Parameter]:
        """What this rank holds and updates."""

    @abstractmethod
    def whole_gradients(self) -> dict[str, Tensor]:
        """Every gradient by its name in Llama.named_parameters, whole, on every rank; all must call. For proofs."""

    @abstractmethod
    def whole_parameters(self) -> dict[str, Tensor]:
        """Every parameter likewise."""

    def update(self) -> None:
        """A step of AdamW, and gradients forgotten."""
        if self.optimizer is None:
            self.optimizer = adamw(self.parameters())
        self.optimizer.step()
        self.optimizer.zero_grad()

    def held(self) -> Bytes:
        """Bytes between backward and update: parameters, gradients and the optimizer's moments on this rank."""
        parameters = self.parameters()
        state = self.optimizer.state.values() if self.optimizer else ()
        return {
            "parameters": sum(local(p).nbytes for p in parameters),
            "gradients": sum(local(p.grad).nbytes for p in parameters if p.grad is not None),
            "optimizer": sum(
                local(t).nbytes
                for moments in state
                for t in moments.values()
                if isinstance(t, Tensor) and t.dim()
            ),
        }

    @classmethod
    def reference(cls, config: LlamaConfig, seed: int, **options: Any) -> nn.Module:
        """The unsharded model, called with tokens and targets: a Llama, unless the strategy is for another."""
        return Llama(config, seed=seed)

    @classmethod
    @abstractmethod
    def holds(cls, config: LlamaConfig, rank: int, ranks: int, **options: Any) -> Bytes:
        """What `held` finds after the first update, predicted: bytes in float32."""

    @classmethod
    @abstractmethod
    def sends(
        cls, config: LlamaConfig, rank: int, ranks: int, batch: int, tokens: int, **options: Any
    ) -> Bytes:
        """Payload in bytes by collective (see wire.py) of one backward and update, predicted; none that is 0."""

    @classmethod
    def decided(cls, one: nn.Module, rank: int, ranks: int) -> dict[str, Any]:
        """Arguments of `sends` that data decide, found in the unsharded model after its forward; none but for a router."""
        return {}


def adamw(parameters: list[nn.Parameter]) -> torch.optim.AdamW:
    """The optimizer of every strategy, so that they can be held to each other: a smaller eps makes of rounding in gradients
    that are almost 0 whole steps.
    """
    return torch.optim.AdamW(parameters, lr=1e-3, eps=1e-4, weight_decay=0.0)


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a DTensor, or the tensor itself."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
