"""Strategies that are wrong, one mistake each: what a proof must find."""

from smml.parallel import strategies
from smml.parallel.data_parallel_strategy import DataParallelStrategy


class Summed(DataParallelStrategy):
    """Gradients are the sum over ranks, not the mean."""

    def backward(self, data):
        share = super().backward(data)
        for parameter in self.parameters():
            parameter.grad *= self.size
        return share


class LossOfOneRank(DataParallelStrategy):
    """Reports its own loss as if it were the batch's."""

    def backward(self, data):
        return super().backward(data) * 1.01


class Unsent(DataParallelStrategy):
    """Every rank goes its own way."""

    def backward(self, data):
        with self.module.no_sync():
            mine = data.chunk(self.size)[self.rank]
            loss = self.module(mine[:, :-1], mine[:, 1:])
            loss.backward()
        return loss.detach() / self.size


class SentTwice(DataParallelStrategy):
    """The mean once more, which changes nothing but the bill."""

    def backward(self, data):
        from torch import distributed

        share = super().backward(data)
        distributed.all_reduce(self.parameters()[0].grad)
        self.parameters()[0].grad /= self.size
        return share


class ForgetsToUpdate(DataParallelStrategy):
    """Steps the optimizer on all but the last parameter."""

    def update(self):
        self.parameters()[-1].grad.zero_()
        super().update()


class HoldsMore(DataParallelStrategy):
    """Claims to hold half of the parameters."""

    @classmethod
    def holds(cls, config, rank, ranks, **options):
        held = super().holds(config, rank, ranks)
        return held | {"parameters": held["parameters"] // 2}


BROKEN = {
    kind.__name__: kind
    for kind in (Summed, LossOfOneRank, Unsent, SentTwice, ForgetsToUpdate, HoldsMore)
}


def register() -> None:
    for name in BROKEN:
        strategies.STRATEGIES[name] = f"{__name__}:{name}"


def problems(strategy: str) -> list[str]:
    from smml.parallel import strategy_tasks

    register()
    return strategy_tasks.prove(strategy)["problems"]


def seconds(strategy: str) -> dict[str, list[float]]:
    from smml.parallel import strategy_tasks

    register()
    return strategy_tasks.seconds({"data": {}, strategy: {}}, {}, batch=2, tokens=8, samples=1)


def wire() -> dict[str, dict[str, int]]:
    """What a rank's collectives of 3 float32 (a part) count as."""
    import torch
    from torch import distributed
    from torch.distributed import _functional_collectives as functional

    from smml.parallel.wire import Wire

    size, rank = distributed.get_world_size(), distributed.get_rank()
    part, whole = torch.ones(3), torch.ones(3 * size)
    parts = list(torch.ones(size, 3))
    calls = {
        "all-reduce": lambda: distributed.all_reduce(part),
        "broadcast": lambda: distributed.broadcast(part, 0),
        "reduce": lambda: distributed.reduce(part, 0),
        "all-gather": lambda: distributed.all_gather_into_tensor(whole, part),
        "all-gather, parts": lambda: distributed.all_gather(parts, part),
        "reduce-scatter": lambda: distributed.reduce_scatter_tensor(part, whole),
        "all-to-all": lambda: distributed.all_to_all_single(whole.clone(), whole),
        "all-to-all, parts": lambda: distributed.all_to_all([torch.ones(3) for _ in parts], parts),
        "functional all-reduce": lambda: functional.all_reduce(part, "sum", list(range(size))),
        "functional all-gather": lambda: functional.all_gather_tensor(
            part, 0, list(range(size))
        ).sum(),
        "send": lambda: distributed.send(part, 1) if rank == 0 else distributed.recv(part, 0),
        "barrier": lambda: distributed.barrier(),
    }
    found = {}
    for name, call in calls.items():
        if size > 2 and name == "send":
            continue
        with Wire() as seen:
            call()
        found[name] = dict(seen.bytes)
    return found


def unknown_collective() -> str:
    import torch
    from torch import distributed

    from smml.parallel.wire import Wire

    rank, size = distributed.get_rank(), distributed.get_world_size()
    rooms = [torch.zeros(2) for _ in range(size)] if rank == 0 else None
    try:
        with Wire():
            distributed.gather(torch.ones(2), rooms)
    except KeyError as error:
        return str(error)
    return "counted as nothing"
