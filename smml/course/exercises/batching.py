"""Exercises of 01_leveraging_hardware/02_batching."""

import math
from collections.abc import Callable, Mapping

from smml.course.checking import WrongAnswer, attempt, exercise, expect_close

# weight bytes, KV bytes a sequence, FLOPs a sequence, peak FLOP/s, bandwidth B/s
MODELS = ((2.5e8, 2e6, 1.3e8, 1.4e11, 2e10), (1.6e10, 1.3e7, 1.6e10, 8e14, 3e12))
LONG_CONTEXT = (1.6e10, 4e9, 2e10, 8e14, 3e12)


@exercise(
    lambda weights, kv, flops, peak, bandwidth: weights / bandwidth / (flops / peak),
    lambda weights, kv, flops, peak, bandwidth: (
        weights / bandwidth / (flops / peak - kv / bandwidth)
    ),
    lambda weights, kv, flops, peak, bandwidth: (weights + kv) / bandwidth / (flops / peak),
    lambda weights, kv, flops, peak, bandwidth: float("inf"),
)
def knee_batch(answer: Callable[[float, float, float, float, float], float]) -> str:
    """Batch from which a decode step is compute-bound; infinite where the KV cache alone keeps the memory busy."""
    for weights, kv, flops, peak, bandwidth in MODELS:
        expect_close(
            f"knee_batch({weights:g}, {kv:g}, {flops:g}, {peak:g}, {bandwidth:g})",
            attempt(answer, weights, kv, flops, peak, bandwidth),
            weights / bandwidth / (flops / peak - kv / bandwidth),
            "Write both terms as functions of B (the cache is read for every sequence) and set them equal.",
        )
    never = attempt(answer, *LONG_CONTEXT)
    if never != math.inf:
        raise WrongAnswer(
            f"with a long context knee_batch gives {never!r}: reading one sequence's cache takes longer there than "
            "its FLOPs, so that no batch is compute-bound. Return float('inf')."
        )
    return "weights' seconds ÷ what each sequence adds to compute beyond its own cache"


@exercise(
    lambda steps, limit: max(steps),
    lambda steps, limit: max(batch for batch, seconds in steps.items() if seconds <= limit),
    lambda steps, limit: min(steps),
    lambda steps, limit: max(steps, key=lambda batch: batch / steps[batch]),
)
def cheapest_batch(answer: Callable[[Mapping[int, float], float], int]) -> str:
    """The batch with the most tokens per second among those whose step takes at most `limit_s`."""
    steps = {1: 0.010, 2: 0.011, 4: 0.012, 8: 0.016, 16: 0.040, 32: 0.060, 64: 0.100}
    for limit, right in ((0.011, 2), (0.013, 4), (0.050, 8), (0.090, 32), (1.0, 64)):
        expect_close(
            f"cheapest_batch of {steps} within {limit:g} s",
            attempt(answer, steps, limit),
            right,
            "Leave out the batches whose step is too slow, then take the most tokens per second (batch ÷ seconds).",
            tolerance=0.0,
        )
    return "an hour costs the same, so the most tokens per second within the limit are the cheapest"
