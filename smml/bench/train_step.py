"""A training step taken apart: its memory by kind, its time, and what activation checkpointing makes of both."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from smml.bench.llama_train import step_work
from smml.bench.setting import Setting
from smml.hardware.reach import thread_count
from smml.llama import counts
from smml.llama.config import CONFIGS, LlamaConfig
from smml.measure import MIN_SAMPLES, Record, slowed, time_interleaved
from smml.measure.record import git_commit
from smml.roofline import Prediction

if TYPE_CHECKING:  # torch takes seconds to import: `smml bench` names its benches without it
    import torch
    from torch import Tensor

    from smml.llama.model import Llama

KINDS = ("weights", "gradients", "optimizer", "activations")


@dataclass(frozen=True)
class Size:
    """What one step works on: batch [B, T] through a Llama of `shape`."""

    shape: LlamaConfig
    batch: int
    sequence_length: int

    @property
    def tokens(self) -> int:
        """Tokens of a step, B·T."""
        return self.batch * self.sequence_length


# On a GPU the tiny model would measure launches: there, its tokenizer's vocabulary on wider and more layers.
_WIDER = {
    "dim": 1024,
    "layers": 16,
    "heads": 16,
    "kv_heads": 8,
    "head_dim": 64,
    "feed_forward_dim": 4096,
}
SIZES = {
    "cpu": Size(CONFIGS["tiny"], 8, 128),
    "cuda": Size(replace(CONFIGS["tiny"], max_sequence_length=1024, **_WIDER), 8, 1024),
}


def run(setting: Setting) -> Iterator[Record]:
    """Memory by kind and time of a step, plain and with activation checkpointing."""
    size = SIZES[setting.device]
    for checkpointing in (False, True):
        model, optimizer, batch = parts(setting, size)
        model.activation_checkpointing = checkpointing
        yield step(setting, model, optimizer, batch)
        yield from memory(setting, model, optimizer, batch)


def parts(setting: Setting, size: Size) -> "tuple[Llama, torch.optim.AdamW, Tensor]":
    """Model with random weights, its optimizer after one step, and a random batch [B, T + 1]."""
    import torch

    from smml.llama.model import Llama
    from smml.train.config import read
    from smml.train.optimizer import adamw
    from smml.train.step import train_step

    model = Llama(size.shape, device=setting.device)
    optimizer = adamw(model, read({"model": "tiny", "data": ("topics",), "learning_rate": 1e-4}))
    generator = torch.Generator().manual_seed(0)
    shape = (size.batch, size.sequence_length + 1)
    batch = torch.randint(size.shape.vocab_size, shape, generator=generator).to(setting.device)
    train_step(model, optimizer, batch)
    return model, optimizer, batch


def memory(
    setting: Setting, model: "Llama", optimizer: "torch.optim.Optimizer", batch: "Tensor"
) -> list[Record]:
    """Bytes by kind of a float32 step, each against its count; activations are what forward keeps for backward."""
    from smml.train.memory import step_bytes

    found = [step_bytes(model, optimizer, batch) for _ in range(MIN_SAMPLES)]
    expected = predict_memory(
        setting, _size(model, batch), checkpointing=model.activation_checkpointing
    )
    name = f"memory-{_kind(model)}"
    return [
        _bytes_record(
            setting, f"{name}/{kind}", sorted(getattr(b, kind) for b in found), expected[kind]
        )
        for kind in KINDS
    ]


def predict_memory(setting: Setting, size: Size, *, checkpointing: bool = False) -> dict[str, int]:
    """Bytes by kind of a float32 step with AdamW, from the shape alone."""
    state = counts.training_state_bytes(size.shape)
    activations = counts.activation_bytes(
        size.shape,
        size.batch,
        size.sequence_length,
        checkpointing=checkpointing,
        fused_norm=setting.device != "cpu",
    )
    figures = (state.parameters, state.gradients, state.optimizer, activations.saved)
    return dict(zip(KINDS, figures, strict=True))


def predict_step(
    setting: Setting, size: Size, forward_s: float, *, checkpointing: bool = False
) -> Prediction:
    """A measured forward pass, backward at twice its FLOPs, with `checkpointing` the layers' forward once more; then
    AdamW's pass over its bytes at the memory's rate.
    """
    shape, batch, length = size.shape, size.batch, size.sequence_length
    update_s = setting.roof().predict(step_work(shape, batch, length)).memory_s
    return Prediction(
        work_ratio(size, checkpointing=checkpointing) * forward_s + update_s, update_s
    )


def work_ratio(size: Size, *, checkpointing: bool = False) -> float:
    """FLOPs of a whole step over those of its forward pass: 3, and with `checkpointing` almost 4."""
    shape, batch, length = size.shape, size.batch, size.sequence_length
    step = counts.training_flops(shape, batch, length, recompute=checkpointing)
    return step / counts.forward_flops(shape, batch, length).total


def step(
    setting: Setting, model: "Llama", optimizer: "torch.optim.Optimizer", batch: "Tensor"
) -> Record:
    """Time whole steps; FLOPs are the model's, nothing counted twice, so that the share of the datasheet is MFU.

    Forward passes are timed in turns with them, and foretell them; their median stands in inputs as `forward_s`.
    """
    import torch

    from smml.train.step import train_step

    size, dtype = _size(model, batch), getattr(torch, setting.profile.dtype)

    def forward() -> None:
        with torch.autocast(setting.device, dtype, enabled=dtype != torch.float32):
            model(batch[:, :-1], batch[:, 1:])

    calls = {
        "forward": forward,
        "step": slowed(lambda: train_step(model, optimizer, batch, dtype=dtype), setting.slowdown),
    }
    with thread_count(setting.threads("compute")):
        timings = time_interleaved(calls, device=setting.device, budget_s=1.5, target_spread=0.0)
    forward_s = timings["forward"].p50
    return setting.record(
        f"train-step/{_kind(model)}",
        timings["step"],
        step_work(size.shape, size.batch, size.sequence_length),
        predict_step(setting, size, forward_s, checkpointing=model.activation_checkpointing),
        {
            "batch": size.batch,
            "sequence_length": size.sequence_length,
            "tokens": size.tokens,
            "forward_s": forward_s,
        },
    )


def _size(model: "Llama", batch: "Tensor") -> Size:
    return Size(model.config, len(batch), batch.shape[1] - 1)


def _kind(model: "Llama") -> str:
    return "checkpointed" if model.activation_checkpointing else "plain"


def _bytes_record(setting: Setting, name: str, values: list[int], predicted: int) -> Record:
    """A record of bytes, whose values come sorted; they are counted, so they differ only where torch does."""
    return Record(
        name=f"{name}/float32",
        unit="B",
        better="lower",
        value=values[len(values) // 2],
        p20=values[0],
        p80=values[-1],
        n=len(values),
        predicted=predicted,
        inputs={"profile": setting.profile.name, "bound": "capacity"},
        machine=setting.machine_id,
        environment=setting.machine.environment(),
        commit=git_commit(),
        date=datetime.now(UTC).replace(microsecond=0),
        source=setting.source,
    )
