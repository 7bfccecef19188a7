"""Every strategy by its name: ours, PyTorch's own, and the libraries'. Modules are imported when they are asked for."""

import importlib
from typing import TYPE_CHECKING, Any

from smml.errors import UserError

if TYPE_CHECKING:  # torch takes seconds to import
    from smml.parallel.strategy import Strategy

STRATEGIES = {
    "alone": "smml.parallel.alone:Alone",
    "data": "smml.parallel.data_parallel_strategy:DataParallelStrategy",
    "expert": "smml.parallel.expert_parallel_strategy:ExpertParallelStrategy",
    "expert-data": "smml.parallel.expert_parallel_strategy:MixtureDataParallel",
    "expert-alone": "smml.parallel.expert_parallel_strategy:MixtureAlone",
    "torch-data": "smml.parallel.torch_native.data_parallel:TorchDataParallel",
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
