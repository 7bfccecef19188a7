"""Bytes that tensors hold, followed operation by operation, and a cap on them: what a CPU does not say by itself."""

import weakref
from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from smml.errors import UserError


class MemoryLimit(UserError):
    """An operation's result did not fit under the cap."""


class LiveBytes(TorchDispatchMode):
    """Bytes of storages that operations inside made, less those that are gone: `now`, and `most` at one time.

    Results are followed, not what an operation takes and gives back within itself; so is a storage's resize_, and of a
    tensor that stands for others (a DTensor) what it stands for. With `limit` in bytes, the operation whose result goes
    above it raises MemoryLimit, as an allocator without memory would.
    """

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit = limit
        self.now = self.most = 0
        self._sizes: dict[weakref.ref, int] = {}

    def __enter__(self) -> Self:
        self._torch_resize = torch.UntypedStorage.resize_

        def resize_(storage: torch.UntypedStorage, size: int) -> Any:
            if storage.device.type != "meta":
                self._take(storage, size, "resize_")
            return self._torch_resize(storage, size)

        torch.UntypedStorage.resize_ = resize_  # no operation, so that dispatch does not see it
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.UntypedStorage.resize_ = self._torch_resize
        super().__exit__(*error)

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that were made before."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._take(storage, storage.nbytes(), "what was there before")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(hasattr(kind, "to_local") for kind in types):
            return NotImplemented  # what it does with its parts comes by again
        given = {t.untyped_storage()._cdata for t in _tensors(args, kwargs)}
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            if tensor.is_meta:
                continue
            storage = tensor.untyped_storage()
            if storage._cdata not in given and weakref.ref(storage) not in self._sizes:
                self._take(storage, storage.nbytes(), str(func))
        return out

    def _take(self, storage: torch.UntypedStorage, size: int, maker: str) -> None:
        """Count `size` bytes for a storage, in place of those it had."""
        others = self.now - self._sizes.get(weakref.ref(storage), 0)
        if self.limit is not None and others + size > self.limit:
            raise MemoryLimit(
                f"out of memory: {maker} asked for {size:,} bytes, {others:,} of {self.limit:,} are taken: "
                "use more ranks, a strategy that holds less, or a smaller batch."
            )

        def gone(reference: weakref.ref) -> None:
            self.now -= self._sizes.pop(reference)

        if (reference := weakref.ref(storage)) not in self._sizes:
            reference = weakref.ref(storage, gone)
        self._sizes[reference] = size
        self.now = others + size
        self.most = max(self.most, self.now)


def _tensors(*values: Any) -> list[Tensor]:
    return [t for t in tree_leaves(values) if isinstance(t, Tensor)]
