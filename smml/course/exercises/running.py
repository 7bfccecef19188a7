"""Exercises of 00_getting_started/03_running_and_compiling."""

from collections.abc import Callable

from smml.course.checking import WrongAnswer, attempt, exercise, expect_close

GIB = 2**30


@exercise(
    lambda free, weights, token, context: free // (token * context),
    lambda free, weights, token, context: (free - weights) // token,
    lambda free, weights, token, context: (free - weights) / (token * context),
    lambda free, weights, token, context: (free - weights) // (token * context),
)
def largest_batch(answer: Callable[[int, int, int, int], int]) -> str:
    """Most sequences of `context` tokens whose caches fit beside the weights; 0 where not even the weights do."""
    for free, weights, token, context in (
        (24 * GIB, 15 * GIB, 131_072, 8192),
        (80 * GIB, 15 * GIB, 131_072, 131_072),
        (16 * GIB, 15 * GIB + 1, 131_072, 8192),
        (8 * GIB, 15 * GIB, 131_072, 8192),
    ):
        given = attempt(answer, free, weights, token, context)
        right = max(free - weights, 0) // (token * context)
        if given != right:
            raise WrongAnswer(
                f"largest_batch({free}, {weights}, {token}, {context}) is not {given!r}. Whole sequences only, in what "
                "the weights leave; and nothing runs, so 0, where they do not fit at all."
            )
    return "what the weights leave, over the cache of one whole sequence"


@exercise(
    lambda prompt, new: new,
    lambda prompt, new: new * (prompt + new) / (prompt + new),
    lambda prompt, new: (new * prompt + new * (new - 1) / 2) / new,
)
def passes_saved(answer: Callable[[int, int], float]) -> str:
    """How many times more token positions are computed without a KV cache than with one."""
    for prompt, new in ((64, 64), (1, 100), (1000, 8), (10, 1)):
        expect_close(
            f"passes_saved({prompt}, {new})",
            attempt(answer, prompt, new),
            sum(prompt + i for i in range(new)) / (prompt + new - 1),
            "Without: the first token needs `prompt` positions, the next `prompt` + 1, … With: every position once; "
            "the last new token is never fed back.",
        )
    return "every position once instead of once for each token that follows it"
