"""All-reduce three ways: around a ring, by recursive doubling, and by recursive halving. Each sums x in place.

n bytes over p ranks, messages one after the other and bytes that a rank sends:

    ring        2(p − 1) messages    2n(p − 1)/p bytes    the least bytes; messages grow with p
    doubling    log₂ p               n log₂ p             the fewest messages; whole vectors
    halving     2 log₂ p             2n(p − 1)/p          both, where p is a power of two

Where p is no power of two, doubling and halving first add the ranks beyond the largest power to a partner, and send
it the result at the end. R. Thakur, R. Rabenseifner, W. Gropp, *Optimization of collective communication operations in
MPICH*, 2005.
"""

import torch
from torch import Tensor

from smml.parallel import point_to_point as p2p


def ring(x: Tensor) -> Tensor:
    """Sum over ranks: reduce-scatter around the ring, then all-gather around it."""
    rank, size = p2p.rank_and_size()
    parts = _parts(x, size)
    right, left = (rank + 1) % size, (rank - 1) % size
    room = torch.empty_like(parts[0])
    for step in range(size - 1):  # after it, this rank holds the sum of part rank + 1
        into = room[: parts[(rank - step - 1) % size].numel()]
        p2p.exchange(parts[(rank - step) % size], right, into, left)
        parts[(rank - step - 1) % size] += into
    for step in range(size - 1):
        p2p.exchange(parts[(rank + 1 - step) % size], right, parts[(rank - step) % size], left)
    return x


def doubling(x: Tensor) -> Tensor:
    """Sum over ranks: partners at distance 1, 2, 4 … exchange all that they have."""
    rank, size = p2p.rank_and_size()
    power, flat = _power(size), x.view(-1)
    room = torch.empty_like(flat)
    if _joins(rank, power, flat, room):
        distance = 1
        while distance < power:
            p2p.exchange(flat, rank ^ distance, room, rank ^ distance)
            flat += room
            distance *= 2
    _leave(rank, power, flat)
    return x


def halving(x: Tensor) -> Tensor:
    """Sum over ranks: partners exchange halves of what is left, then the same way back with the sums."""
    rank, size = p2p.rank_and_size()
    power, flat = _power(size), x.view(-1)
    room = torch.empty_like(flat)
    if _joins(rank, power, flat, room):
        spans, mine, distance = [], (0, flat.numel()), power // 2
        while distance:
            middle = (mine[0] + mine[1]) // 2
            halves = ((mine[0], middle), (middle, mine[1]))
            keep, give = halves if not rank & distance else halves[::-1]
            into = room[: keep[1] - keep[0]]
            p2p.exchange(flat[slice(*give)], rank ^ distance, into, rank ^ distance)
            flat[slice(*keep)] += into
            spans.append((distance, keep, give))
            mine, distance = keep, distance // 2
        for distance, keep, give in reversed(spans):
            p2p.exchange(flat[slice(*keep)], rank ^ distance, flat[slice(*give)], rank ^ distance)
    _leave(rank, power, flat)
    return x


ALGORITHMS = {"ring": ring, "doubling": doubling, "halving": halving}


def _parts(x: Tensor, size: int) -> list[Tensor]:
    """x in `size` pieces, the first of them longest; some may be empty."""
    return list(x.view(-1).tensor_split(size))


def _power(size: int) -> int:
    return 1 << (size.bit_length() - 1)


def _joins(rank: int, power: int, flat: Tensor, room: Tensor) -> bool:
    """Whether this rank takes part; one beyond the power gives its vector to its partner below first."""
    size = p2p.rank_and_size()[1]
    if rank >= power:
        p2p.send(flat, rank - power)
        return False
    if rank + power < size:
        p2p.receive(room, rank + power)
        flat += room
    return True


def _leave(rank: int, power: int, flat: Tensor) -> None:
    """Give the sum to the rank that did not take part."""
    size = p2p.rank_and_size()[1]
    if rank >= power:
        p2p.receive(flat, rank - power)
    elif rank + power < size:
        p2p.send(flat, rank + power)
