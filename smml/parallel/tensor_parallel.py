"""Tensor parallel: every rank computes all tokens with a part of every matrix, and no rank holds a whole one.

A rank's model is a narrower Llama (tensor_cut.py): its heads, its part of the feed-forward width, its part of the
vocabulary. Attention and feed-forward each begin with a product whose columns are cut and end with one whose rows are:
between the two nothing is sent, after the second the ranks' results are parts of a sum. So a layer sends two
all-reduces of B·T·D numbers in forward and two in backward (M. Shoeybi et al., arXiv:1909.08053).

Sequence parallel (V. Korthikanti et al., arXiv:2205.05198) makes each of them a reduce-scatter and, before the next
product, an all-gather: as many bytes, but normalisation and residual stream are computed and kept once, not p times. The
tokens of the batch are cut end to end, B·T/p for each rank.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup

from smml.errors import UserError
from smml.llama.config import LlamaConfig
from smml.llama.kv_cache import KVCache
from smml.llama.model import Attention, Llama
from smml.llama.ops import TORCH_OPS, Ops
from smml.parallel import initial
from smml.parallel.differentiable import Sharing, column_product, gathered, partial_sum, used_by_all
from smml.parallel.equal_shares import must_divide
from smml.parallel.strategy import local
from smml.parallel.tensor_cut import cut, rank_config
from smml.parallel.vocabulary_loss import linear_cross_entropy


class ColumnParallelLinear(nn.Linear):
    """`linear` as the rank's part of a product whose output features are cut; every rank's input is whole."""

    def __init__(self, linear: nn.Linear, sharing: Sharing) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias, self.sharing = linear.weight, linear.bias, sharing

    def forward(self, x: Tensor) -> Tensor:
        """x [N, …, D] (with sequence parallel [N/p, …, D]) → [N, …, W/p]."""
        return column_product(x, self.weight, self.bias, self.sharing)


class RowParallelLinear(ColumnParallelLinear):
    """`linear` as the rank's part of a product whose input features are cut, as the one before has left them."""

    def forward(self, x: Tensor) -> Tensor:
        """x [N, …, W/p] → [N, …, D], with sequence parallel [N/p, …, D]."""
        y = partial_sum(F.linear(x, self.weight), self.sharing)
        if self.bias is None:
            return y
        return y + (used_by_all(self.bias, self.sharing) if self.sharing.sequence else self.bias)


class VocabularyParallelEmbedding(nn.Embedding):
    """The rank's rows [V/p, D] of the embedding; a token is found by one rank, the others add zeros."""

    def __init__(self, embedding: nn.Embedding, sharing: Sharing) -> None:
        nn.Module.__init__(self)
        self.weight, self.sharing = embedding.weight, sharing

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, T] → [B, T, D], with sequence parallel [B·T/p, 1, D]."""
        row = tokens - self.sharing.rank * len(self.weight)
        elsewhere = (row < 0) | (row >= len(self.weight))
        found = F.embedding(row.masked_fill_(elsewhere, 0), self.weight)
        found = found.masked_fill_(elsewhere.unsqueeze(-1), 0.0)
        if self.sharing.sequence:
            found = found.view(-1, 1, found.shape[-1])  # [B·T, 1, D]
        return partial_sum(found, self.sharing)


class SequenceParallelAttention(Attention):
    """Attention whose products gather and scatter tokens: the number of those that come in is not T."""

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
        causal: bool,
        cache: KVCache | None,
    ) -> Tensor:
        """x [B·T/p, 1, D] → the same; H and K below are the rank's heads."""
        qkv = self.qkv(x).view(-1, cos.shape[-2], self.heads + 2 * self.kv_heads, self.head_dim)
        qk, v = qkv.split((self.heads + self.kv_heads, self.kv_heads), dim=2)  # [B, T, …, d]
        q, k = self.ops.rope(qk, cos, sin).split((self.heads, self.kv_heads), dim=2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # [B, H, T, d], 2 × [B, K, T, d]
        attended = self.ops.attention(q, k, v, mask, causal).transpose(1, 2)  # [B, T, H, d]
        return self.output(attended.reshape(-1, 1, self.heads * self.head_dim))


class TensorParallelLlama(Llama):
    """This rank's part of Llama(config, seed=seed): called with the whole batch, it returns the whole batch's loss.

    Every rank of `group` (None: all) takes the same tokens and returns the same loss; parameters are called as in Llama,
    and their gradients are complete after backward. On device="meta" it has shapes and no weights, as Llama has.
    `sequence`: sequence parallel; `gather_again`: see Sharing.
    Raises UserError for sizes that the ranks do not divide.
    """

    def __init__(
        self,
        config: LlamaConfig,
        seed: int = 0,
        group: ProcessGroup | None = None,
        *,
        device: torch.device | str = "cpu",
        ops: Ops = TORCH_OPS,
        sequence: bool = False,
        gather_again: bool = False,
    ) -> None:
        if gather_again and not sequence:
            raise UserError(
                "gather_again without sequence: only sequence parallel gathers. Give both."
            )
        sharing = Sharing(group, sequence, gather_again)
        ops = parallel_ops(ops, sharing)
        super().__init__(rank_config(config, sharing.ranks), device="meta", ops=ops)
        self.sharing = sharing
        self.embedding = VocabularyParallelEmbedding(self.embedding, sharing)
        for number, layer in enumerate(self.layers):
            if sequence:
                with torch.device("meta"):
                    layer.attention = SequenceParallelAttention(
                        self.config, number, ops, torch.float32
                    )
            attention, feed_forward = layer.attention, layer.feed_forward
            attention.qkv = ColumnParallelLinear(attention.qkv, sharing)
            attention.output = RowParallelLinear(attention.output, sharing)
            feed_forward.gate_up = ColumnParallelLinear(feed_forward.gate_up, sharing)
            feed_forward.down = RowParallelLinear(feed_forward.down, sharing)
        if torch.device(device).type != "meta":
            self.materialise(device)
            take_parts(self, config, seed, sharing)

    def forward(self, tokens: Tensor, targets: Tensor | None = None, **given: Any) -> Tensor:
        """As Llama's; logits without targets are gathered for every rank, and have no gradient.

        Raises UserError with sequence parallel for anything but a loss, and for tokens that ranks do not divide.
        """
        if self.sharing.sequence:
            if targets is None or given:
                raise UserError(
                    "sequence parallel computes a loss alone: give targets and nothing else, or make the model without it."
                )
            must_divide(self.sharing.ranks, tokens=tokens.numel())
        found = super().forward(tokens, targets, **given)
        if targets is not None:
            return found
        parts, coming = gathered(found.detach().unsqueeze(0), self.sharing)  # [p, B, T, V/p]
        coming.wait()
        return parts.permute(1, 2, 0, 3).flatten(2)


def parallel_ops(ops: Ops, sharing: Sharing) -> Ops:
    """`ops` with the loss of a cut vocabulary; with sequence parallel norms see a part of the tokens, but are everyone's."""
    shared = replace(ops, linear_cross_entropy=partial(linear_cross_entropy, sharing=sharing))
    if not sharing.sequence:
        return shared
    return replace(
        shared,
        rms_norm=lambda x, weight, eps: ops.rms_norm(x, used_by_all(weight, sharing), eps),
        add_rms_norm=lambda x, residual, weight, eps: ops.add_rms_norm(
            x, residual, used_by_all(weight, sharing), eps
        ),
    )


@torch.no_grad()
def take_parts(module: nn.Module, config: LlamaConfig, seed: int, sharing: Sharing) -> None:
    """Fill `module` with this rank's part of Llama(config, seed=seed); one whole parameter is held at a time."""
    mine = dict(module.named_parameters())
    for name, whole in initial.weights(config, seed):
        how = cut(name, config)
        local(mine[name]).copy_(how.part(whole, sharing.rank, sharing.ranks) if how else whole)


@torch.no_grad()
def put_together(name: str, part: Tensor, config: LlamaConfig, sharing: Sharing) -> Tensor:
    """The whole parameter of that name, or its gradient, from the parts of all ranks, on each; all must call."""
    how = cut(name, config)
    if how is None:
        return part
    parts = [torch.empty_like(part) for _ in range(sharing.ranks)]
    distributed.all_gather(parts, part.contiguous(), sharing.group)
    return how.whole(parts)
