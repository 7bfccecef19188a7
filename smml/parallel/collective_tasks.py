"""Tasks for workers: every collective by hand beside torch.distributed's, its result, its traffic and its time."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from smml.parallel import all_reduce, collectives, point_to_point as p2p
from smml.parallel.links import COLLECTIVES

Result = list[Tensor] | Tensor | None


def prove(
    elements: int, root: int = 0, names: Sequence[str] = COLLECTIVES
) -> dict[str, dict[str, float]]:
    """For each collective the largest difference to torch.distributed's result, and what this rank sent.

    `elements` whole numbers a part, in float64, whose sums are exact: a difference of 0 is asked for. On NCCL the peer
    sums in another order, which changes nothing then.
    """
    found = {}
    for seed, name in enumerate(names):
        p2p.reset()
        ours = by_hand(name, data(name, elements, seed), root)
        sent = {"messages": p2p.traffic.messages, "bytes": p2p.traffic.bytes}
        theirs = by_torch(name, data(name, elements, seed), root)
        found[name] = {"difference": _difference(name, ours, theirs, root)} | sent
    return found


def seconds(
    names: Sequence[str],
    payloads: Sequence[int],
    by: str = "hand",
    samples: int = 5,
    least_s: float = 0.02,
) -> list[list[list[float]]]:
    """Seconds of one call of every collective [name][payload][sample]: after a barrier, the slowest rank's, the mean of
    enough calls. Rounds go over all of them in turns, so that a machine that slows down slows all alike.

    A payload is bytes as nccl-tests counts them (see links.py), `by` is hand or torch.
    """
    call = by_hand if by == "hand" else by_torch
    made = {(n, p): _operand(n, p) for n in names for p in payloads}
    times = {
        key: max(1, min(1000, round(least_s / _timed(lambda key=key, x=x: call(key[0], x, 0), 1))))
        for key, x in made.items()
    }
    found: dict[tuple[str, int], list[float]] = {key: [] for key in made}
    for _ in range(samples):
        for key, x in made.items():
            found[key].append(_timed(lambda key=key, x=x: call(key[0], x, 0), times[key]))
    return [[found[name, payload] for payload in payloads] for name in names]


def _operand(name: str, payload: int) -> Any:
    size = distributed.get_world_size()
    whole = name in ("broadcast", "reduce") or name.startswith("all-reduce")
    x = data(name, max(1, payload // (4 if whole else 4 * size)), 0, torch.float32)
    for tensor in x if isinstance(x, list) else [x]:
        tensor.zero_()  # sums of sums stay small
    return x


def data(name: str, elements: int, seed: int, dtype: torch.dtype = torch.float64) -> Any:
    """This rank's operand: a vector, or a list of one for each rank; small whole numbers."""
    rank, size = p2p.rank_and_size()
    generator = torch.Generator().manual_seed(1000 * seed + rank)
    made = torch.randint(-8, 9, (size, elements), generator=generator).to(device(), dtype)
    if name in ("reduce-scatter", "all-to-all", "scatter"):
        return list(made.unbind())
    return made[0].clone()


def device() -> str:
    """The torch device of this rank's tensors."""
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


def by_hand(name: str, x: Any, root: int) -> Result:
    """Run the collective of this package."""
    rank = distributed.get_rank()
    if name.startswith("all-reduce/"):
        return all_reduce.ALGORITHMS[name.split("/")[1]](x)
    calls: dict[str, Callable[[], Result]] = {
        "broadcast": lambda: collectives.broadcast(x, root),
        "reduce": lambda: collectives.reduce(x, root),
        "all-gather": lambda: collectives.all_gather(x),
        "reduce-scatter": lambda: collectives.reduce_scatter(x),
        "all-to-all": lambda: collectives.all_to_all(x),
        "gather": lambda: collectives.gather(x, root),
        "scatter": lambda: collectives.scatter(
            x if rank == root else None, torch.empty_like(x[0]), root
        ),
    }
    return calls[name]()


def by_torch(name: str, x: Any, root: int) -> Result:
    """Run torch.distributed's."""
    rank, size = p2p.rank_and_size()

    def room() -> list[Tensor]:
        return [torch.empty_like(x if isinstance(x, Tensor) else x[0]) for _ in range(size)]

    if name == "broadcast":
        distributed.broadcast(x, root)
    elif name == "reduce":
        distributed.reduce(x, root)
    elif name.startswith("all-reduce"):
        distributed.all_reduce(x)
    elif name == "all-gather":
        distributed.all_gather(found := room(), x)
        return found
    elif name == "reduce-scatter":
        distributed.reduce_scatter(into := torch.empty_like(x[0]), x)
        return into
    elif name == "all-to-all":
        distributed.all_to_all(found := room(), x)
        return found
    elif name == "gather":
        found = room() if rank == root else None
        distributed.gather(x, found, root)
        return found
    elif name == "scatter":
        into = torch.empty_like(x[0])
        distributed.scatter(into, x if rank == root else None, root)
        return into
    return x


def _difference(name: str, ours: Result, theirs: Result, root: int) -> float:
    if name in ("reduce", "gather") and distributed.get_rank() != root:
        return 0.0  # only the root has a result
    pairs = zip(*(r if isinstance(r, list) else [r] for r in (ours, theirs)), strict=True)
    return max(float((a - b).abs().max()) if a.numel() else 0.0 for a, b in pairs)


def _timed(call: Callable[[], object], times: int) -> float:
    distributed.barrier()
    start = time.perf_counter()
    for _ in range(times):
        call()
    if device() == "cuda":
        torch.cuda.synchronize()
    mine = torch.tensor((time.perf_counter() - start) / times, device=device())
    distributed.all_reduce(mine, distributed.ReduceOp.MAX)
    return mine.item()
