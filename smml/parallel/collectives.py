"""The collectives by hand, on send and receive alone. Sums where something is added up; every rank must call.

Shapes are those of torch.distributed: `parts` is one tensor a rank. All-reduce has a file of its own (all_reduce.py).
"""

import torch
from torch import Tensor

from smml.parallel import point_to_point as p2p


def broadcast(x: Tensor, root: int = 0) -> Tensor:
    """Every rank's x becomes the root's, down a binomial tree: ⌈log₂ p⌉ steps, each doubles who has it."""
    rank, size = p2p.rank_and_size()
    place, distance = (rank - root) % size, 1
    while distance < size:
        if place < distance and place + distance < size:
            p2p.send(x, (rank + distance) % size)
        elif distance <= place < 2 * distance:
            p2p.receive(x, (rank - distance) % size)
        distance *= 2
    return x


def reduce(x: Tensor, root: int = 0) -> Tensor:
    """The root's x becomes the sum, up the tree of `broadcast`; the others' x is written over with partial sums."""
    rank, size = p2p.rank_and_size()
    place, distance, room = (rank - root) % size, 1, torch.empty_like(x)
    while distance < size:
        if place % (2 * distance) == distance:
            p2p.send(x, (rank - distance) % size)
            break
        if place + distance < size:
            p2p.receive(room, (rank + distance) % size)
            x += room
        distance *= 2
    return x


def all_gather(x: Tensor) -> list[Tensor]:
    """Every rank's x, in order of ranks: p − 1 steps around the ring, each passes on what came last."""
    rank, size = p2p.rank_and_size()
    parts = [torch.empty_like(x) for _ in range(size)]
    parts[rank].copy_(x)
    for step in range(size - 1):
        given, came = (rank - step) % size, (rank - step - 1) % size
        p2p.exchange(parts[given], (rank + 1) % size, parts[came], (rank - 1) % size)
    return parts


def reduce_scatter(parts: list[Tensor]) -> Tensor:
    """The sum over ranks of their `parts[rank]`: p − 1 steps around the ring; `parts` are written over."""
    rank, size = p2p.rank_and_size()
    room = torch.empty_like(parts[0])
    for step in range(size - 1):
        given, came = (rank - step - 1) % size, (rank - step - 2) % size
        p2p.exchange(parts[given], (rank + 1) % size, room, (rank - 1) % size)
        parts[came] += room
    return parts[rank]


def all_to_all(parts: list[Tensor]) -> list[Tensor]:
    """What every rank has for this one: in step s each sends to the rank s to its right, so that no two meet."""
    rank, size = p2p.rank_and_size()
    found = [torch.empty_like(part) for part in parts]
    for step in range(size):
        to, source = (rank + step) % size, (rank - step) % size
        p2p.exchange(parts[to], to, found[source], source)
    return found


def gather(x: Tensor, root: int = 0) -> list[Tensor] | None:
    """Every rank's x, in order of ranks, at the root; None elsewhere. The root receives p − 1 messages."""
    rank, size = p2p.rank_and_size()
    if rank != root:
        p2p.send(x, root)
        return None
    parts = [torch.empty_like(x) for _ in range(size)]
    parts[rank].copy_(x)
    for source in range(size):
        if source != root:
            p2p.receive(parts[source], source)
    return parts


def scatter(parts: list[Tensor] | None, into: Tensor, root: int = 0) -> Tensor:
    """`into` becomes the root's `parts[rank]`. The root sends p − 1 messages."""
    rank, size = p2p.rank_and_size()
    if rank != root:
        p2p.receive(into, root)
        return into
    for to in range(size):
        if to != root:
            p2p.send(parts[to], to)
    return into.copy_(parts[root])
