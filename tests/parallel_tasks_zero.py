"""Tasks for the workers of tests/test_parallel_zero.py: ZeRO over a part of the ranks, and ZeRO with a piece left out."""

import weakref
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import distributed, nn

from smml.llama.model import Llama
from smml.parallel import proof, strategy_tasks
from smml.parallel.strategy import adamw
from smml.parallel.tensor_parallel import TensorParallelLlama
from smml.parallel.zero import ZeRO
from smml.parallel.zero_unit import Unit

SMALL = strategy_tasks.config(strategy_tasks.PROOF | {"layers": 2})


def in_groups(stage: int, **model: Any) -> dict[str, float]:
    """Two groups of two ranks with data of their own: each is its own unsharded model after two steps."""
    groups = [distributed.new_group([0, 1]), distributed.new_group([2, 3])]
    which, place = divmod(distributed.get_rank(), 2)
    module = Llama(SMALL, seed=7, **model)
    zero = ZeRO(module, module.layers, stage, groups[which])
    one = Llama(SMALL, seed=7)
    ours, its = adamw(zero.shards()), adamw(list(one.parameters()))
    for step in range(2):
        data = proof.batch_of(SMALL, 4, 8, seed=10 * which + step)
        mine = data[2 * place : 2 * place + 2]
        zero(mine[:, :-1], mine[:, 1:]).backward()
        zero.wait()
        one(data[:, :-1], data[:, 1:]).backward()
        found = zero.whole(gradients=True)
        gradient = max(_off(found[name], p.grad) for name, p in one.named_parameters())
        for optimizer in (ours, its):
            optimizer.step()
            optimizer.zero_grad()
        zero.updated()
    found = zero.whole()
    parameter = max(_off(found[name], p.detach()) for name, p in one.named_parameters())
    return {"gradient": gradient, "parameter": parameter}


def of_tensor_parallel(stage: int) -> float:
    """Ranks 0, 1 and 2, 3 share a model by tensor parallel, those two models are one of ZeRO: off the first by itself."""
    groups = {"tensor": [[0, 1], [2, 3]], "data": [[0, 2], [1, 3]]}
    made = {axis: [distributed.new_group(ranks) for ranks in of] for axis, of in groups.items()}
    replica, place = divmod(distributed.get_rank(), 2)
    tensor, data = made["tensor"][replica], made["data"][place]
    module, one = (TensorParallelLlama(SMALL, seed=5, group=tensor) for _ in range(2))
    zero = ZeRO(module, module.layers, stage, data)
    batch = proof.batch_of(SMALL, 4, 8)
    mine = batch[2 * replica : 2 * replica + 2]
    zero(mine[:, :-1], mine[:, 1:]).backward()
    zero.wait()
    one(batch[:, :-1], batch[:, 1:]).backward()
    found = zero.whole(gradients=True)
    return max(_off(found[name], p.grad) for name, p in one.named_parameters())


def tied_elsewhere() -> bool:
    """One parameter in two submodules is one in the buffer, and stands in both places."""
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    module[1].weight = module[0].weight
    old = weakref.ref(module[0].weight)
    zero = ZeRO(module, stage=3)
    assert old() is None, "its memory is given back"
    x = torch.arange(8.0).view(2, 4)
    zero(x).sum().backward()
    zero.wait()
    return module[0].weight is module[1].weight and list(zero.whole()) == ["0.weight"]


def without_gradients() -> dict[str, Any]:
    """A forward under no_grad: logits equal to the unsharded model's, and what is gathered afterwards."""
    module = Llama(SMALL, seed=3)
    zero = ZeRO(module, module.layers, 3)
    tokens = proof.batch_of(SMALL, 2, 8)
    with torch.no_grad():
        off = _off(zero(tokens), Llama(SMALL, seed=3)(tokens))
    return {"off": off, "gathered": [u.full.untyped_storage().nbytes() for u in zero._units()]}


def left_out() -> None:
    """Backward that does not reach a unit."""
    module = nn.ModuleDict({"used": nn.Linear(4, 4), "idle": nn.Linear(4, 4)})
    zero = ZeRO(module, [module["used"], module["idle"]])
    module.forward = lambda x: module["used"](x).sum()
    zero(torch.ones(2, 4)).backward()
    zero.wait()


def twice() -> None:
    """Two backwards in one step."""
    zero = ZeRO(nn.Linear(4, 4))
    for _ in range(2):
        zero(torch.ones(2, 4)).sum().backward()


def unlike(kind: str) -> None:
    """A unit that cannot lie in one buffer, or a stage that there is not."""
    module = nn.Linear(4, 4)
    if kind == "dtype":
        module.bias = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    if kind == "frozen":
        module.requires_grad_(False)
    ZeRO(module, stage=4 if kind == "stage" else 3)


def broken(how: str, strategy: str) -> list[str]:
    """What the proof says of a strategy with one piece left out."""
    with _broken(how):
        return strategy_tasks.prove(strategy, batch=12, tokens=8)["problems"]


@contextmanager
def _broken(how: str):
    """`unreduced`: the first layer keeps its own gradients; `stale`: nobody gathers after the update; `kept`: what was
    gathered stays; `again`: a layer is gathered twice.
    """
    reduce, gather = Unit.reduce, Unit.gather

    def reduce_own(unit: Unit) -> None:
        if "layers.0.attention.qkv.weight" not in unit.parameters:
            reduce(unit)
            return
        flat = torch.cat([p.grad.flatten() for p in unit.parameters.values()])
        with mock.patch.object(distributed, "reduce_scatter_tensor", _no_reduction):
            reduce(unit)
        unit.shard.grad.copy_(flat[unit.own])

    def gather_twice(unit: Unit) -> None:
        gather(unit)
        unit.ready()
        unit.gathered = False
        gather(unit)

    patches = {
        "unreduced": ("reduce", reduce_own),
        "stale": ("updated", lambda unit: setattr(unit, "buffer", None)),
        "kept": ("free", Unit.ready),
        "again": ("gather", gather_twice),
    }
    with mock.patch.object(Unit, *patches[how]):
        yield


def _no_reduction(*_: Any, **__: Any) -> Any:
    return mock.Mock()


def _off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()
