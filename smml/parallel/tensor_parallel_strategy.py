"""Tensor parallel as a strategy: one Llama, of which every rank holds a part of every matrix."""

from typing import Any

from torch import Tensor, nn

from smml.llama import counts
from smml.llama.config import LlamaConfig
from smml.parallel.collective_tasks import device
from smml.parallel.strategy import Bytes, Strategy, local
from smml.parallel.tensor_cut import rank_config
from smml.parallel.tensor_parallel import TensorParallelLlama, put_together


class TensorParallelStrategy(Strategy):
    """All ranks share one model; options are `sequence` and `gather_again` of TensorParallelLlama."""

    def __init__(self, config: LlamaConfig, seed: int = 0, **options: bool) -> None:
        super().__init__(config, seed)
        self.module = TensorParallelLlama(config, seed, device=device(), **options)
        self.sharing = self.module.sharing

    def backward(self, data: Tensor) -> Tensor:
        """Every rank computes the loss of the whole batch."""
        loss = self.module(data[:, :-1], data[:, 1:])
        loss.backward()
        return loss.detach() / self.size

    def parameters(self) -> list[nn.Parameter]:
        """The rank's parts."""
        return list(self.module.parameters())

    def whole_gradients(self) -> dict[str, Tensor]:
        """Gathered, and rows put back where they were."""
        return {n: self._whole(n, local(p.grad)) for n, p in self.module.named_parameters()}

    def whole_parameters(self) -> dict[str, Tensor]:
        """Likewise."""
        return {n: self._whole(n, local(p.detach())) for n, p in self.module.named_parameters()}

    def _whole(self, name: str, part: Tensor) -> Tensor:
        return put_together(name, part, self.config, self.sharing)

    @classmethod
    def holds(cls, config: LlamaConfig, rank: int, ranks: int, **options: Any) -> Bytes:
        """16 bytes for each parameter of the narrower Llama; norms are whole in it."""
        parameters = 4 * counts.parameters(rank_config(config, ranks)).total
        return {"parameters": parameters, "gradients": parameters, "optimizer": 2 * parameters}

    @classmethod
    def sends(
        cls, config: LlamaConfig, rank: int, ranks: int, batch: int, tokens: int, **options: Any
    ) -> Bytes:
        """The stream B·T·D, four times a layer, after the embedding and before the logits; two numbers a token and rank.

        With sequence parallel each of these is gathered once and scattered once, and norms' gradients are summed.
        """
        stream = 4 * batch * tokens * config.dim
        sums = (4 * config.layers + 2) * stream
        losses = ranks * 2 * 4 * batch * tokens
        if not options.get("sequence"):
            return {"all-reduce": sums, "all-gather": losses}
        again = (2 * config.layers + 1) * stream if options.get("gather_again") else 0
        whole = 2 * config.layers + 1  # norms, and the biases that are added to the stream
        whole += config.layers * (config.attention_bias + config.mlp_bias)
        return {
            "all-gather": sums + again + losses,
            "reduce-scatter": sums,
            "all-reduce": 4 * whole * config.dim,
        }
