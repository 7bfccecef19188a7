"""A ladder of training steps: the same Llama, the same weights and optimizer, each rung made faster or smaller by one change."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import torch

from smml.bench.llama_train import step_work
from smml.bench.setting import Setting
from smml.bench.step_memory import peak_bytes
from smml.errors import UserError
from smml.hardware.reach import thread_count
from smml.llama.config import LlamaConfig
from smml.llama.model import Llama
from smml.llama.ops import TORCH_OPS, Ops
from smml.measure import MIN_SAMPLES, Record, record, slowed, time_interleaved
from smml.measure.record import git_commit
from smml.train.config import read
from smml.train.optimizer import adamw
from smml.train.step import train_step

if TYPE_CHECKING:
    from torch import Tensor, nn

CONVENTION = "2 FLOPs a multiply-add, backward twice forward, causal attention counted by half, nothing recomputed"
# Of the first loss, on the same weights and batch, against the first rung's.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float8_e4m3fn": 5e-2}


@dataclass(frozen=True)
class Rung:
    """One way to do the step: its operations, how much of it torch.compile takes, what its linear layers multiply in.

    `compiled`: nothing, each layer for itself (one compilation serves all of them), or the whole model.
    """

    name: str
    ops: Ops = TORCH_OPS
    compiled: Literal["nothing", "layers", "model"] = "nothing"
    linear: "Callable[[nn.Linear], nn.Module] | None" = None
    activation_checkpointing: bool = False


@dataclass(frozen=True)
class Step:
    """A rung ready to run on one batch [B, T + 1]: `call` does a whole step and returns its loss."""

    rung: Rung
    model: Llama
    optimizer: torch.optim.Optimizer
    batch: "Tensor"
    call: "Callable[[], Tensor]"


def steps(
    setting: Setting, shape: LlamaConfig, batch: int, tokens: int, rungs: Iterable[Rung]
) -> dict[str, Step]:
    """The rungs by name, on one set of parameters, one optimizer and one random batch [batch, tokens + 1].

    Before the first update each one's loss is held against the first rung's. Raises UserError where it is another.
    """
    dtype = getattr(torch, setting.profile.dtype)
    base = Llama(shape, device=setting.device)
    optimizer = adamw(base, read({"model": "tiny", "data": ("topics",), "learning_rate": 1e-4}))
    generator = torch.Generator().manual_seed(0)
    tokens_ = torch.randint(shape.vocab_size, (batch, tokens + 1), generator=generator)
    data = tokens_.to(setting.device)
    made = {rung.name: _step(_sharing(base, rung), rung, optimizer, data, dtype) for rung in rungs}
    check_losses(made, setting.profile.dtype)
    return made


def check_losses(made: dict[str, Step], dtype: str) -> dict[str, float]:
    """Losses of the steps by name, in nats, with what torch.compile compiles compiled; updates nothing.

    Raises UserError where one is farther from the first than TOLERANCE says.
    """
    losses = {}
    for name, step in made.items():
        with torch.autocast(
            step.batch.device.type, getattr(torch, dtype), enabled=dtype != "float32"
        ):
            losses[name] = step.model(step.batch[:, :-1], step.batch[:, 1:]).item()
    first = next(iter(losses.values()))
    for name, loss in losses.items():
        allowed = TOLERANCE["float8_e4m3fn" if made[name].rung.linear else dtype]
        if not abs(loss - first) <= allowed * first:
            raise UserError(
                f"losses of the same weights are {losses}: {name} does other work. Report it."
            )
    return losses


def measure(
    setting: Setting,
    made: Mapping[str, Step],
    predicted_s: Mapping[str, float],
    budget_s: float = 0.5,
) -> list[Record]:
    """Tokens per second of each step, timed in turns, against its predicted seconds; shares are of model FLOPs."""
    calls = {name: step.call for name, step in made.items()}
    with thread_count(setting.threads("compute")):
        timings = time_interleaved(
            {name: slowed(call, setting.slowdown) for name, call in calls.items()},
            device=setting.device,
            budget_s=budget_s,
            target_spread=0.0,
        )
    roof, physical = setting.roof(), setting.physical_roof()
    records = []
    for name, step in made.items():
        sequences, tokens = len(step.batch), step.batch.shape[1] - 1
        amount = sequences * tokens
        work = step_work(step.model.config, sequences, tokens)
        records.append(
            record(
                f"ladder/{name}/{setting.profile.dtype}",
                timings[name],
                machine=setting.machine_id,
                source=setting.source,
                unit="tokens/s",
                amount=amount,
                predicted_s=predicted_s[name],
                measured_ceiling=amount * roof.peak_flops / work.flops,
                physical_ceiling=amount * physical.peak_flops / work.flops if physical else None,
                inputs={"profile": setting.profile.name, "batch": sequences}
                | {"sequence_length": tokens, "bound": "compute"},
                flops=work.flops,
                flop_convention=CONVENTION,
                environment=setting.machine.environment(),
            )
        )
    return records


def peak_record(setting: Setting, name: str, step: Step, predicted: int) -> Record:
    """The most bytes that torch holds during a whole step, against the bytes counted.

    The optimizer must have stepped before, and what is compiled be compiled.
    """
    values = sorted(_peak(step) for _ in range(MIN_SAMPLES))
    return Record(
        name=f"{name}/{setting.profile.dtype}",
        unit="B",
        better="lower",
        value=values[len(values) // 2],
        p20=values[0],
        p80=values[-1],
        n=len(values),
        predicted=predicted,
        inputs={"profile": setting.profile.name, "bound": "capacity", "batch": len(step.batch)}
        | {"sequence_length": step.batch.shape[1] - 1},
        machine=setting.machine_id,
        environment=setting.machine.environment(),
        commit=git_commit(),
        date=datetime.now(UTC).replace(microsecond=0),
        source=setting.source,
    )


def _peak(step: Step) -> int:
    step.optimizer.zero_grad()
    moments = [t for state in step.optimizer.state.values() for t in state.values() if t.dim()]
    held = sum(t.nbytes for t in (*step.model.parameters(), *moments))
    return peak_bytes(step.call, held, step.batch.device.type)


def _sharing(base: Llama, rung: Rung) -> Llama:
    """A model with the parameters of `base` themselves, its operations and linear layers the rung's."""
    checkpointing = rung.activation_checkpointing
    model = Llama(
        base.config, device="meta", ops=rung.ops, activation_checkpointing=checkpointing,
        dtype=base.embedding.weight.dtype,
    )  # fmt: skip
    model.load_state_dict(base.state_dict(keep_vars=True), assign=True)
    model.rope_cos, model.rope_sin = base.rope_cos, base.rope_sin
    if rung.linear:
        for layer in model.layers:
            attention, feed_forward = layer.attention, layer.feed_forward
            attention.qkv, attention.output = map(rung.linear, (attention.qkv, attention.output))
            feed_forward.gate_up, feed_forward.down = map(
                rung.linear, (feed_forward.gate_up, feed_forward.down)
            )
    return model


def _step(
    model: Llama, rung: Rung, optimizer: torch.optim.Optimizer, batch: "Tensor", dtype: torch.dtype
) -> Step:
    if rung.compiled == "layers":
        for layer in model.layers:
            layer.compile(dynamic=False)
    elif rung.compiled == "model":
        model.compile(dynamic=False)

    def call() -> "Tensor":
        return train_step(model, optimizer, batch, dtype=dtype)[0]

    return Step(rung, model, optimizer, batch, call)
