"""Parameters that lie in one buffer, which the ranks cut into equal parts: what ZeRO gathers, reduces and frees at a time."""

from collections.abc import Mapping
from itertools import accumulate

import torch
from torch import Tensor, distributed, nn

from smml.errors import UserError

Group = distributed.ProcessGroup | None


class Unit:
    """Parameters side by side in `full`; `shard` is this rank's part of it. The end is padded until parts are equal."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        stage: int,
        group: Group,
        device: torch.device | str,
    ) -> None:
        self.stage, self.group = stage, group
        self.rank, self.ranks = distributed.get_rank(group), distributed.get_world_size(group)
        kinds = {(p.dtype, p.device, p.requires_grad) for p in parameters.values()}
        if len(kinds) > 1 or not all(p.requires_grad for p in parameters.values()):
            raise UserError(
                f"{next(iter(parameters))} and its unit: parameters of one dtype on one device, all trained, can lie in "
                "one buffer. Make them alike, or make two units of them."
            )
        self.shapes = {name: p.shape for name, p in parameters.items()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.starts = dict(zip(parameters, accumulate(self.sizes, initial=0), strict=False))
        ((dtype, place, _),) = kinds
        device = device if place.type == "meta" else place
        part = -(-sum(self.sizes) // self.ranks)
        self.full = torch.empty(part * self.ranks, dtype=dtype, device=device)
        self.own = slice(self.rank * part, (self.rank + 1) * part)
        # Its parts may be gathered into the buffer that they are parts of; at stage 3 only they remain.
        self.shard = nn.Parameter(
            torch.zeros_like(self.full[:part]) if stage == 3 else self.full[self.own].zero_()
        )
        self.buffer: Tensor | None = None  # of gradients
        self.missing, self.in_backward, self.gathered = len(parameters), False, False
        self._gathering: distributed.Work | None = None
        self._reducing: distributed.Work | None = None
        self.parameters = {n: _view(piece) for n, piece in self.pieces(self.full).items()}
        for name, parameter in parameters.items():
            if not parameter.is_meta:
                self.load(name, parameter.detach())
        self.free()

    def pieces(self, flat: Tensor) -> dict[str, Tensor]:
        """A buffer of this unit as the tensors that lie in it."""
        cut = flat[: sum(self.sizes)].split(self.sizes)
        return {
            name: piece.view(shape)
            for piece, (name, shape) in zip(cut, self.shapes.items(), strict=True)
        }

    def load(self, name: str, weight: Tensor) -> None:
        """Copy what this rank keeps of it."""
        start = self.starts[name]
        low, high = max(start, self.own.start), min(start + weight.numel(), self.own.stop)
        if low < high:
            mine = slice(low - self.own.start, high - self.own.start)
            self.shard.data[mine] = weight.flatten()[low - start : high - start]

    def gather(self) -> None:
        """Begin to make the parameters whole, unless they are."""
        if not self.gathered:
            self._resize(self.full.nbytes)
            self._gathering = distributed.all_gather_into_tensor(
                self.full, self.shard.detach(), group=self.group, async_op=True
            )
            self.gathered = True

    def ready(self) -> None:
        """Return when they are whole."""
        if self._gathering is not None:
            self._gathering.wait()
            self._gathering = None

    def free(self) -> None:
        """Give the memory of whole parameters back at stage 3; views keep their place in it."""
        self.ready()
        if self.stage == 3:
            self._resize(0)
            self.gathered = False

    def one_more(self) -> bool:
        """Count a gradient; True for the last one."""
        self.missing -= 1
        return self.missing == 0

    def reduce(self) -> None:
        """Put the gradients side by side and begin to add those of all ranks up; each gets its own part of the sum."""
        if self.shard.grad is not None:
            raise RuntimeError("backward came twice before zero_grad: ZeRO reduces once a step.")
        self.buffer = torch.empty_like(self.full)
        gradients = [p.grad.flatten() for p in self.parameters.values()]
        torch.cat(gradients, out=self.buffer[: sum(self.sizes)])
        self.buffer[sum(self.sizes) :] = 0
        for parameter in self.parameters.values():
            parameter.grad = None
        # Stage 1 keeps the buffer, and the sum in it; from stage 2 on the sum is all that stays.
        self.shard.grad = self.buffer[self.own] if self.stage == 1 else torch.empty_like(self.shard)
        self._reducing = distributed.reduce_scatter_tensor(
            self.shard.grad, self.buffer, group=self.group, async_op=True
        )
        self.missing, self.in_backward = len(self.parameters), False

    def finish(self) -> None:
        """Return when they are added up, and the sum has become the mean."""
        if self._reducing is not None:
            self._reducing.wait()
            self._reducing = None
            self.shard.grad /= self.ranks  # gloo has sums only
            if self.stage > 1:
                self.buffer = None

    def _resize(self, nbytes: int) -> None:
        storage = self.full.untyped_storage()
        if storage.nbytes() != nbytes:  # torch would make new memory of the same size
            storage.resize_(nbytes)

    def updated(self) -> None:
        """The shard has changed: forget the gradients, and gather what is held whole."""
        self.buffer = None
        if self.stage < 3:
            self.gathered = False
            self.gather()


def _view(piece: Tensor) -> nn.Parameter:
    """A parameter in the memory of `piece`, without its count of versions: gathering again is no change of value."""
    parameter = nn.Parameter(torch.empty(0, dtype=piece.dtype, device=piece.device))
    parameter.data = piece
    return parameter
