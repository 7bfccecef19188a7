"""Hugging Face Accelerate as strategies: data parallel, and its FSDP2 plugin, which on CPUs shards nothing and says so nowhere.

The job is the one of its guide: an Accelerator prepares model and optimizer, and calls backward. Read beside accelerate 1.15.
"""

import os
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor

from smml.llama.config import LlamaConfig
from smml.llama.model import Layer, Llama
from smml.parallel.collective_tasks import device
from smml.parallel.data_parallel_strategy import DataParallelStrategy
from smml.parallel.equal_shares import must_divide
from smml.parallel.strategy import Bytes, Strategy, adamw
from smml.parallel.torch_native.fsdp2 import TorchFSDP2


class AccelerateDDP(DataParallelStrategy):
    """Accelerator() with nothing asked: torch's DistributedDataParallel at its defaults."""

    def __init__(self, config: LlamaConfig, seed: int = 0) -> None:
        Strategy.__init__(self, config, seed)
        _forget()
        self._prepare(None)

    def _prepare(self, plugin: FullyShardedDataParallelPlugin | None) -> None:
        # Without cpu=True each rank of torchrun that finds no GPU becomes a process alone: no collective, no warning.
        self.accelerator = Accelerator(cpu=device() == "cpu", fsdp_plugin=plugin)
        self.llama = Llama(self.config, seed=self.seed).to(device())
        # It takes a model's child with Norm in its type's name for the last norm and shards it as a module of its own,
        # which gathers its weight when called. Llama's norms are never called, their weights are read. Looked for
        # among the layers, none is found, and the weight is gathered with the rest of the model.
        self.llama.base_model_prefix = "layers"
        self.module, self.optimizer = self.accelerator.prepare(
            self.llama, adamw(list(self.llama.parameters()))
        )

    def backward(self, data: Tensor) -> Tensor:
        """This rank's sequences; gradients are the mean over ranks."""
        must_divide(self.size, batch=len(data))
        mine = data.chunk(self.size)[self.rank]
        loss = self.module(mine[:, :-1], mine[:, 1:])
        self.accelerator.backward(loss)
        return loss.detach() / self.size

    def whole_gradients(self) -> dict[str, Tensor]:
        """Gathered where they are sharded."""
        return {name: _whole(p.grad) for name, p in self.llama.named_parameters()}

    def whole_parameters(self) -> dict[str, Tensor]:
        """Gathered where they are sharded."""
        return {name: _whole(p.detach()) for name, p in self.llama.named_parameters()}

    @classmethod
    def sends(
        cls, config: LlamaConfig, rank: int, ranks: int, batch: int, tokens: int, **options: Any
    ) -> Bytes:
        """Every gradient once. And the two rotary tables in every forward: buffers are rank 0's by DDP's default."""
        tables = 2 * 4 * config.max_sequence_length * config.head_dim
        return super().sends(config, rank, ranks, batch, tokens) | {"broadcast": tables}


class AccelerateFSDP2(AccelerateDDP):
    """Accelerator(fsdp_plugin=…) of FSDP version 2, a Layer a unit: what it claims is parameters, gradients and moments
    cut by rows, 1/ranks of each.

    On CPUs that claim is broken: AcceleratorState looks at the plugin only for a distributed type of its list of
    accelerators, on which MULTI_CPU does not stand; the model is then wrapped in DistributedDataParallel, without a word.
    No argument, setting or variable changes that. `insist` gives the state a type of the list before the Accelerator asks
    it: the plugin's own path is then taken, on the CPU and over gloo.
    """

    def __init__(self, config: LlamaConfig, seed: int = 0, insist: bool = False) -> None:
        Strategy.__init__(self, config, seed)
        _forget()
        if insist and device() == "cpu":
            PartialState(cpu=True).distributed_type = DistributedType.MULTI_GPU
        # Its default wraps the whole model as one unit: nothing could be freed while any of it is in use.
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=[Layer.__name__],
        )
        self._prepare(plugin)

    @classmethod
    def holds(cls, config: LlamaConfig, rank: int, ranks: int, **options: Any) -> Bytes:
        """What torch's fully_shard holds."""
        return TorchFSDP2.holds(config, rank, ranks)

    @classmethod
    def sends(
        cls, config: LlamaConfig, rank: int, ranks: int, batch: int, tokens: int, **options: Any
    ) -> Bytes:
        """What torch's fully_shard sends, a Layer a unit."""
        return TorchFSDP2.sends(config, rank, ranks, batch, tokens)


def _forget() -> None:
    """Let the next Accelerator of this process start anew: its state is the process's, and a plugin stays in the environment.

    Older ones then read the new state; their backward and step ask it for nothing that differs between strategies.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    os.environ.pop("ACCELERATE_USE_FSDP", None)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
