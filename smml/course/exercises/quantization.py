"""Exercises of 01_leveraging_hardware/07_precision_and_quantization."""

import math
from collections.abc import Callable

from smml.course.checking import attempt, exercise, expect_close


@exercise(
    lambda bits, group, scale_bits: bits,
    lambda bits, group, scale_bits: bits + scale_bits,
    lambda bits, group, scale_bits: bits + group / scale_bits,
)
def bits_per_weight(answer: Callable[[int, int, int], float]) -> str:
    """Bits that a weight takes in memory when each group of them shares a scale."""
    for bits, group, scale_bits in ((4, 128, 32), (4, 32, 16), (8, 4096, 32)):
        expect_close(
            f"bits_per_weight({bits}, {group}, {scale_bits})",
            attempt(answer, bits, group, scale_bits),
            bits + scale_bits / group,
            "A group of weights takes its integers' bits and, once, those of its scale: divide by the group.",
            tolerance=1e-4,
        )
    return "the scale's bits are shared by the group"


@exercise(
    lambda bits, largest: largest / (2 ** (bits - 1) - 1),
    lambda bits, largest: largest / (2**bits - 1) / math.sqrt(12),
    lambda bits, largest: largest / (2 ** (bits - 1) - 1) / 2,
)
def rounding_error(answer: Callable[[int, float], float]) -> str:
    """Root mean square error of symmetric integers, in deviations of the weights, from their largest one."""
    for bits, largest in ((8, 4.0), (4, 2.6), (3, 3.0)):
        expect_close(
            f"rounding_error({bits}, {largest})",
            attempt(answer, bits, largest),
            largest / (2 ** (bits - 1) - 1) / math.sqrt(12),
            "The largest weight becomes 2^(bits−1) − 1 steps; an error spread evenly over one step has step/√12.",
        )
    return "one bit less doubles the step, and with it the error"
