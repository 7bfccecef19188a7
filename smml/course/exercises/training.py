"""Exercises of 00_getting_started/04_training_a_model."""

from collections.abc import Callable

from smml.course.checking import attempt, exercise, expect_close


@exercise(
    lambda parameters, per_sequence, memory: memory / per_sequence,
    lambda parameters, per_sequence, memory: (memory - 4 * parameters) // per_sequence,
    lambda parameters, per_sequence, memory: (memory - 12 * parameters) // per_sequence,
)
def largest_batch(answer: Callable[[float, float, float], float]) -> str:
    """Most sequences a step: what 16 bytes a parameter leave of the memory, over the activations of one sequence."""
    for parameters, per_sequence, memory in (
        (1e9, 1e9, 24e9),
        (1.2e9, 3e9, 80e9),
        (8e9, 5e9, 141e9),
    ):
        expect_close(
            f"largest_batch({parameters:g}, {per_sequence:g}, {memory:g})",
            attempt(answer, parameters, per_sequence, memory),
            (memory - 16 * parameters) // per_sequence,
            "Weights, gradients and two moments, 4 bytes each, are there whatever the batch; what is left goes to "
            "whole sequences.",
        )
    return "16 bytes a parameter first, the rest over the activations of a sequence, rounded down"


@exercise(
    lambda parameters, tokens, devices, peak, utilization: (
        6 * parameters * tokens / (devices * peak) / 86_400
    ),
    lambda parameters, tokens, devices, peak, utilization: (
        2 * parameters * tokens / (devices * peak * utilization) / 86_400
    ),
    lambda parameters, tokens, devices, peak, utilization: (
        6 * parameters * tokens / (devices * peak * utilization) / 3600
    ),
)
def training_days(answer: Callable[[float, float, int, float, float], float]) -> str:
    """Days of a run by the 6N rule, on several devices at a given MFU."""
    for parameters, tokens, devices, peak, utilization in (
        (1e9, 2e10, 1, 1e15, 0.4),
        (8e9, 1e12, 64, 1e15, 0.5),
        (7e10, 1.4e12, 1024, 3e14, 0.38),
    ):
        expect_close(
            f"training_days({parameters:g}, {tokens:g}, {devices}, {peak:g}, {utilization:g})",
            attempt(answer, parameters, tokens, devices, peak, utilization),
            6 * parameters * tokens / (devices * peak * utilization) / 86_400,
            "6N FLOPs a token, all tokens; the devices deliver only their utilization of the peak; a day has 86,400 s.",
        )
    return "6 · N · tokens over what the devices really deliver"
