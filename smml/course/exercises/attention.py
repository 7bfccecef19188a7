"""Exercises of 01_leveraging_hardware/06_attention."""

from collections.abc import Callable
from typing import Any

from smml.course.checking import WrongAnswer, attempt, exercise, expect_close


def _average(out_a: Any, lse_a: Any, out_b: Any, lse_b: Any) -> Any:
    return (out_a + out_b) / 2, (lse_a + lse_b) / 2


def _without_rescaling(out_a: Any, lse_a: Any, out_b: Any, lse_b: Any) -> Any:
    import torch

    return out_a + out_b, torch.logaddexp(lse_a, lse_b)


def _overflowing(out_a: Any, lse_a: Any, out_b: Any, lse_b: Any) -> Any:
    a, b = lse_a.exp()[..., None], lse_b.exp()[..., None]
    return (a * out_a + b * out_b) / (a + b), (lse_a.exp() + lse_b.exp()).log()


@exercise(_average, _without_rescaling, _overflowing)
def merge(answer: Callable[[Any, Any, Any, Any], Any]) -> str:
    """Attention over two parts of the keys as one: weights are shares of exp(log-sum-exp), safe for large scores."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, 400.0):
        scores = torch.randn(3, 5, 40, generator=generator) * scale
        values = torch.randn(3, 40, 8, generator=generator)
        parts = [(scores[..., cut], values[:, cut]) for cut in (slice(0, 15), slice(15, 40))]
        given = [x for s, v in parts for x in (s.softmax(-1) @ v, s.logsumexp(-1))]
        found = attempt(answer, *given)
        if not isinstance(found, tuple) or len(found) != 2:
            raise WrongAnswer("return two things: the merged result and its log-sum-exp.")
        right = (scores.softmax(-1) @ values, scores.logsumexp(-1))
        for name, got, want in zip(("result", "log-sum-exp"), found, right, strict=True):
            if not torch.allclose(got, want, rtol=1e-4, atol=1e-4):
                raise WrongAnswer(
                    f"the merged {name} is not that of all keys at once (scores of about {scale:g}). Each part counts "
                    "with the share exp(lse of the part − lse of both); exp of a large number alone overflows."
                )
    return "partial results merge exactly, so the keys may be split among as many programs as there are"


@exercise(
    lambda tokens, m, n: (tokens // m) * (tokens // n),
    lambda tokens, m, n: (tokens // m) * (tokens // n) / 2,
    lambda tokens, m, n: sum(i * m // n for i in range(tokens // m)),
)
def tiles_visited(answer: Callable[[int, int, int], float]) -> str:
    """Tiles of m queries × n keys of a causal product that hold at least one visible pair."""
    for tokens, m, n in ((1024, 128, 128), (1024, 128, 64), (512, 64, 128), (128, 128, 128)):
        expect_close(
            f"tiles_visited({tokens}, {m}, {n})",
            attempt(answer, tokens, m, n),
            sum(-(-(first + m) // n) for first in range(0, tokens, m)),
            "The block of queries that starts at `first` sees keys 0 … first + m − 1: how many blocks of n is that?",
            tolerance=1e-9,
        )
    return (
        "a little more than half: the diagonal's tiles are half empty, and smaller ones waste less"
    )
