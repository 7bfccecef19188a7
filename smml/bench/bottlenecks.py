"""A training step of the tiny Llama in named phases, and the same step with a fault planted in it.

Each fault is one that real loops have had, and gives the same loss as the healthy step within rounding.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import record_function

from smml.errors import UserError
from smml.llama.config import CONFIGS
from smml.llama.model import Llama
from smml.llama.ops import TORCH_OPS, Ops
from smml.train.config import TrainConfig, read
from smml.train.optimizer import adamw

BATCH, SEQUENCE = 2, 64
FIRST_DRAW = 135  # begins with a fault that a trace of any machine shows at a glance
LOADED_WORDS = 200_000  # what the slow loader reads for a step of 130 tokens
PHASES = ("data", "forward", "backward", "clip", "optimizer")


@dataclass
class Parts:
    """What one step is made of, in its order; a fault swaps one part."""

    model: Llama
    optimizer: torch.optim.Optimizer
    batch: Callable[[], Tensor]
    after_backward: Callable[[], object]
    update: Callable[[], object]


class Loop:
    """A training loop; `step()` does one step and returns its loss, a scalar that stays on the device."""

    def __init__(self, parts: Parts) -> None:
        self._parts, self._fixed = parts, parts.batch()

    @torch.no_grad()
    def forward(self) -> Tensor:
        """The forward pass and its loss alone, on tokens that stay where they are."""
        return self._parts.model(self._fixed[:, :-1], self._fixed[:, 1:])

    def step(self) -> Tensor:
        """Data, forward, backward, clip, optimizer: one range each, as a trace shows them."""
        parts = self._parts
        with record_function("data"):
            batch = parts.batch()  # [B, T + 1]
        with record_function("forward"):
            loss = parts.model(batch[:, :-1], batch[:, 1:])
        with record_function("backward"):
            loss.backward()
        with record_function("clip"):
            parts.after_backward()
            torch.nn.utils.clip_grad_norm_(parts.model.parameters(), 1.0)
        with record_function("optimizer"):
            parts.update()
            parts.optimizer.zero_grad()
        return loss.detach()


def healthy(device: str = "cpu") -> Loop:
    """The step without a fault: what smml.train.step does, in ranges."""
    return Loop(_parts(device))


def planted(fault: str, device: str = "cpu") -> Loop:
    """The step with the fault of that name; UserError lists the names."""
    if fault not in FAULTS:
        raise UserError(f"no fault is called {fault!r}: there are {', '.join(FAULTS)}.")
    return Loop(_PLANT[fault](device))


def mystery(seed: int, device: str = "cpu") -> Loop:
    """A step with one of the FAULTS, drawn by `seed`; what it does tells which."""
    return planted(fault_of(seed), device)


def fault_of(seed: int) -> str:
    """The fault that `seed` draws: any len(FAULTS) seeds in a row from a multiple of it draw each once."""
    names = list(FAULTS)
    turn, place = divmod(seed, len(names))
    random.Random(FIRST_DRAW + turn).shuffle(names)
    return names[place]


def _parts(device: str, ops: Ops = TORCH_OPS, dtype: torch.dtype = torch.float32) -> Parts:
    # Weights are drawn in float32 in any case, so that every loop starts from the same.
    model = Llama(CONFIGS["tiny"], device=device, ops=ops).to(dtype)
    optimizer = adamw(model, _settings())
    tokens = _tokens()

    def batch() -> Tensor:
        return tokens.to(device)

    return Parts(model, optimizer, batch, lambda: None, optimizer.step)


def _settings() -> TrainConfig:
    return read({"model": "tiny", "data": ("topics",), "learning_rate": 1e-4})


def _tokens() -> Tensor:
    """Random tokens [B, T + 1], the same for every loop."""
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, SEQUENCE + 1)
    return torch.randint(CONFIGS["tiny"].vocab_size, shape, generator=generator)


def _slow_loader(device: str) -> Parts:
    """Text becomes tokens when a step asks for them, in plain Python, instead of once before the run."""
    parts = _parts(device)
    words = [str(token) for token in _tokens().flatten().tolist()]
    text = " ".join(words * (LOADED_WORDS // len(words)))

    def batch() -> Tensor:
        ids = [int(word) for word in text.split(" ")]
        return torch.tensor(ids[: len(words)]).view(BATCH, -1).to(device)

    return replace(parts, batch=batch)


def _guard_each_row(device: str) -> Parts:
    """Every row of the embedding's gradient is asked whether it is finite, one at a time, and the answer read back."""
    parts = _parts(device)

    def check() -> None:
        for row in parts.model.embedding.weight.grad.unbind():
            if not math.isfinite(row.norm().item()):
                raise UserError("a gradient is not finite: lower the learning rate.")

    return replace(parts, after_backward=check)


def _row_by_row(device: str) -> Parts:
    """SwiGLU in a Python loop over tokens: as many operators as there are rows."""

    def rows(gate_up: Tensor) -> Tensor:
        gates, ups = (half.flatten(0, -2).unbind() for half in gate_up.chunk(2, -1))
        done = [F.silu(gate) * up for gate, up in zip(gates, ups, strict=True)]
        return torch.stack(done).view(*gate_up.shape[:-1], -1)

    return _parts(device, replace(TORCH_OPS, swiglu=rows))


def _float64(device: str) -> Parts:
    """Parameters and moments in float64, as after a detour through NumPy, whose numbers are that by default."""
    return _parts(device, dtype=torch.float64)


def _mask_again(device: str) -> Parts:
    """The causal mask is made anew in every layer, from lists, for every sequence and head."""

    def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        batch, heads, count, _ = q.shape
        triangle = [
            [[[j <= i for j in range(count)] for i in range(count)] for _ in range(heads)]
            for _ in range(batch)
        ]
        return TORCH_OPS.attention(q, k, v, torch.tensor(triangle, device=q.device), False)

    return _parts(device, replace(TORCH_OPS, attention=attention))


def _new_optimizer(device: str) -> Parts:
    """A new optimizer each step takes over the state of the one before, through a checkpoint in memory."""
    parts, settings = _parts(device), _settings()

    def update() -> None:
        checkpoint = BytesIO()
        torch.save(parts.optimizer.state_dict(), checkpoint)
        checkpoint.seek(0)
        fresh = adamw(parts.model, settings)
        fresh.load_state_dict(torch.load(checkpoint))
        fresh.step()
        parts.optimizer = fresh

    parts.update = update
    return parts


# What each does, in the words of an exercise; which phase it slows is for the trace to say.
FAULTS = {
    "slow loader": "text is tokenised when the step asks for it",
    "row guard": "a value is read back for every row of a gradient",
    "row loop": "an elementwise operation runs token by token",
    "float64": "the model computes in double precision",
    "mask": "a mask is made from Python lists in every layer",
    "new optimizer": "optimizer and state are made anew in every step",
}
_PLANT = {
    "slow loader": _slow_loader,
    "row guard": _guard_each_row,
    "row loop": _row_by_row,
    "float64": _float64,
    "mask": _mask_again,
    "new optimizer": _new_optimizer,
}
