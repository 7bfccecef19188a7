"""What this rank puts on the wire, counted where every collective of torch passes: ours, FSDP's, DTensor's, a library's.

Payloads in bytes are those of nccl-tests: the tensor of an all-reduce, a reduce or a broadcast; all ranks' parts together of an
all-gather, a reduce-scatter or an all-to-all; the message of a send. Who receives counts nothing.
"""

from collections import Counter
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

RESULT = -1
# Operator → the collective and the place of its payload: the number of an argument, or the result.
OPERATORS = {
    "c10d::allreduce_": ("all-reduce", 0),
    "c10d::allreduce_coalesced_": ("all-reduce", 0),
    "c10d::reduce_": ("reduce", 0),
    "c10d::broadcast_": ("broadcast", 0),
    "c10d::allgather_": ("all-gather", 0),
    "c10d::_allgather_base_": ("all-gather", 0),
    "c10d::allgather_coalesced_": ("all-gather", 0),
    "c10d::allgather_into_tensor_coalesced_": ("all-gather", 0),
    "c10d::reduce_scatter_": ("reduce-scatter", 1),
    "c10d::_reduce_scatter_base_": ("reduce-scatter", 1),
    "c10d::reduce_scatter_tensor_coalesced_": ("reduce-scatter", 1),
    "c10d::alltoall_": ("all-to-all", 1),
    "c10d::alltoall_base_": ("all-to-all", 1),
    "c10d::send": ("send", 0),
    "_c10d_functional::all_reduce": ("all-reduce", 0),
    "_c10d_functional::all_reduce_": ("all-reduce", 0),
    "_c10d_functional::all_reduce_coalesced": ("all-reduce", 0),
    "_c10d_functional::all_reduce_coalesced_": ("all-reduce", 0),
    "_c10d_functional::broadcast": ("broadcast", 0),
    "_c10d_functional::broadcast_": ("broadcast", 0),
    "_c10d_functional::all_gather_into_tensor": ("all-gather", RESULT),
    "_c10d_functional::all_gather_into_tensor_out": ("all-gather", RESULT),
    "_c10d_functional::all_gather_into_tensor_coalesced": ("all-gather", RESULT),
    "_c10d_functional::reduce_scatter_tensor": ("reduce-scatter", 0),
    "_c10d_functional::reduce_scatter_tensor_coalesced": ("reduce-scatter", 0),
    "_c10d_functional::all_to_all_single": ("all-to-all", 0),
}
# These send nothing, or what another operator has counted.
SILENT = {
    "c10d::recv_",
    "c10d::recv_any_source_",
    "c10d::barrier",
    "c10d::monitored_barrier_",
    "_c10d_functional::wait_tensor",
    "_c10d_functional::_wrap_tensor_autograd",
}


class Wire(TorchDispatchMode):
    """Counts, while it is entered, `bytes` and `calls` by collective. A collective that it does not know raises KeyError."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # DTensor first: it calls its collectives within, where they are seen
        result = func(*args, **(kwargs or {}))
        operator = func._schema.name
        if operator.startswith(("c10d::", "_c10d_functional::")) and operator not in SILENT:
            collective, place = OPERATORS[operator]
            payload = result if place == RESULT else args[place]
            self.calls[collective] += 1
            self.bytes[collective] += sum(
                leaf.nbytes for leaf in tree_leaves(payload) if isinstance(leaf, Tensor)
            )
        return result
