"""Data parallel as a strategy: a Llama in `DataParallel`, each rank its part of the batch."""

from typing import Any

from torch import Tensor, nn

from smml.llama import counts
from smml.llama.config import LlamaConfig
from smml.llama.model import Llama
from smml.parallel.alone import Alone
from smml.parallel.collective_tasks import device
from smml.parallel.data_parallel import DataParallel
from smml.parallel.equal_shares import must_divide
from smml.parallel.strategy import Bytes, Strategy


class DataParallelStrategy(Strategy):
    """The whole model on every rank; `bucket_bytes` of gradients travel together."""

    def __init__(self, config: LlamaConfig, seed: int = 0, **options: Any) -> None:
        super().__init__(config, seed)
        self.module = DataParallel(Llama(config, seed=seed).to(device()), **options)

    def backward(self, data: Tensor) -> Tensor:
        """This rank's sequences; gradients are the mean over ranks."""
        must_divide(self.size, batch=len(data))
        mine = data.chunk(self.size)[self.rank]
        loss = self.module(mine[:, :-1], mine[:, 1:])
        loss.backward()
        self.module.wait()
        return loss.detach() / self.size

    def parameters(self) -> list[nn.Parameter]:
        """All of them."""
        return list(self.module.parameters())

    def whole_gradients(self) -> dict[str, Tensor]:
        """Each rank has them."""
        return {name: p.grad for name, p in self.module.module.named_parameters()}

    def whole_parameters(self) -> dict[str, Tensor]:
        """Each rank has them."""
        return {name: p.detach() for name, p in self.module.module.named_parameters()}

    @classmethod
    def holds(cls, config: LlamaConfig, rank: int, ranks: int, **options: Any) -> Bytes:
        """What one process holds."""
        return Alone.holds(config, rank, ranks)

    @classmethod
    def sends(
        cls, config: LlamaConfig, rank: int, ranks: int, batch: int, tokens: int, **options: Any
    ) -> Bytes:
        """Every gradient once."""
        return {"all-reduce": 4 * counts.parameters(config).total}
