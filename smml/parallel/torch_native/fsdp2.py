"""PyTorch's fully_shard (FSDP2) as a strategy: every parameter a DTensor cut by rows, gathered a layer at a time."""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from smml.llama.config import LlamaConfig
from smml.llama.model import Llama
from smml.parallel import initial
from smml.parallel.collective_tasks import device
from smml.parallel.equal_shares import must_divide
from smml.parallel.strategy import Bytes, Strategy
from smml.parallel.zero_sizes import padded


class TorchFSDP2(Strategy):
    """One group of parameters a layer, the rest in the root's."""

    def __init__(self, config: LlamaConfig, seed: int = 0) -> None:
        super().__init__(config, seed)
        mesh = init_device_mesh(device(), (distributed.get_world_size(),))
        self.module = Llama(config, device="meta")
        for layer in self.module.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(self.module, mesh=mesh)
        self.module.to_empty(device=device())
        self.module.rope_cos, self.module.rope_sin = initial.rope_tables(config, device())
        mine = dict(self.module.named_parameters())
        for name, weight in initial.weights(config, seed):
            rows = weight.chunk(self.size)  # fewer than ranks where there are not enough rows
            if self.rank < len(rows):
                mine[name].to_local().data.copy_(rows[self.rank])

    def backward(self, data: Tensor) -> Tensor:
        """This rank's sequences; gradients are the mean over ranks."""
        must_divide(self.size, batch=len(data))
        mine = data.chunk(self.size)[self.rank]
        loss = self.module(mine[:, :-1], mine[:, 1:])
        loss.backward()
        return loss.detach() / self.size

    def parameters(self) -> list[nn.Parameter]:
        """As DTensors."""
        return list(self.module.parameters())

    def whole_gradients(self) -> dict[str, Tensor]:
        """Gathered from all."""
        return {name: p.grad.full_tensor() for name, p in self.module.named_parameters()}

    def whole_parameters(self) -> dict[str, Tensor]:
        """Gathered from all."""
        return {name: p.detach().full_tensor() for name, p in self.module.named_parameters()}

    @classmethod
    def holds(cls, config: LlamaConfig, rank: int, ranks: int, **options: Any) -> Bytes:
        """Every parameter's rows in `ranks` parts, the last ones shorter or empty."""
        mine = sum(
            4 * _rows(shape[0], rank, ranks) * shape[1:].numel()
            for shape in _shapes(config).values()
        )
        return {"parameters": mine, "gradients": mine, "optimizer": 2 * mine}

    @classmethod
    def sends(
        cls, config: LlamaConfig, rank: int, ranks: int, batch: int, tokens: int, **options: Any
    ) -> Bytes:
        """As ours, but padded by rows of every parameter, not once a layer; the root stays whole between forward and backward."""
        bytes_of = {
            name: 4 * padded(shape[0], ranks) * shape[1:].numel()
            for name, shape in _shapes(config).items()
        }
        layers = sum(size for name, size in bytes_of.items() if name.startswith("layers."))
        total = sum(bytes_of.values())
        return {"all-gather": total + layers, "reduce-scatter": total}


def _shapes(config: LlamaConfig) -> dict[str, torch.Size]:
    return {name: p.shape for name, p in Llama(config, device="meta").named_parameters()}


def _rows(rows: int, rank: int, ranks: int) -> int:
    """Rows of that rank, as torch.chunk cuts."""
    part = -(-rows // ranks)
    return max(0, min(part, rows - rank * part))
