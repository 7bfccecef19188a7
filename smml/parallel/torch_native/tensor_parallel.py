"""PyTorch's tensor parallel (DTensor, parallelize_module) as a strategy, on the same Llama.

DTensor cuts a matrix into equal neighbouring parts. Our qkv and gate_up hold several matrices one after the other, so that
a part would hold rows of one of them only: rows are laid in the order of ranks first (each rank's q, k and v together),
and attention is told how many heads a part holds.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)

from smml.llama.config import LlamaConfig
from smml.llama.model import Llama
from smml.llama.ops import TORCH_OPS, linear_cross_entropy, rms_norm
from smml.parallel.collective_tasks import device
from smml.parallel.differentiable import Sharing
from smml.parallel.equal_shares import must_divide
from smml.parallel.strategy import Bytes, Strategy, adamw
from smml.parallel.tensor_cut import rank_config
from smml.parallel.tensor_parallel import take_parts
from smml.parallel.tensor_parallel_strategy import TensorParallelStrategy


class TorchTensorParallel(TensorParallelStrategy):
    """The same with DTensors; `sequence` as in ours."""

    def __init__(self, config: LlamaConfig, seed: int = 0, sequence: bool = False) -> None:
        Strategy.__init__(self, config, seed)
        narrow = rank_config(config, self.size)
        self.mesh = init_device_mesh(device(), (self.size,))
        ops = replace(TORCH_OPS, rms_norm=self._rms_norm, linear_cross_entropy=self._loss)
        self.module = Llama(config, device="meta", ops=ops)
        for layer in self.module.layers:
            layer.attention.heads, layer.attention.kv_heads = narrow.heads, narrow.kv_heads
        parallelize_module(self.module, self.mesh, plan(config, sequence))
        self.module.materialise(device())
        self.sharing, self.sequence = Sharing(), sequence
        take_parts(self.module, config, seed, self.sharing)

    def backward(self, data: Tensor) -> Tensor:
        """Every rank computes the loss of the whole batch."""
        if self.sequence:
            must_divide(self.size, tokens=data.shape[1] - 1)
        with loss_parallel():
            loss = super().backward(data)
        # DTensor leaves the embedding's gradient whole on every rank, and those of norms as partial sums where tokens are
        # cut. AdamW would turn each into what its parameter is several times.
        for parameter in self.parameters():
            gradient = parameter.grad
            if isinstance(gradient, DTensor) and gradient.placements != parameter.placements:
                parameter.grad = gradient.redistribute(placements=parameter.placements)
        return loss

    def update(self) -> None:
        """A step of AdamW; on a GPU it takes a group's tensors all at once, which must not mix DTensors with others."""
        if self.optimizer is None:
            groups: dict[bool, list[nn.Parameter]] = {}
            for parameter in self.parameters():
                groups.setdefault(isinstance(parameter, DTensor), []).append(parameter)
            self.optimizer = adamw([{"params": group} for group in groups.values()])
        super().update()

    def _rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normed = rms_norm(x, weight, eps)
        if isinstance(normed, DTensor) and weight is self.module.norm.weight:
            return normed.redistribute(placements=(Replicate(),))  # before the logits
        return normed

    def _loss(self, hidden: Tensor, weight: DTensor, targets: Tensor) -> Tensor:
        hidden, targets = (
            x if isinstance(x, DTensor) else DTensor.from_local(x, self.mesh, (Replicate(),))
            for x in (hidden, targets)
        )
        return linear_cross_entropy(hidden, weight, targets).to_local()

    @classmethod
    def sends(
        cls, config: LlamaConfig, rank: int, ranks: int, batch: int, tokens: int, **options: Any
    ) -> Bytes:
        """As ours, but for the loss: three all-reduces of a number a token instead of one all-gather."""
        sent = super().sends(config, rank, ranks, batch, tokens, **options)
        sent["all-gather"] -= ranks * 2 * 4 * batch * tokens
        sent["all-reduce"] += 3 * 4 * batch * tokens
        return {name: size for name, size in sent.items() if size}


def plan(config: LlamaConfig, sequence: bool) -> dict[str, ParallelStyle]:
    """Style of every module; with `sequence` the stream is a DTensor whose tokens are cut."""
    stream: dict[str, Any] = (
        {"output_layouts": Shard(1), "use_local_output": False} if sequence else {}
    )
    came = {"input_layouts": Shard(1)} if sequence else {}
    styles: dict[str, ParallelStyle] = {
        "embedding": RowwiseParallel(input_layouts=Replicate(), **stream),
        "layers.*.attention.qkv": ColwiseParallel(**came),
        "layers.*.attention.output": RowwiseParallel(**stream),
        "layers.*.feed_forward.gate_up": ColwiseParallel(**came),
        "layers.*.feed_forward.down": RowwiseParallel(**stream),
    }
    if not config.tie_embeddings:
        styles["output"] = ColwiseParallel()
    if sequence:
        norms = ("layers.*.attention_norm", "layers.*.feed_forward_norm", "norm")
        styles |= {name: SequenceParallel() for name in norms}
    return styles
