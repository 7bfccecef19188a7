"""Training steps of a Llama up the ladder: eager, compiled, fused kernels, flash attention, fp8 products, checkpointing."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from smml.bench.llama_train import step_work
from smml.bench.peers import KERNEL, side_by_side
from smml.bench.setting import Setting
from smml.bench.step_memory import Plan, predict_peak
from smml.llama import counts
from smml.llama.config import CONFIGS, LlamaConfig
from smml.measure import Record

if TYPE_CHECKING:  # torch takes seconds to import: `smml bench` names its benches without it
    from smml.bench.ladder import Rung, Step

CHECKPOINTED = f"{KERNEL}-checkpointed"


@dataclass(frozen=True)
class Size:
    """batch [B, T] through a Llama of `shape`; with activation checkpointing `larger_batch` sequences."""

    shape: LlamaConfig
    batch: int
    larger_batch: int
    sequence_length: int
    budget_s: float


# On a CPU the path is proven, not measured: kernels are interpreted there.
SIZES = {
    "cpu": Size(
        replace(
            CONFIGS["tiny"], dim=32, layers=1, heads=2, kv_heads=1, head_dim=16, vocab_size=64,
            feed_forward_dim=64, max_sequence_length=32,
        ), 1, 2, 8, 0.1,
    ),
    "cuda": Size(replace(CONFIGS["llama-3.2-1b"], max_sequence_length=4096), 4, 8, 4096, 2.0),
}  # fmt: skip


def run(setting: Setting) -> Iterator[Record]:
    """Tokens per second, MFU and memory of each rung, and how many times as fast the fused model is as the others.

    The rungs of one batch run in turns on the same parameters; the checkpointed one, whose batch is larger, after them.
    """
    import torch

    from smml.bench import ladder

    size = SIZES[setting.device]
    made = ladder.steps(setting, size.shape, size.batch, size.sequence_length, rungs(setting))
    yield from _timed(setting, size.shape, made, KERNEL, size.budget_s)
    yield from memory(setting, size, made)
    made.clear()
    torch.compiler.reset()  # their compiled code: eight versions of a layer are the most that are kept
    larger = checkpointed(setting, size)
    yield from _timed(setting, size.shape, larger, CHECKPOINTED, size.budget_s)
    yield from memory(setting, replace(size, batch=size.larger_batch), larger)


def rungs(setting: Setting) -> "list[Rung]":
    """The ladder: each rung is the one before with one change. On a CPU the compiler and interpreted fp8 take too long."""
    from smml.bench.ladder import Rung
    from smml.kernels import fp8_linear
    from smml.kernels.llama_ops import FUSED_OPS
    from smml.llama.ops import TORCH_OPS

    on_gpu = setting.device != "cpu"
    layers = "layers" if on_gpu else "nothing"
    torch_attention = replace(FUSED_OPS, attention=TORCH_OPS.attention)
    found = [Rung("eager")]
    if on_gpu:
        found.append(Rung("compiled", compiled="model"))
    found += [
        Rung(f"{KERNEL}-without-attention", torch_attention, layers),
        Rung(KERNEL, FUSED_OPS, layers),
    ]
    if on_gpu and fp8_linear.available(setting.device):
        found.append(Rung(f"{KERNEL}-fp8", FUSED_OPS, layers, linear=fp8_linear.Fp8Linear))
    return found


def checkpointed(setting: Setting, size: Size) -> "dict[str, Step]":
    """The fused model with activation checkpointing, on the larger batch that this leaves room for."""
    from smml.bench import ladder
    from smml.bench.ladder import Rung
    from smml.kernels.llama_ops import FUSED_OPS

    layers = "layers" if setting.device != "cpu" else "nothing"
    rung = Rung(CHECKPOINTED, FUSED_OPS, layers, activation_checkpointing=True)
    return ladder.steps(setting, size.shape, size.larger_batch, size.sequence_length, [rung])


def memory(setting: Setting, size: Size, made: "dict[str, Step]") -> Iterator[Record]:
    """The most bytes that each rung's step holds; the predictions are of eager and fused ones (see `plan`)."""
    from smml.bench import ladder

    for name, step in made.items():
        step.call()  # so that the optimizer's moments are there, and what is compiled is
        predicted = predict_peak(plan(setting, size, step.rung))
        yield ladder.peak_record(setting, f"llama-step/peak/{name}", step, predicted)


def plan(setting: Setting, size: Size, rung: "Rung") -> Plan:
    """What the rung keeps, for `predict_peak`. A compiler may keep less than eager, whose count stands for it."""
    from smml.kernels.linear_cross_entropy import rows_per_chunk
    from smml.llama.ops import TORCH_OPS

    shape, rows = size.shape, size.batch * size.sequence_length
    fused = rung.ops.swiglu is not TORCH_OPS.swiglu
    return Plan(
        shape,
        size.batch,
        size.sequence_length,
        2 if setting.profile.dtype == "bfloat16" else 4,
        loss="fused" if fused else "whole",
        chunk=rows_per_chunk(rows, shape.dim, shape.vocab_size),
        fused=fused,
        fused_norm=setting.device != "cpu",
        checkpointing=rung.activation_checkpointing,
    )


def _timed(
    setting: Setting, shape: LlamaConfig, made: "dict[str, Step]", ours: str, budget_s: float
) -> Iterator[Record]:
    batch = next(iter(made.values())).batch
    sequences, tokens = len(batch), batch.shape[1] - 1
    found = side_by_side(
        setting,
        "llama-step",
        {name: step.call for name, step in made.items()},
        amount=sequences * tokens,
        unit="tokens/s",
        work=step_work(shape, sequences, tokens),
        inputs={"batch": sequences, "sequence_length": tokens}
        | {"parameters": counts.parameters(shape).total},
        ours=ours,
        budget_s=budget_s,
    )
    from smml.bench.ladder import CONVENTION

    for record in found:
        yield record.model_copy(update={"flop_convention": CONVENTION})
