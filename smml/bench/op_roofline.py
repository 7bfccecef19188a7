"""A step taken apart into the operations that torch runs: FLOPs and bytes of each from its shapes, its time from the roof."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from smml.roofline import Roof, Work

# Names of views that torch does not mark as such: nothing moves.
VIEWS = ("aten::_unsafe_view", "aten::detach")
# They look up one number or row for each token: the table that they are handed is not read.
LOOKUPS = ("aten::embedding", "aten::nll_loss_forward", "aten::nll_loss_backward")
# Two products forward; backward makes the scores again and four more (arXiv:2307.08691, section 3.1).
ATTENTION_PRODUCTS = {"forward": 2, "backward": 5}


@dataclass(frozen=True)
class Operation:
    """One call of an operation: its name, and its work as its operands' shapes say it."""

    name: str
    work: Work

    @property
    def product(self) -> bool:
        """Whether it multiplies matrices; else it is a pass through memory."""
        return self.work.flops > 0


def operations(step: Callable[[], object]) -> list[Operation]:
    """Run `step` once and list what torch ran in it, views left out; every operand counts as read, every result as written.

    Matrix products count their FLOPs, attention among them with the pairs that it looks at; other operations count none.
    """
    with _Listing() as listing:
        step()
    return listing.found


def seconds(found: list[Operation], roof: Roof) -> float:
    """Time of the operations one after the other, each at its own bound: FLOPs, bytes or launch."""
    return sum(roof.predict(operation.work).seconds for operation in found)


class _Listing(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Operation] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name
        if func.is_view or name in VIEWS:
            return out
        read = {id(t): t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        written = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        # What an operation changes in place is read and written, and not among its results.
        changed = [
            t
            for given, argument in zip(args, func._schema.arguments, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
            for t in tree_leaves(given)
            if isinstance(t, torch.Tensor)
        ]
        fresh = sum(_bytes(t) for t in written if id(t) not in read)
        written_bytes = fresh + sum(map(_bytes, changed))
        read_bytes = 0 if name in LOOKUPS else sum(map(_bytes, read.values()))
        work = Work(_flops(func, args, kwargs, out), read_bytes, written_bytes, fresh)
        if work.bytes:
            self.found.append(Operation(name, work))
        return out


def _bytes(tensor: torch.Tensor) -> int:
    """Bytes that really lie in memory: an expanded dimension is there once."""
    elements = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= size if stride else min(size, 1)
    return elements * tensor.itemsize


def _flops(func: Any, args: tuple, kwargs: dict[str, Any], out: Any) -> float:
    name = func._schema.name
    if "attention" in name:
        backward = "backward" in name
        heads = [a for a in args if isinstance(a, torch.Tensor) and a.dim() == 4]
        q, k = heads[1:3] if backward else heads[:2]  # backward is handed the gradient first
        B, H, T, d = q.shape
        pairs = T * (T + 1) / 2 if any(a is True for a in args) else T * k.shape[2]  # causal
        return ATTENTION_PRODUCTS["backward" if backward else "forward"] * 2 * B * H * pairs * d
    if func._overloadpacket in flop_registry:
        return flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
    return 0
