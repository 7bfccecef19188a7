"""A mixture of experts: a Llama whose feed-forward is many, of which a router picks a few for every token.

As in Mixtral (arXiv:2401.04088): probabilities over the experts by softmax, the `top_k` largest renormalised to sum to 1,
every expert a SwiGLU; no token is dropped. A single one keeps its probability, or the router could not learn
(arXiv:2101.03961). Shapes: N tokens, k = top_k, E experts, D width, F an expert's inner width.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smml.errors import UserError
from smml.llama import counts
from smml.llama.config import LlamaConfig
from smml.llama.model import Llama, initialise
from smml.llama.ops import TORCH_OPS, Ops

STACKED = ("feed_forward.gate_up", "feed_forward.down")  # one matrix an expert, in one parameter


class MixtureOfExperts(nn.Module):
    """Σ weight · expert(x) over the `top_k` experts of each token; holds the weights of `held` of `experts` experts.

    After a forward `load` [E] says how many tokens each expert got. Raises UserError for a top_k that is none of 1…E, and
    for a config with biases.
    """

    def __init__(
        self,
        config: LlamaConfig,
        experts: int,
        top_k: int,
        *,
        held: int,
        ops: Ops = TORCH_OPS,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= experts:
            raise UserError(
                f"top_k = {top_k} of {experts} experts: a token needs at least 1 and at most all of them."
            )
        if config.mlp_bias:
            raise UserError("mlp_bias is True: experts have no biases. Choose a config without.")
        dim, inner = config.dim, config.feed_forward_dim
        self.experts, self.top_k, self.ops = experts, top_k, ops
        self.router = nn.Parameter(torch.empty(experts, dim, dtype=dtype))
        self.gate_up = nn.Parameter(torch.empty(held, 2 * inner, dim, dtype=dtype))
        self.down = nn.Parameter(torch.empty(held, dim, inner, dtype=dtype))
        self.load = self.mean_probability = None

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] → [B, T, D]."""
        tokens = x.flatten(0, 1)  # [N, D]
        probabilities = F.linear(tokens, self.router).float().softmax(-1)  # [N, E]
        weights, chosen = probabilities.topk(self.top_k)  # 2 × [N, k]
        if self.top_k > 1:
            weights = weights / weights.sum(-1, keepdim=True)
        by_expert = chosen.flatten().argsort(stable=True)  # the N·k choices, expert after expert
        self.load = torch.bincount(chosen.flatten(), minlength=self.experts)  # [E]
        self.mean_probability = probabilities.mean(0)  # [E]
        sorted_tokens = tokens.index_select(0, by_expert // self.top_k)  # [N·k, D]
        found = self.compute(sorted_tokens, self.load)
        found = found.index_select(0, by_expert.argsort()).unflatten(0, (-1, self.top_k))
        return torch.einsum("nk,nkd->nd", weights.to(x.dtype), found).view_as(x)

    def compute(self, x: Tensor, load: Tensor) -> Tensor:
        """Every row through its expert: x [N·k, D] holds `load[0]` rows of expert 0, then those of 1, …"""
        return grouped_swiglu(x, load.tolist(), self.gate_up, self.down, self.ops.swiglu)

    def imbalance(self) -> Tensor:
        """E · Σ share of tokens · mean probability, 1 for an even router: eq. 4 of arXiv:2101.03961, without its α.

        Shares are those of the last forward's choices and have no gradient; probabilities have one.
        """
        return self.experts * (self.load / self.load.sum() * self.mean_probability).sum()


def grouped_swiglu(
    x: Tensor,
    rows: list[int],
    gate_up: Tensor,
    down: Tensor,
    swiglu: Callable[[Tensor], Tensor] = TORCH_OPS.swiglu,
) -> Tensor:
    """x [R, D] → [R, D], the first rows[0] through expert 0, and so on; gate_up [E, 2F, D], down [E, D, F]."""
    parts = zip(x.split(rows), gate_up.unbind(), down.unbind(), strict=True)
    return torch.cat([F.linear(swiglu(F.linear(part, one)), two) for part, one, two in parts])


class MixtureLlama(Llama):
    """A Llama with `experts` feed-forwards a layer, `top_k` of them for a token; `feed_forward_dim` is each one's width.

    Random weights of `seed`, as in Llama; `skew` multiplies the router's rows of the first half of the experts, whose
    probabilities then lie further apart, so that they are chosen more often. With `balance` (Switch's α) the loss of each
    layer's imbalance is added. `device="meta"` makes shapes without memory.
    """

    def __init__(
        self,
        config: LlamaConfig,
        *,
        experts: int = 8,
        top_k: int = 2,
        balance: float = 0.0,
        skew: float = 1.0,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(config, device="meta")
        self.experts, self.balance, self.skew = experts, balance, skew
        self.held = self.experts_held(experts)
        for layer in self.layers:
            with torch.device("meta"):
                layer.feed_forward = self.mixture(top_k)
        if torch.device(device).type != "meta":
            self.materialise(device)
            self.init_weights(seed)

    def experts_held(self, experts: int) -> range:
        """Those whose weights are in this module: all of them."""
        return range(experts)

    def mixture(self, top_k: int) -> MixtureOfExperts:
        """The feed-forward of a layer."""
        return MixtureOfExperts(self.config, self.experts, top_k, held=len(self.held))

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """As Llama's, in the order of the names; every expert's is made, those that are held are kept."""
        parameters, device = dict(self.named_parameters()), self.embedding.weight.device
        for name, expert, weight in weights(self.config, self.experts, seed, device):
            if expert is None:
                parameters[name].copy_(weight)
            elif expert in self.held:
                parameters[name][expert - self.held.start] = weight
        for layer in self.layers:
            layer.feed_forward.router[: self.experts // 2] *= self.skew

    def forward(self, tokens: Tensor, targets: Tensor | None = None, **given: Any) -> Tensor:
        """As Llama's."""
        found = super().forward(tokens, targets, **given)
        if targets is None or not self.balance:
            return found
        return found + self.balance * sum(layer.feed_forward.imbalance() for layer in self.layers)

    def loads(self) -> Tensor:
        """Tokens of every expert in the last forward [L, E]."""
        return torch.stack([layer.feed_forward.load for layer in self.layers])


def weights(
    config: LlamaConfig, experts: int, seed: int, device: torch.device | str = "cpu"
) -> Iterator[tuple[str, int | None, Tensor]]:
    """Name, expert (None: of all) and first value, float32, of every weight of MixtureLlama, each made when asked for."""
    generator = torch.Generator(device=device).manual_seed(seed)
    for name, parameter in MixtureLlama(
        config, experts=experts, top_k=1, device="meta"
    ).named_parameters():
        if name.endswith(STACKED):
            for expert in range(experts):
                one = torch.empty(parameter.shape[1:], device=device)
                yield name, expert, initialise(one, f"{name}.weight", config, generator)
        else:
            one = torch.empty(parameter.shape, device=device)
            yield name, None, initialise(one, name, config, generator)


@dataclass(frozen=True)
class MixtureCount:
    """Parameters over all layers: `shared` by all tokens (router included), and of `expert`, one of `experts`."""

    shared: int
    expert: int
    experts: int
    top_k: int

    @property
    def total(self) -> int:
        """All."""
        return self.shared + self.experts * self.expert

    @property
    def active(self) -> int:
        """Those that one token meets."""
        return self.shared + self.top_k * self.expert

    def held(self, ranks: int) -> int:
        """On a rank, where the experts are spread over `ranks`."""
        return self.shared + self.experts // ranks * self.expert


def parameters(config: LlamaConfig, experts: int = 8, top_k: int = 2) -> MixtureCount:
    """Counted from the configuration alone."""
    llama = counts.parameters(config)
    router = config.layers * experts * config.dim
    shared = llama.total - llama.feed_forward + router
    return MixtureCount(shared, llama.feed_forward, experts, top_k)
