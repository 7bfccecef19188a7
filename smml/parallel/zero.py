"""ZeRO: data parallel in which ranks share what each of them would hold whole (Rajbhandari et al., arXiv:1910.02054).

Each rank updates its own part of the parameters. So it needs the optimizer's moments of that part only (stage 1), the
reduced gradients of that part only (stage 2), and, where a layer's parameters are gathered just before it computes and
freed right after, it keeps its part of the parameters only (stage 3).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.utils._pytree import tree_leaves

from smml.errors import UserError
from smml.parallel.zero_unit import Group, Unit


class ZeRO(nn.Module):
    """`module`, trained by the ranks of `group`, each on its part of the batch: gradients are the mean over ranks.

    `units` are submodules that compute one after the other: what is gathered, reduced and freed at a time. The other
    parameters are one more unit, the root. Those on the meta device are made on `device`, zero until `load` fills them.
    A step: forward, backward, `wait`, an optimizer over `shards()`, zero_grad, `updated`.
    Raises UserError for an unknown stage, parameters that are not trained, and a unit of several dtypes or devices.
    """

    def __init__(
        self,
        module: nn.Module,
        units: Sequence[nn.Module] = (),
        stage: int = 3,
        group: Group = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        if stage not in (1, 2, 3):
            raise UserError(f"ZeRO has stages 1, 2 and 3, not {stage!r}: choose one.")
        self.module, self.stage = module, stage
        own = {id(p): at for at, unit in enumerate(units) for p in unit.parameters()}
        parts: list[dict[str, nn.Parameter]] = [{} for _ in range(len(units) + 1)]
        for name, parameter in module.named_parameters():
            parts[own.get(id(parameter), -1)][name] = parameter
        made = [Unit(part, stage, group, device) if part else None for part in parts]
        *self.layers, self.root = made
        pairs = (
            (p, unit.parameters[n])
            for unit, of in zip(made, parts, strict=True)
            for n, p in of.items()
        )
        self._replace(dict(pairs))
        self._travelling: Unit | None = None
        for unit in self._units():
            for parameter in unit.parameters.values():
                parameter.register_post_accumulate_grad_hook(partial(self._gradient, unit))
        for at, layer in enumerate(units):
            layer.register_forward_pre_hook(partial(self._before_forward, at))
            layer.register_forward_hook(partial(self._after_forward, at))

    def load(self, name: str, weight: Tensor) -> None:
        """Give the parameter of that name its value; this rank keeps its part, and forward gathers the others'."""
        next(unit for unit in self._units() if name in unit.parameters).load(name, weight)

    def shards(self) -> list[nn.Parameter]:
        """This rank's part of every unit, one vector each: what its optimizer updates."""
        return [unit.shard for unit in self._units()]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own forward, the root's parameters gathered until its gradients have been reduced."""
        if self.root:
            self.root.gather()
        self._prefetch(0)
        if self.root:
            self.root.ready()
        output = self.module(*args, **kwargs)
        if not _on_gradient(output, lambda _: self._prefetch(len(self.layers) - 1)) and self.root:
            self.root.free()  # no backward will
        return output

    def wait(self) -> None:
        """Return when every shard has its gradient. Raises RuntimeError where backward left some out."""
        for unit in self._units():
            unit.finish()
            if unit.shard.grad is None or unit.missing != len(unit.parameters):
                raise RuntimeError(
                    f"{unit.missing} of {len(unit.parameters)} gradients of a unit never came: every parameter must "
                    "take part in every step."
                )
        self._travelling = None

    def updated(self) -> None:
        """After the optimizer: what is held whole begins to be gathered anew; forward waits for what it needs."""
        for unit in self._units():
            unit.updated()

    def whole(self, gradients: bool = False) -> dict[str, Tensor]:
        """Every parameter, or gradient, by its name and whole, as a copy; all ranks must call."""
        found: dict[str, Tensor] = {}
        for unit in self._units():
            part = unit.shard.grad if gradients else unit.shard.detach()
            full = torch.empty_like(unit.full)
            distributed.all_gather_into_tensor(full, part, group=unit.group)
            found |= unit.pieces(full)
        return found

    def held(self) -> dict[str, int]:
        """Bytes of parameters and of gradients on this rank, padding included."""
        units = list(self._units())
        return {
            "parameters": _nbytes(t for u in units for t in (u.full, u.shard)),
            "gradients": _nbytes(
                t for u in units for t in (u.buffer, u.shard.grad) if t is not None
            ),
        }

    def _units(self) -> Iterator[Unit]:
        yield from (unit for unit in (*self.layers, self.root) if unit is not None)

    def _replace(self, fresh: Mapping[nn.Parameter, nn.Parameter]) -> None:
        """Put the new parameters where the old ones stood, also where one stands in several places."""
        for submodule in self.module.modules():
            for name, parameter in submodule.named_parameters(recurse=False):
                setattr(submodule, name, fresh[parameter])

    def _prefetch(self, at: int) -> None:
        """Begin to gather a layer, if there is one at that place."""
        if 0 <= at < len(self.layers) and (unit := self.layers[at]) is not None:
            unit.gather()

    def _enter(self, at: int, then: int) -> None:
        """Return when the layer is there; the one that computes next travels while it computes."""
        self._prefetch(at)
        self._prefetch(then)
        if (unit := self.layers[at]) is not None:
            unit.ready()

    def _before_forward(self, at: int, *_: Any) -> None:
        unit = self.layers[at]
        if unit is not None and not unit.in_backward:
            self._enter(at, at + 1)

    def _after_forward(self, at: int, _: nn.Module, inputs: Any, output: Any) -> None:
        unit = self.layers[at]
        if self.stage < 3 or unit is None or unit.in_backward:
            return  # in backward it is activation checkpointing that computes again
        unit.free()
        _on_gradient(output, partial(self._before_backward, at))

    def _before_backward(self, at: int, _: Tensor) -> None:
        self.layers[at].in_backward = True
        self._enter(at, at - 1)

    def _gradient(self, unit: Unit, _: Tensor) -> None:
        """Count; the last gradient of a unit sends them all, while backward goes on with the unit below."""
        if unit.one_more():
            unit.free()
            if self._travelling is not None:
                self._travelling.finish()  # before the next ones take memory
            unit.reduce()
            self._travelling = unit


def _on_gradient(output: Any, call: Any) -> bool:
    """Have `call` called when backward reaches a tensor of `output`; False where it cannot."""
    tensors = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad]
    for tensor in tensors:
        tensor.register_hook(call)
    return bool(tensors)


def _nbytes(tensors: Iterator[Tensor]) -> int:
    """Bytes of the memory that tensors lie in, each counted once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
