"""Exercises of 01_leveraging_hardware/01_roofline."""

from collections.abc import Callable

from smml.course.checking import attempt, exercise, expect_close

DEVICES = ((1e12, 1e11, 4), (3e14, 2e12, 2), (1e15, 4e12, 2))


@exercise(
    lambda peak, bandwidth, width: peak / bandwidth,
    lambda peak, bandwidth, width: peak / bandwidth * width / 2,
    lambda peak, bandwidth, width: bandwidth / peak,
)
def smallest_square(answer: Callable[[float, float, int], float]) -> str:
    """The n from which an n×n product is compute-bound: 2n³ FLOPs over 3n² elements."""
    for peak, bandwidth, width in DEVICES:
        expect_close(
            f"smallest_square({peak:g}, {bandwidth:g}, {width})",
            attempt(answer, peak, bandwidth, width),
            1.5 * width * peak / bandwidth,
            "Write FLOPs ÷ bytes of the product as a function of n (three matrices move) and set it to the ridge.",
        )
    return "intensity 2n / (3 · bytes per element) meets the ridge there"


@exercise(
    lambda length, write_allocate: length,
    lambda length, write_allocate: 2 * length / (2 + write_allocate),
    lambda length, write_allocate: 1.0,
)
def fusion_speedup(answer: Callable[[int, float], float]) -> str:
    """How much faster a memory-bound chain gets when fused: bytes before ÷ bytes after."""
    for length, write_allocate in ((1, 0.5), (4, 1.0), (8, 0.25)):
        expect_close(
            f"fusion_speedup({length}, {write_allocate:g})",
            attempt(answer, length, write_allocate),
            (2 * length + write_allocate) / (2 + write_allocate),
            "Count the bytes of the first step (it fills new lines) and of the others (in place) apart.",
        )
    return "bytes before ÷ bytes after, since the memory sets both times"


@exercise(
    lambda ridge, width: ridge,
    lambda ridge, width: ridge * width,
    lambda ridge, width: 2 * ridge / width,
)
def compute_bound_batch(answer: Callable[[float, int], float]) -> str:
    """Batch from which a wide linear layer is compute-bound: 2 FLOPs a weight and row, one read a weight."""
    for ridge, width in ((10.0, 4), (150.0, 2), (300.0, 1)):
        expect_close(
            f"compute_bound_batch({ridge:g}, {width})",
            attempt(answer, ridge, width),
            ridge * width / 2,
            "Each weight is read once and used for 2 FLOPs in every row of the batch; the activations are small.",
        )
    return "2 · batch FLOPs for each weight read meet the ridge there"
