"""Context parallel as a strategy: by ring attention, by gathering keys and values, and by all-to-all."""

from typing import Any

from torch import Tensor, distributed

from smml.llama import counts
from smml.llama.config import LlamaConfig
from smml.parallel.collective_tasks import device
from smml.parallel.context_parallel import ContextAttention, ContextParallelLlama
from smml.parallel.data_parallel import DataParallel
from smml.parallel.data_parallel_strategy import DataParallelStrategy
from smml.parallel.equal_shares import must_divide
from smml.parallel.gather_attention import gather_attention
from smml.parallel.ring_attention import ring_attention, ring_bytes
from smml.parallel.sequence_order import pieces
from smml.parallel.strategy import Bytes, Strategy
from smml.parallel.ulysses import ulysses_attention


class ContextParallelStrategy(DataParallelStrategy):
    """The whole model on every rank, and of every sequence the tokens that `order` gives it: zigzag or contiguous."""

    attention: ContextAttention = staticmethod(ring_attention)

    def __init__(self, config: LlamaConfig, seed: int = 0, order: str = "zigzag") -> None:
        Strategy.__init__(self, config, seed)
        module = ContextParallelLlama(config, order=order, attention=self.attention, seed=seed)
        self.module = DataParallel(module.to(device()))

    def backward(self, data: Tensor) -> Tensor:
        """This rank's tokens of all sequences; gradients are the mean over ranks."""
        loss = self.module(data[:, :-1], data[:, 1:])
        loss.backward()
        self.module.wait()
        return loss.detach() / self.size

    @classmethod
    def sends(
        cls, config: LlamaConfig, rank: int, ranks: int, batch: int, tokens: int, **options: Any
    ) -> Bytes:
        """Every gradient once, and blocks of keys and values around the ring of every layer."""
        blocks = config.layers * sum(ring_bytes(batch, tokens, config.kv_dim, ranks))
        return _gradients(config) | ({"send": blocks} if blocks else {})


class ContextGather(ContextParallelStrategy):
    """The same with the keys and values of all ranks gathered first."""

    attention = staticmethod(gather_attention)

    @classmethod
    def sends(
        cls, config: LlamaConfig, rank: int, ranks: int, batch: int, tokens: int, **options: Any
    ) -> Bytes:
        """Every gradient once, and keys and values of every layer, gathered, and their gradients, summed and scattered."""
        whole = config.layers * 2 * batch * tokens * config.kv_dim * 4
        return _gradients(config) | {"all-gather": whole, "reduce-scatter": whole}


class Ulysses(ContextParallelStrategy):
    """The same with tokens exchanged for heads before attention, and back after it. Raises UserError where the ranks
    do not divide the heads.
    """

    attention = staticmethod(ulysses_attention)

    def __init__(self, config: LlamaConfig, seed: int = 0) -> None:
        must_divide(distributed.get_world_size(), heads=config.heads, kv_heads=config.kv_heads)
        super().__init__(config, seed, order="contiguous")

    @classmethod
    def sends(
        cls, config: LlamaConfig, rank: int, ranks: int, batch: int, tokens: int, **options: Any
    ) -> Bytes:
        """Every gradient once; of every layer queries, keys, values and the attended, and the gradients of all four."""
        (held,) = pieces("contiguous", tokens, rank, ranks)
        numbers = batch * (held.stop - held.start) * 2 * (config.query_dim + config.kv_dim)
        return _gradients(config) | {"all-to-all": config.layers * 2 * numbers * 4}


def _gradients(config: LlamaConfig) -> Bytes:
    return {"all-reduce": 4 * counts.parameters(config).total}
