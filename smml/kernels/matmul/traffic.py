"""How many bytes the rungs ask for, and which tiles a wave of programs shares; pure.

A product must move each operand once (`roofline.gemm`). Tile by tile, every program asks for the rows of A and the
columns of B that its tile of C needs, whoever else has asked for them: L2 or memory delivers them again.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from smml.errors import UserError
from smml.roofline import Work, gemm

Tile = tuple[int, int]


def asked(m: int, n: int, k: int, bytes_per_element: int, tile: Tile) -> Work:
    """What the programs ask for together, with a tile [rows, columns] of C each; (1, 1) is the naive rung.

    A is read once for each column of tiles, B once for each row of tiles; nothing outside the matrices is.
    """
    least = gemm(m, n, k, bytes_per_element)
    rows, columns = tiles(m, n, tile)
    read = (m * k * columns + k * n * rows) * bytes_per_element
    return Work(least.flops, read, least.bytes_written, least.bytes_allocated)


def tiles(m: int, n: int, tile: Tile) -> Tile:
    """Rows and columns of tiles that cover C [m, n]; UserError for a tile without elements."""
    if min(tile) < 1:
        raise UserError(f"tile={tile} covers nothing: give rows and columns of at least 1.")
    return -(-m // tile[0]), -(-n // tile[1])


def row_by_row(tiles_m: int, tiles_n: int) -> Iterator[Tile]:
    """Tiles of C as the second rung starts them."""
    return ((row, column) for row in range(tiles_m) for column in range(tiles_n))


def grouped(tiles_m: int, tiles_n: int, group: int) -> Iterator[Tile]:
    """Tiles of C in groups of `group` rows, down each column of a group: `l2_ordered.tile_at` in Python."""
    for first in range(0, tiles_m, group):
        for column in range(tiles_n):
            for row in range(first, min(first + group, tiles_m)):
                yield row, column


def waves(order: Iterable[Tile], programs: int) -> Iterator[list[Tile]]:
    """The tiles that run at the same time, `programs` of them, wave after wave."""
    rest = iter(order)
    while wave := list(islice(rest, programs)):
        yield wave


def memory_bytes(
    order: Iterable[Tile], programs: int, k: int, tile: Tile, bytes_per_element: int
) -> int:
    """Bytes of A and B that memory delivers when a wave's programs share them in L2 and waves share nothing.

    A bound from above on a GPU, whose programs do not all end together, as long as L2 holds what a wave shares.
    """  # fmt: skip
    total = 0
    for wave in waves(order, programs):
        rows, columns = len({row for row, _ in wave}), len({column for _, column in wave})
        total += (rows * tile[0] + columns * tile[1]) * k * bytes_per_element
    return total
