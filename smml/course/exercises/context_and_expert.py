"""Exercises of 02_multi_accelerator/07_context_and_expert_parallel."""

from collections.abc import Callable, Sequence

from smml.course.checking import attempt, exercise, expect_close


@exercise(
    lambda tokens, ranks: tokens * (tokens + 1) / 2 / ranks,
    lambda tokens, ranks: tokens // ranks * (tokens // ranks + 1) / 2,
    lambda tokens, ranks: tokens // ranks * tokens,
)
def last_rank_pairs(answer: Callable[[int, int], float]) -> str:
    """Query–key pairs of the last rank where a causal sequence is cut into equal pieces in a row."""
    for tokens, ranks in ((16, 4), (4096, 8), (6, 1), (1000, 2)):
        mine = tokens // ranks
        expect_close(
            f"last_rank_pairs({tokens}, {ranks})",
            attempt(answer, tokens, ranks),
            mine * (tokens - mine) + mine * (mine + 1) / 2,
            "Its queries look at every key of the ranks before, and among themselves at those up to their own place.",
            tolerance=1e-9,
        )
    return "all keys of the ranks before, and the causal half of its own"


@exercise(
    lambda loads, ranks: max(loads) / (sum(loads) / len(loads)),
    lambda loads, ranks: sum(loads[: len(loads) // ranks]) / (sum(loads) / ranks),
    lambda loads, ranks: max(_by_rank(loads, ranks)) / sum(loads),
)
def waiting(answer: Callable[[Sequence[int], int], float]) -> str:
    """Times the mean that the fullest rank computes; `loads` are tokens of each expert, neighbours on a rank."""
    for loads, ranks in (([5, 3, 1, 7], 2), ([9, 0, 0, 9, 0, 0, 8, 8], 4), ([4] * 8, 8)):
        expect_close(
            f"waiting({list(loads)}, {ranks})",
            attempt(answer, loads, ranks),
            max(_by_rank(loads, ranks)) / (sum(loads) / ranks),
            "Add up the experts of each rank first: a full expert beside an empty one makes no full rank.",
            tolerance=1e-9,
        )
    return "the fullest rank's tokens over an equal part"


def _by_rank(loads: Sequence[int], ranks: int) -> list[int]:
    held = len(loads) // ranks
    return [sum(loads[rank * held : (rank + 1) * held]) for rank in range(ranks)]
