"""Bytes that tensors hold, followed operation by operation, and a cap on them: what a CPU does not say by itself."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from smml.errors import UserError


class MemoryLimit(UserError):
    """An operation's result did not fit under the cap."""


class LiveBytes(TorchDispatchMode):
    """Bytes of storages that operations inside made, less those that are gone: `now`, and `most` at one time.

    Results are followed, not what an operation takes and gives back within itself. With `limit` in bytes, the operation
    whose result goes above it raises MemoryLimit, as an allocator without memory would.
    """

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit = limit
        self.now = self.most = 0
        self._known: set[weakref.ref] = set()

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that were made before."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if weakref.ref(storage) not in self._known:
                self._add(storage, "what was there before")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {t.untyped_storage()._cdata for t in _tensors(args, kwargs)}
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            if tensor.is_meta:
                continue
            storage = tensor.untyped_storage()
            if storage._cdata not in given and weakref.ref(storage) not in self._known:
                self._add(storage, str(func))
        return out

    def _add(self, storage: torch.UntypedStorage, maker: str) -> None:
        size = storage.nbytes()
        if self.limit is not None and self.now + size > self.limit:
            raise MemoryLimit(
                f"out of memory: {maker} asked for {size:,} bytes, {self.now:,} of {self.limit:,} are taken: "
                "use more ranks, a strategy that holds less, or a smaller batch."
            )

        def gone(reference: weakref.ref) -> None:
            self._known.discard(reference)
            self.now -= size

        self._known.add(weakref.ref(storage, gone))
        self.now += size
        self.most = max(self.most, self.now)


def _tensors(*values: Any) -> list[Tensor]:
    return [t for t in tree_leaves(values) if isinstance(t, Tensor)]
