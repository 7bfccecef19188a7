"""Context parallel: every rank has the whole model and a part of every sequence; only attention needs the others.

Norms, projections, feed-forward and loss take each token by itself, so a rank computes them for its tokens alone, and
holds 1/p of the activations. For gradients this is data parallel: each rank's are those of its tokens, and their mean is
the whole's. So `DataParallel(ContextParallelLlama(config))` is the training step, over the ranks of all sequences.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

from smml.errors import UserError
from smml.llama.config import LlamaConfig
from smml.llama.model import Llama
from smml.llama.ops import IGNORE_INDEX, TORCH_OPS
from smml.parallel.ring_attention import ring_attention
from smml.parallel.sequence_order import chunks, pieces

# Of this rank's q, k and v, the order and the group, to the attended values of its tokens.
ContextAttention = Callable[[Tensor, Tensor, Tensor, str, ProcessGroup | None], Tensor]


class ContextParallelLlama(Llama):
    """A Llama whose forward takes whole sequences, the same on every rank of `group`, and computes this rank's tokens.

    `order` says which (sequence_order.py), `attention` how they meet the others': ring_attention, gather_attention or,
    in contiguous order, ulysses_attention. Raises UserError for an order that is not there.
    """

    def __init__(
        self,
        config: LlamaConfig,
        *,
        order: str = "zigzag",
        attention: ContextAttention = ring_attention,
        group: ProcessGroup | None = None,
        seed: int = 0,
    ) -> None:
        chunks(order, 0, 1)

        def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
            # `causal` is False for a rank with one token, which still sees those of others.
            return attention(q, k, v, order, group)

        super().__init__(config, seed=seed, ops=replace(TORCH_OPS, attention=attend))
        self.order, self.group = order, group

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits [B, T/p, V] of this rank's tokens; given targets, a scalar whose mean over ranks is the mean loss.

        tokens and targets [B, T]. Raises UserError for a sequence that the ranks cannot cut or the context cannot hold.
        """
        rank, ranks = distributed.get_rank(self.group), distributed.get_world_size(self.group)
        length = tokens.shape[1]
        held = pieces(self.order, length, rank, ranks)
        if length > self.config.max_sequence_length:
            raise UserError(
                f"the sequence is {length} tokens long and max_sequence_length is "
                f"{self.config.max_sequence_length}: shorten it."
            )
        positions = torch.cat(
            [torch.arange(piece.start, piece.stop, device=tokens.device) for piece in held]
        )
        if targets is None:
            return super().forward(tokens[:, positions], positions=positions)
        mine = targets[:, positions]
        counted, counted_here = ((t != IGNORE_INDEX).sum() for t in (targets, mine))
        # Of no targets there is no mean: any others do, at weight 0.
        mine = torch.where(counted_here > 0, mine, 0)
        mean = super().forward(tokens[:, positions], mine, positions=positions)
        return mean * (ranks * counted_here / counted)
