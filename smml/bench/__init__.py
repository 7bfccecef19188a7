"""BENCH: one measurement a file, each yielding records; `smml bench NAME` runs them, notebooks call their parts."""

from smml.bench import (
    ceilings,
    elementwise,
    gemm,
    llama_batching,
    llama_decode,
    llama_generate,
    llama_train,
    loading,
    runner,
    train_step,
)
from smml.bench.setting import Setting

BENCHES = {
    "gemm": gemm.run,
    "elementwise": elementwise.run,
    "ceilings": ceilings.run,
    "train": llama_train.run,
    "generate": llama_generate.run,
    "decode": llama_decode.run,
    "loading": loading.run,
    "train-step": train_step.run,
    "batching": llama_batching.run,
    "runner": runner.run,
}
# `smml bench all` measures the machine; the runner's own cost takes minutes and says nothing about it.
OF_THE_MACHINE = [name for name in BENCHES if name != "runner"]

__all__ = [
    "BENCHES",
    "OF_THE_MACHINE",
    "Setting",
    "ceilings",
    "elementwise",
    "gemm",
    "llama_batching",
    "llama_decode",
    "loading",
    "runner",
    "train_step",
]
