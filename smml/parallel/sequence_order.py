"""Which tokens of a sequence a rank of context parallel holds, and which query–key pairs that leaves it to compute.

Causal: the token at position t looks at 0…t. Cut into p equal pieces in a row ("contiguous"), the first rank has the
fewest keys to look at and the last the most, and all wait for the last. In "zigzag" order the sequence is cut into 2p
chunks and rank r holds chunks r and 2p − 1 − r, one early and one late, so that all have the same number of pairs (as in
arXiv:2407.21783, section 3.3.2; arXiv:2311.09431 balances by striping tokens instead).
"""

from typing import NamedTuple

from smml.errors import UserError

ORDERS = ("contiguous", "zigzag")


class Seen(NamedTuple):
    """The part of a rank's queries and of another's keys that see each other: all pairs, or the causal half."""

    rows: slice
    columns: slice
    causal: bool


def chunks(order: str, rank: int, ranks: int) -> tuple[int, ...]:
    """Numbers of the chunks that a rank holds. Raises UserError for an order that is not there."""
    if order not in ORDERS:
        raise UserError(f"{order!r} is no order of a sequence: choose one of {', '.join(ORDERS)}.")
    return (rank,) if order == "contiguous" else (rank, 2 * ranks - 1 - rank)


def pieces(order: str, tokens: int, rank: int, ranks: int) -> tuple[slice, ...]:
    """Positions of a sequence of `tokens` that a rank holds, in order.

    Raises UserError where the sequence cannot be cut into so many equal chunks.
    """
    held = chunks(order, rank, ranks)
    number = len(held) * ranks
    if not tokens or tokens % number:
        raise UserError(
            f"{ranks} ranks in {order} order cut a sequence into {number} equal chunks, and tokens = {tokens} is no "
            f"multiple of {number}: choose one that is, or other ranks."
        )
    size = tokens // number
    return tuple(slice(chunk * size, (chunk + 1) * size) for chunk in held)


def seen(order: str, rank: int, source: int, tokens: int) -> Seen | None:
    """What queries of `rank` see of the keys of `source`, each holding `tokens`: None where all of those come later."""
    everything = slice(0, tokens)
    if source == rank:
        return Seen(everything, everything, causal=True)  # chunks lie in order on every rank
    if order == "contiguous":
        return Seen(everything, everything, causal=False) if source < rank else None
    half = tokens // 2
    if source < rank:  # its early chunk is before both of ours, its late one after both
        return Seen(everything, slice(0, half), causal=False)
    return Seen(slice(half, tokens), everything, causal=False)  # only our late chunk is after it


def pairs(order: str, tokens: int, rank: int, ranks: int) -> int:
    """Query–key pairs that a rank computes of a causal sequence of `tokens`: of T(T + 1)/2 of all ranks together."""
    mine = tokens // ranks
    found = 0
    for source in range(ranks):
        if part := seen(order, rank, source, mine):
            rows = part.rows.stop - part.rows.start
            columns = part.columns.stop - part.columns.start
            found += rows * (rows + 1) // 2 if part.causal else rows * columns
    return found
