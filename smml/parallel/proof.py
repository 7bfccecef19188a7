"""The proof of a strategy: it is the unsharded model's step, holds what was predicted, and sends what was counted.

Without one no speed is reported: `demand` stands before every clock (strategy_tasks.py).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, distributed, nn

from smml.errors import UserError
from smml.llama.config import LlamaConfig
from smml.parallel.collective_tasks import device
from smml.parallel.strategies import build, kind
from smml.parallel.strategy import Bytes, Strategy, adamw
from smml.parallel.wire import Wire

# Moments exist from the second step on; torch's data parallel orders its buckets in the second.
STEPS = 3
# Of loss, of every gradient and of all parameters after the updates, norm over norm. Sums in another order are 1e-6 to 2e-6
# off in float32; a forgotten reduction, 1e-2 and more (tests/broken_strategies.py).
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Proof:
    """What one rank found: relative differences to one process, and bytes beside their predictions."""

    loss: float
    gradient: float
    worst_gradient: str
    parameters: float
    sent: Bytes
    calls: dict[str, int]  # of each collective, in the last step
    expected: Bytes
    held: Bytes
    predicted: Bytes

    def problems(self) -> list[str]:
        """What does not hold, in words; empty for a strategy that may be timed."""
        found = [
            f"{what} is {off:.1e} off one process's"
            for what, off in (
                ("the loss", self.loss),
                (f"the gradient of {self.worst_gradient}", self.gradient),
                ("a parameter after its updates", self.parameters),
            )
            if not off <= TOLERANCE
        ]
        if self.sent != self.expected:
            found.append(f"it sent {_told(self.sent)}, counted were {_told(self.expected)}")
        if self.held != self.predicted:
            found.append(f"it holds {_told(self.held)}, predicted were {_told(self.predicted)}")
        return found


@dataclass(frozen=True)
class OneProcess:
    """STEPS steps of the undivided model: its losses, every gradient of each step, the model after the updates."""

    losses: list[float]
    gradients: list[dict[str, Tensor]]
    model: nn.Module


@lru_cache(maxsize=2)  # proofs of one size follow each other, and have it in common
def one_process(
    cls: type[Strategy], options: str, config: LlamaConfig, batch: int, tokens: int, seed: int
) -> OneProcess:
    """What the ranks together are held to; `options` as JSON, for `cls.reference`."""
    model = cls.reference(config, seed, **json.loads(options)).to(device())
    optimizer = adamw(list(model.parameters()))
    losses, gradients = [], []
    for step in range(STEPS):
        data = batch_of(config, batch, tokens, seed=step)
        loss = model(data[:, :-1], data[:, 1:])
        loss.backward()
        losses.append(loss.item())
        gradients.append({n: p.grad for n, p in model.named_parameters()})
        optimizer.step()
        optimizer.zero_grad()
    return OneProcess(losses, gradients, model)


def prove(
    name: str,
    config: LlamaConfig,
    batch: int,
    tokens: int,
    options: Mapping[str, Any],
    seed: int = 0,
) -> Proof:
    """STEPS steps of the strategy beside those of one process on the same data; all ranks must call.

    Bytes are those of the last step. Weights start as random as the gradients are to be told apart: the deviation of
    the config's initializer_range.
    """
    strategy, cls = build(name, config, seed, **options), kind(name)
    plain = (
        cls.reference.__func__ is Strategy.reference.__func__
    )  # the model itself, whatever the options
    alone = one_process(
        *((Strategy, "{}") if plain else (cls, json.dumps(dict(options), sort_keys=True))),
        *(config, batch, tokens, seed),
    )
    rank, ranks = strategy.rank, strategy.size
    for step in range(STEPS):
        data = batch_of(config, batch, tokens, seed=step)
        with Wire() as wire:
            loss = strategy.backward(data)
        held = strategy.held()
        theirs = strategy.whole_gradients()
        gradients = {n: _off(theirs[n], g) for n, g in alone.gradients[step].items()}
        distributed.all_reduce(loss)
        with wire:
            strategy.update()
    one, whole = alone.model, alone.losses[-1]
    updated = strategy.whole_parameters()
    worst = max(gradients, key=gradients.__getitem__)
    return Proof(
        loss=abs(loss.item() / whole - 1),
        gradient=gradients[worst],
        worst_gradient=worst,
        parameters=max(_off(updated[n], p.detach()) for n, p in one.named_parameters()),
        sent=dict(wire.bytes),
        calls=dict(wire.calls),
        expected=cls.sends(
            config, rank, ranks, batch, tokens, **options, **cls.decided(one, rank, ranks)
        ),
        held=held,
        predicted=cls.holds(config, rank, ranks, **options),
    )


def problems_by_rank(found: Proof) -> list[list[str]]:
    """What does not hold on each rank, known to all of them; all must call."""
    by_rank: list[list[str]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(by_rank, found.problems())
    return by_rank


def demand(
    name: str, config: LlamaConfig, batch: int, tokens: int, options: Mapping[str, Any]
) -> None:
    """Raise UserError, on every rank alike, where the proof of any rank fails."""
    for rank, problems in enumerate(problems_by_rank(prove(name, config, batch, tokens, options))):
        if problems:
            raise UserError(
                f"{name}: on rank {rank} {'; '.join(problems)}. Its speed would mean nothing: mend it before timing it."
            )


def batch_of(config: LlamaConfig, batch: int, tokens: int, seed: int = 0) -> Tensor:
    """Random token ids [batch, tokens + 1], the same on every rank."""
    generator = torch.Generator().manual_seed(1 + seed)
    return torch.randint(config.vocab_size, (batch, tokens + 1), generator=generator).to(device())


def _off(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


def _told(held: Bytes) -> str:
    return ", ".join(f"{what} {size:,} bytes" for what, size in held.items()) or "nothing"
