"""DeepSpeed's AutoTP, tensor parallel by rules, as a strategy. Read beside deepspeed 0.19.8."""

from typing import Any

from torch import Tensor, nn

from smml.llama import counts
from smml.llama.config import LlamaConfig
from smml.llama.model import Llama
from smml.parallel.collective_tasks import device
from smml.parallel.differentiable import Sharing
from smml.parallel.equal_shares import must_divide
from smml.parallel.libraries.deepspeed import alone_with_its_groups, engine_around
from smml.parallel.strategy import Bytes, Strategy
from smml.parallel.tensor_parallel import put_together


class DeepSpeedAutoTP(Strategy):
    """Layers that they name are replaced; embedding, norms and output stay whole on every rank.

    Its key is tensor_parallel.autotp_size. Left to find layers by itself it knows models of transformers by their names, so
    that our fused matrices need rules.
    """

    def __init__(self, config: LlamaConfig, seed: int = 0) -> None:
        super().__init__(config, seed)
        must_divide(self.size, kv_heads=config.kv_heads, feed_forward_dim=config.feed_forward_dim)
        self.llama = Llama(config, seed=seed).to(device())
        rules = {"use_default_specs": False, "layer_specs": _rules(config)}
        parallel = {"autotp_size": self.size, "partition_config": rules}
        self.engine, self.optimizer = engine_around(self.llama, {"tensor_parallel": parallel})
        for layer in self.llama.layers:  # it adapts the counts of heads of attributes that it knows
            layer.attention.heads //= self.size
            layer.attention.kv_heads //= self.size

    def backward(self, data: Tensor) -> Tensor:
        """Every rank computes the loss of the whole batch."""
        alone_with_its_groups(self.engine)
        loss = self.engine(data[:, :-1], data[:, 1:])
        self.engine.backward(loss)
        return loss.detach() / self.size

    def update(self) -> None:
        """Every rank its own parts."""
        self.engine.step()

    def parameters(self) -> list[nn.Parameter]:
        """The rank's parts."""
        return list(self.llama.parameters())

    def whole_gradients(self) -> dict[str, Tensor]:
        """Gathered, and rows put back where they were."""
        return {name: self._whole(name, p.grad) for name, p in self.llama.named_parameters()}

    def whole_parameters(self) -> dict[str, Tensor]:
        """Likewise."""
        return {name: self._whole(name, p.detach()) for name, p in self.llama.named_parameters()}

    def _whole(self, name: str, part: Tensor) -> Tensor:
        if not name.startswith("layers."):
            return part
        return put_together(name, part, self.config, Sharing())

    @classmethod
    def holds(cls, config: LlamaConfig, rank: int, ranks: int, **options: Any) -> Bytes:
        """1/ranks of the matrices of layers, all of the rest."""
        parts = counts.parameters(config)
        rest = parts.embedding + parts.norms + parts.output
        held = 4 * (rest + (parts.attention + parts.feed_forward) // ranks)
        return {"parameters": held, "gradients": held, "optimizer": 2 * held}

    @classmethod
    def sends(
        cls, config: LlamaConfig, rank: int, ranks: int, batch: int, tokens: int, **options: Any
    ) -> Bytes:
        """The stream B·T·D four times a layer: after each second product, and in backward before each first.

        And all gradients among the ranks that hold the same parts, though each is the only one.
        """
        stream = 4 * batch * tokens * config.dim
        gradients = cls.holds(config, rank, ranks)["gradients"]
        return {"all-reduce": 4 * config.layers * stream + gradients}


def _rules(config: LlamaConfig) -> list[dict[str, Any]]:
    """How AutoTP cuts our fused matrices: each of those that lie one after the other by itself."""
    q, kv, hidden = config.query_dim, config.kv_dim, config.feed_forward_dim
    fused = {"attention.qkv": (q, kv, kv), "feed_forward.gate_up": (hidden, hidden)}
    second = "attention.output", "feed_forward.down"
    return [
        {
            "patterns": [rf"layers\..*\.{name}\.weight$"],
            "partition_type": "column",
            "shape": [list(sizes), -1],
            "partition_dim": 0,
        }
        for name, sizes in fused.items()
    ] + [
        {"patterns": [rf"layers\..*\.{name}\.weight$"], "partition_type": "row"} for name in second
    ]
