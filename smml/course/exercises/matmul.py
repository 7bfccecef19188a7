"""Exercises of 01_leveraging_hardware/04_matmul_in_triton."""

from collections.abc import Callable, Iterable

from smml.course.checking import WrongAnswer, attempt, exercise, expect_close
from smml.kernels.matmul.traffic import grouped, memory_bytes, row_by_row

TILES, PROGRAMS = 32, 64  # of the exercise's C: 32 × 32 tiles, of which 64 run at a time


@exercise(
    lambda rows, columns, width: 2 * rows * columns / (rows + columns),
    lambda rows, columns, width: rows * columns / (rows + columns) / width,
    lambda rows, columns, width: 2 * rows * columns / width,
)
def tile_intensity(answer: Callable[[int, int, int], float]) -> str:
    """FLOPs a tile of C does for each byte of A and B that it asks for, of any K."""
    for rows, columns, width in ((1, 1, 4), (128, 128, 2), (128, 256, 2), (64, 256, 1)):
        expect_close(
            f"tile_intensity({rows}, {columns}, {width})",
            attempt(answer, rows, columns, width),
            2 * rows * columns / (rows + columns) / width,
            "For one step along K: 2 FLOPs an element of the tile, and a column of A and a row of B to read.",
        )
    return "2 · rows · columns over (rows + columns) elements"


@exercise(
    lambda rows, columns: list(row_by_row(rows, columns)),
    lambda rows, columns: [(r, c) for c in range(columns) for r in range(rows)],
    lambda rows, columns: list(grouped(rows, columns, 2)),
    lambda rows, columns: list(grouped(rows, columns, 8))[:-1],
    lambda rows, columns: [(0, 0)] * (rows * columns),
)
def order(answer: Callable[[int, int], Iterable[tuple[int, int]]]) -> str:
    """An order of tiles whose waves share rows of A and columns of B as well as can be."""
    given = attempt(answer, TILES, TILES)
    try:
        tiles = [(int(row), int(column)) for row, column in given]
    except (TypeError, ValueError):
        raise WrongAnswer(
            "order(…) should return (row, column) pairs, one for each tile."
        ) from None
    if sorted(tiles) != list(row_by_row(TILES, TILES)):
        raise WrongAnswer(
            f"of {TILES} × {TILES} tiles every one must be visited, and only once: {len(tiles)} pairs were returned, "
            f"{len(set(tiles))} of them different."
        )
    # With a tile of 1 × 1 and K = 1, bytes are tiles loaded. A wave of 64 cannot share more than as a square of 8.
    least = TILES * TILES // PROGRAMS * (8 + 8)
    loaded = memory_bytes(tiles, PROGRAMS, 1, (1, 1), 1)
    if loaded > least:
        raise WrongAnswer(
            f"its waves of {PROGRAMS} load {loaded} rows and columns of tiles; {least} are possible: let the {PROGRAMS} "
            "tiles of a wave be a square."
        )
    return f"{loaded} rows and columns of tiles loaded, the least possible"
