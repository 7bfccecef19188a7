"""Expert parallel: the experts of every layer are spread over the ranks, and each token travels to its own.

Every rank has its part of the batch, and all that is no expert. It routes its tokens, an all-to-all takes each of them to
the ranks of its experts, another one brings the results back; backward goes the same way with gradients. How much a rank
receives, the router decides, so the ranks tell each other their counts first.
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup

from smml.llama.config import LlamaConfig
from smml.parallel.equal_shares import must_divide
from smml.parallel.mixture import STACKED, MixtureLlama, MixtureOfExperts, grouped_swiglu


class AllToAll(torch.autograd.Function):
    """Rows to other ranks, `send[r]` of them to rank r, and `receive[r]` from it; backward takes gradients back."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, send: list[int], receive: list[int], group: ProcessGroup | None
    ) -> Tensor:
        """rows [Σ send, D] → [Σ receive, D], by rank."""
        ctx.send, ctx.receive, ctx.group = send, receive, group
        return exchange(rows, send, receive, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """[Σ receive, D] → [Σ send, D]."""
        return exchange(gradient, ctx.receive, ctx.send, ctx.group), None, None, None


def exchange(
    rows: Tensor, send: list[int], receive: list[int], group: ProcessGroup | None
) -> Tensor:
    """An all-to-all of uneven parts: rows [Σ send, D] → [Σ receive, D]."""
    came = rows.new_empty(sum(receive), rows.shape[1])
    distributed.all_to_all_single(came, rows.contiguous(), receive, send, group=group)
    return came


class SpreadExperts(MixtureOfExperts):
    """A mixture of which this rank holds the experts in `held`. After a forward `load` counts the tokens of all ranks."""

    def __init__(
        self,
        config: LlamaConfig,
        experts: int,
        top_k: int,
        *,
        held: range,
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__(config, experts, top_k, held=len(held))
        self.held, self.group = held, group

    def compute(self, x: Tensor, load: Tensor) -> Tensor:
        """To the ranks of the experts, through them, and back: x [N·k, D] → [N·k, D]."""
        ranks, here = distributed.get_world_size(self.group), len(self.held)
        counts = load.new_empty(ranks * self.experts)
        distributed.all_gather_into_tensor(counts, load, group=self.group)
        counts = counts.view(ranks, self.experts)  # tokens of every rank for every expert
        self.load = counts.sum(0)
        send = load.view(ranks, here).sum(1).tolist()
        for_mine = counts[:, self.held.start : self.held.stop]  # [p, E/p]
        receive = for_mine.sum(1).tolist()

        came = AllToAll.apply(x, send, receive, self.group)  # by rank, then by expert
        expert = torch.arange(here, device=x.device).repeat(ranks)
        by_expert = expert.repeat_interleave(for_mine.flatten()).argsort(stable=True)
        rows = for_mine.sum(0).tolist()
        found = grouped_swiglu(
            came.index_select(0, by_expert), rows, self.gate_up, self.down, self.ops.swiglu
        )
        return AllToAll.apply(found.index_select(0, by_expert.argsort()), receive, send, self.group)


class ExpertParallelLlama(MixtureLlama):
    """MixtureLlama over the ranks of `group`: each has experts / p of every layer's experts, and all other weights.

    Called with this rank's tokens and targets it returns its share of the loss: the mean over its tokens / p. So a
    gradient of an expert is already that of the whole batch, summed over the tokens that came; all others must be added up
    over ranks: call `wait` between backward and the optimizer. Raises UserError where ranks do not divide the experts.
    """

    def __init__(
        self, config: LlamaConfig, *, group: ProcessGroup | None = None, **given: Any
    ) -> None:
        self.group = group
        super().__init__(config, **given)

    def experts_held(self, experts: int) -> range:
        """experts / p neighbours."""
        ranks = distributed.get_world_size(self.group)
        must_divide(ranks, experts=experts)
        first = distributed.get_rank(self.group) * (experts // ranks)
        return range(first, first + experts // ranks)

    def mixture(self, top_k: int) -> MixtureOfExperts:
        """The feed-forward of a layer."""
        return SpreadExperts(self.config, self.experts, top_k, held=self.held, group=self.group)

    def forward(self, tokens: Tensor, targets: Tensor | None = None, **given: Any) -> Tensor:
        """Logits of this rank's tokens, or its share of the loss."""
        found = super().forward(tokens, targets, **given)
        return found if targets is None else found / distributed.get_world_size(self.group)

    def shared(self) -> list[nn.Parameter]:
        """All that every rank holds."""
        return [p for name, p in self.named_parameters() if not name.endswith(STACKED)]

    def wait(self) -> None:
        """Return when the gradients of what every rank holds are those of the whole batch."""
        works = [
            distributed.all_reduce(p.grad, group=self.group, async_op=True) for p in self.shared()
        ]
        for work in works:
            work.wait()
