"""A stage: some consecutive layers of a Llama, the first with the embedding, the last with norm, output and loss."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from smml.errors import UserError
from smml.llama.config import LlamaConfig
from smml.llama.model import Layer, RMSNorm
from smml.llama.ops import TORCH_OPS, Ops
from smml.parallel import initial


def split(layers: int, stages: int, parts: Sequence[int] | None = None) -> tuple[range, ...]:
    """The layers of each stage: `parts` says how many, by default as equal as they can be, more in front.

    Raises UserError for more stages than layers, and for parts that are not one a stage, at least 1 each (0 only where
    the embedding or the output is), all layers together.
    """
    if parts is None:
        if stages > layers:
            raise UserError(
                f"{layers} layers cannot fill {stages} stages: use fewer ranks or a smaller interleave, at most {layers} "
                "stages in all."
            )
        parts = [layers // stages + (stage < layers % stages) for stage in range(stages)]
    inner = parts[1:-1]
    if len(parts) != stages or sum(parts) != layers or min(parts) < 0 or 0 in inner:
        raise UserError(
            f"layers = {list(parts)} for {stages} stages and {layers} layers: give one number a stage, {layers} together, "
            "at least 1 each (the first and the last may be 0)."
        )
    return tuple(range(*ends) for ends in pairwise(accumulate(parts, initial=0)))


class Stage(nn.Module):
    """Layers `layers` of a Llama of `config`, without memory until `load`; parameters have their names in Llama.

    With tied embeddings both the first and the last stage hold the matrix.
    """

    def __init__(
        self, config: LlamaConfig, layers: range, *, first: bool, last: bool, ops: Ops = TORCH_OPS
    ) -> None:
        super().__init__()
        self.config, self.first, self.last, self.ops = config, first, last, ops
        dtype = torch.float32
        with torch.device("meta"):
            if first or (last and config.tie_embeddings):
                self.embedding = nn.Embedding(config.vocab_size, config.dim, dtype=dtype)
            self.layers = nn.ModuleDict({str(n): Layer(config, n, ops, dtype) for n in layers})
            if last:
                self.norm = RMSNorm(config, dtype)
            if last and not config.tie_embeddings:
                self.output = nn.Linear(config.dim, config.vocab_size, bias=False, dtype=dtype)
            for name in ("rope_cos", "rope_sin"):
                self.register_buffer(name, torch.empty(0), persistent=False)

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        """x, token ids [B, T] of the first stage or else the stream [B, T, D], → stream [B, T, D], normalised by the last
        stage, which gives the mean loss where it has targets [B, T].
        """
        tokens = x.shape[1]
        cos, sin = self.rope_cos[:tokens], self.rope_sin[:tokens]  # 2 × [T, d]
        if self.first:
            x = self.embedding(x)  # [B, T, D]
        for layer in self.layers.values():
            x = layer(x, cos, sin, None, tokens > 1, None)
        if self.last:
            x = self.ops.rms_norm(x, self.norm.weight, self.config.rms_norm_eps)
        return x if targets is None else self.loss(x, targets)

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats; hidden [B, T, D] normalised, targets [B, T]. Of the last stage."""
        weight = self.embedding.weight if self.config.tie_embeddings else self.output.weight
        return self.ops.linear_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten())


def load(stages: Iterable[Stage], seed: int, device: torch.device | str) -> None:
    """Give the stages of one rank memory, and the weights of Llama(config, seed=seed). Nothing else is ever held beyond
    the parameter that is being drawn; a matrix that the first and the last of them tie is held once.
    """
    held = list(stages)
    config = held[0].config
    tables = initial.rope_tables(config, device)
    for stage in held:
        stage.to_empty(device=device)
        stage.rope_cos, stage.rope_sin = tables
    if config.tie_embeddings and held[0].first and held[-1].last:
        held[-1].embedding = held[0].embedding
    own = named_parameters(held)
    with torch.no_grad():
        for name, value in initial.weights(config, seed, device):
            if name in own:
                own[name].copy_(value)


def named_parameters(stages: Iterable[Stage]) -> dict[str, nn.Parameter]:
    """Parameters of the stages of one rank by their names in Llama."""
    return {name: p for stage in stages for name, p in stage.named_parameters()}
