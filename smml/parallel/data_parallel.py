"""Data parallel: every rank has all weights and a part of the batch; gradients are averaged while backward still runs.

What must be sent is one all-reduce of all gradients a step, 2(p − 1)/p of their bytes a rank. It is cut into buckets: as
soon as the last gradient of a bucket is there, its all-reduce starts, and backward goes on with the layers below.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

BUCKET_BYTES = 25 * 2**20  # large enough to pay for a message, small enough to start early


class DataParallel(nn.Module):
    """`module` on every rank of `group` (None: all), its parameters and buffers those of the first; call `wait` between
    backward and the optimizer.

    Gradients are views into the buckets, so that nothing is copied. Ranks must use the same parameters in every step.
    """

    def __init__(
        self,
        module: nn.Module,
        bucket_bytes: int = BUCKET_BYTES,
        group: distributed.ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.bytes_reduced = 0
        self._synchronising = True
        with torch.no_grad():
            for tensor in (*module.parameters(), *module.buffers()):
                distributed.broadcast(tensor, group=group, group_src=0)
        # Backward reaches the last layers first.
        trained = [p for p in reversed(list(module.parameters())) if p.requires_grad]
        self.buckets = [Bucket(p, group) for p in _grouped(trained, bucket_bytes)]
        for bucket in self.buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(self._hook(bucket))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own forward; gradients that were set to None are put back into their buckets."""
        for bucket in self.buckets:
            bucket.attach()
        return self.module(*args, **kwargs)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backward in here only adds up: all but the last of several micro-batches."""
        self._synchronising = False
        try:
            yield
        finally:
            self._synchronising = True

    def wait(self) -> None:
        """Return when every gradient is the mean over ranks. Raises RuntimeError where backward left some out."""
        for bucket in self.buckets:
            bucket.finish()

    def _hook(self, bucket: "Bucket") -> Any:
        def ready(_: Tensor) -> None:
            if self._synchronising and bucket.one_more():
                self.bytes_reduced += bucket.flat.nbytes

        return ready


class Bucket:
    """Gradients of some parameters, side by side in one buffer that is reduced as a whole."""

    def __init__(
        self, parameters: list[nn.Parameter], group: distributed.ProcessGroup | None = None
    ) -> None:
        self.parameters, self.group = parameters, group
        first = parameters[0]
        size = sum(p.numel() for p in parameters)
        self.flat = torch.zeros(size, dtype=first.dtype, device=first.device)
        pieces = self.flat.split([p.numel() for p in parameters])
        self.views = [piece.view_as(p) for piece, p in zip(pieces, parameters, strict=True)]
        self._missing = len(parameters)
        self._work: distributed.Work | None = None

    def attach(self) -> None:
        """Let gradients that are not there (zero_grad sets them to None) be the buffer's, zeroed."""
        for parameter, view in zip(self.parameters, self.views, strict=True):
            if parameter.grad is None:
                parameter.grad = view.zero_()

    def one_more(self) -> bool:
        """Count a gradient; with the last one start the all-reduce, and say so."""
        self._missing -= 1
        if self._missing:
            return False
        self.flat /= distributed.get_world_size(self.group)  # gloo has sums only
        self._work = distributed.all_reduce(self.flat, group=self.group, async_op=True)
        return True

    def finish(self) -> None:
        """Wait for the all-reduce, and count anew."""
        if self._work is None:
            raise RuntimeError(
                f"{self._missing} of {len(self.parameters)} gradients of a bucket never came: every parameter must take "
                "part in every step that is not in no_sync."
            )
        self._work.wait()
        self._work, self._missing = None, len(self.parameters)


def _grouped(parameters: list[nn.Parameter], bucket_bytes: int) -> Iterator[list[nn.Parameter]]:
    """Neighbours of one dtype and device, up to `bucket_bytes` together, a larger one alone."""
    group: list[nn.Parameter] = []
    held = 0
    for parameter in parameters:
        alike = not group or (parameter.dtype, parameter.device) == (
            group[0].dtype,
            group[0].device,
        )
        if group and (not alike or held + parameter.nbytes > bucket_bytes):
            yield group
            group, held = [], 0
        group.append(parameter)
        held += parameter.nbytes
    if group:
        yield group
