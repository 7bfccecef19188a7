"""No strategy: every rank holds the whole model and takes the whole batch. What the others are held against."""

from typing import Any

from torch import Tensor, distributed, nn

from smml.llama import counts
from smml.llama.config import LlamaConfig
from smml.llama.model import Llama
from smml.parallel.collective_tasks import device
from smml.parallel.strategy import Bytes, Strategy


class Alone(Strategy):
    """One process, as if the others were not there."""

    def __init__(self, config: LlamaConfig, seed: int = 0) -> None:
        super().__init__(config, seed)
        self.module = Llama(config, seed=seed).to(device())

    def backward(self, data: Tensor) -> Tensor:
        """Loss and gradients of the whole batch, on every rank the same."""
        loss = self.module(data[:, :-1], data[:, 1:])
        loss.backward()
        return loss.detach() / distributed.get_world_size()

    def parameters(self) -> list[nn.Parameter]:
        """All of them."""
        return list(self.module.parameters())

    def whole_gradients(self) -> dict[str, Tensor]:
        """As they are."""
        return {name: p.grad for name, p in self.module.named_parameters()}

    def whole_parameters(self) -> dict[str, Tensor]:
        """As they are."""
        return {name: p.detach() for name, p in self.module.named_parameters()}

    @classmethod
    def holds(cls, config: LlamaConfig, rank: int, ranks: int, **options: Any) -> Bytes:
        """16 bytes a parameter."""
        parameters = 4 * counts.parameters(config).total
        return {"parameters": parameters, "gradients": parameters, "optimizer": 2 * parameters}

    @classmethod
    def sends(
        cls, config: LlamaConfig, rank: int, ranks: int, batch: int, tokens: int, **options: Any
    ) -> Bytes:
        """Nothing."""
        return {}
