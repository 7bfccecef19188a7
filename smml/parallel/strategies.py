"""Every strategy by its name: ours, PyTorch's own, and the libraries'. Modules are imported when they are asked for."""

import importlib
from typing import TYPE_CHECKING, Any

from smml.errors import UserError

if TYPE_CHECKING:  # torch takes seconds to import
    from smml.parallel.strategy import Strategy

STRATEGIES = {
    "alone": "smml.parallel.alone:Alone",
    "data": "smml.parallel.data_parallel_strategy:DataParallelStrategy",
    "zero-1": "smml.parallel.zero_strategy:ZeRO1",
    "zero-2": "smml.parallel.zero_strategy:ZeRO2",
    "zero-3": "smml.parallel.zero_strategy:ZeRO3",
    "tensor": "smml.parallel.tensor_parallel_strategy:TensorParallelStrategy",
    "pipeline-gpipe": "smml.parallel.pipeline.strategy:GPipe",
    "pipeline-1f1b": "smml.parallel.pipeline.strategy:OneForwardOneBackward",
    "pipeline-interleaved": "smml.parallel.pipeline.strategy:Interleaved",
    "context": "smml.parallel.context_parallel_strategy:ContextParallelStrategy",
    "context-gather": "smml.parallel.context_parallel_strategy:ContextGather",
    "ulysses": "smml.parallel.context_parallel_strategy:Ulysses",
    "expert": "smml.parallel.expert_parallel_strategy:ExpertParallelStrategy",
    "expert-data": "smml.parallel.expert_parallel_strategy:MixtureDataParallel",
    "expert-alone": "smml.parallel.expert_parallel_strategy:MixtureAlone",
    "mesh": "smml.parallel.mesh_strategy:MeshStrategy",
    "torch-data": "smml.parallel.torch_native.data_parallel:TorchDataParallel",
    "torch-fsdp2": "smml.parallel.torch_native.fsdp2:TorchFSDP2",
    "torch-tensor": "smml.parallel.torch_native.tensor_parallel:TorchTensorParallel",
    "torch-pipeline-gpipe": "smml.parallel.torch_native.pipelining:TorchGPipe",
    "torch-pipeline-1f1b": "smml.parallel.torch_native.pipelining:TorchOneForwardOneBackward",
    "torch-pipeline-interleaved": "smml.parallel.torch_native.pipelining:TorchInterleaved",
    "accelerate-ddp": "smml.parallel.libraries.accelerate:AccelerateDDP",
    "accelerate-fsdp2": "smml.parallel.libraries.accelerate:AccelerateFSDP2",
    "deepspeed-zero-1": "smml.parallel.libraries.deepspeed:DeepSpeedZeRO1",
    "deepspeed-zero-2": "smml.parallel.libraries.deepspeed:DeepSpeedZeRO2",
    "deepspeed-zero-3": "smml.parallel.libraries.deepspeed:DeepSpeedZeRO3",
    "deepspeed-autotp": "smml.parallel.libraries.deepspeed_autotp:DeepSpeedAutoTP",
}


def kind(name: str) -> "type[Strategy]":
    """The class of that name. Raises UserError for a name that is not there."""
    if name not in STRATEGIES:
        raise UserError(f"{name!r} is no strategy: name one of {', '.join(STRATEGIES)}.")
    module, _, found = STRATEGIES[name].partition(":")
    return getattr(importlib.import_module(module), found)


def build(name: str, config: Any, seed: int = 0, **options: Any) -> "Strategy":
    """The strategy of that name on this rank; options are its own."""
    return kind(name)(config, seed, **options)
