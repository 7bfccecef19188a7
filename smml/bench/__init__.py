"""BENCH: one measurement a file, each yielding records; `smml bench NAME` runs them, notebooks call their parts."""

from itertools import chain

from smml.bench import (
    attention,
    ceilings,
    collectives,
    context_parallel,
    cross_entropy,
    data_parallel,
    decode_attention,
    elementwise,
    expert_parallel,
    fused_elementwise,
    gemm,
    libraries,
    llama_batching,
    llama_decode,
    llama_decode_fused,
    llama_generate,
    llama_step,
    llama_train,
    loading,
    matmul,
    matmul_fp8,
    pipeline,
    planning,
    quant,
    runner,
    scaling,
    serving,
    tensor_parallel,
    train_step,
    zero,
)
from smml.bench.setting import Setting

BENCHES = {
    "gemm": lambda setting: chain(gemm.run(setting), matmul.run(setting), matmul_fp8.run(setting)),
    "elementwise": lambda setting: chain(elementwise.run(setting), fused_elementwise.run(setting)),
    "cross_entropy": cross_entropy.run,
    "attention": lambda setting: chain(attention.run(setting), decode_attention.run(setting)),
    "quant": quant.run,
    "llama-step": llama_step.run,
    "llama-decode": llama_decode_fused.run,
    "ceilings": ceilings.run,
    "train": llama_train.run,
    "generate": llama_generate.run,
    "decode": llama_decode.run,
    "loading": loading.run,
    "train-step": train_step.run,
    "batching": llama_batching.run,
    "serving": serving.run,
    "planning": planning.run,
    "collectives": collectives.run,
    "data-parallel": data_parallel.run,
    "zero": zero.run,
    "tensor-parallel": tensor_parallel.run,
    "pipeline": pipeline.run,
    "context-parallel": context_parallel.run,
    "expert-parallel": expert_parallel.run,
    "libraries": libraries.run,
    "scaling": scaling.run,
    "runner": runner.run,
}
# `smml bench all` measures the machine; the runner's own cost takes minutes and says nothing about it.
OF_THE_MACHINE = [name for name in BENCHES if name != "runner"]
# `smml bench devices`: collectives, every strategy beside PyTorch's, and all of them on one rank and more.
OF_DEVICES = [
    *("collectives", "data-parallel", "zero", "tensor-parallel", "pipeline"),
    *("context-parallel", "expert-parallel", "libraries", "scaling"),
]
# `smml bench kernels`: what is written in Triton, beside its peers.
OF_KERNELS = [
    name
    for name in (
        "gemm",
        "elementwise",
        "cross_entropy",
        "attention",
        "quant",
        "llama-step",
        "llama-decode",
    )
    if name in BENCHES
]

__all__ = [
    "BENCHES",
    "OF_DEVICES",
    "OF_KERNELS",
    "OF_THE_MACHINE",
    "Setting",
    "attention",
    "ceilings",
    "collectives",
    "context_parallel",
    "cross_entropy",
    "data_parallel",
    "decode_attention",
    "elementwise",
    "expert_parallel",
    "fused_elementwise",
    "gemm",
    "libraries",
    "llama_batching",
    "llama_decode",
    "loading",
    "matmul",
    "matmul_fp8",
    "pipeline",
    "planning",
    "quant",
    "runner",
    "scaling",
    "serving",
    "tensor_parallel",
    "train_step",
    "zero",
]
