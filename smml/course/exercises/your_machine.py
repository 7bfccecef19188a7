"""Exercises of 00_getting_started/01_your_machine."""

from collections.abc import Callable

from smml.course.checking import attempt, exercise, expect_close


@exercise(
    lambda size, bandwidth, write_allocate: size / bandwidth,
    lambda size, bandwidth, write_allocate: 2 * size / bandwidth,
    lambda size, bandwidth, write_allocate: (1 + write_allocate) * size / bandwidth,
)
def copy_seconds(answer: Callable[[float, float, float], float]) -> str:
    """Seconds to copy an array: it is read, written, and fetched before it is written."""
    for size, bandwidth, write_allocate in ((8e9, 4e9, 0.0), (1e9, 20e9, 1.0), (3e8, 5e10, 0.5)):
        expect_close(
            f"copy_seconds({size:g}, {bandwidth:g}, {write_allocate:g})",
            attempt(answer, size, bandwidth, write_allocate),
            (2 + write_allocate) * size / bandwidth,
            "A copy reads every byte once and writes it once; how often does a line that is only written move?",
        )
    return "read once, written once, and fetched once more where the cache allocates on a write"


@exercise(
    lambda parameters, bytes_per_parameter, bandwidth: bandwidth / parameters,
    lambda parameters, bytes_per_parameter, bandwidth: parameters * bytes_per_parameter / bandwidth,
    lambda parameters, bytes_per_parameter, bandwidth: (
        bandwidth / (2 * parameters * bytes_per_parameter)
    ),
)
def decode_tokens_per_second(answer: Callable[[float, float, float], float]) -> str:
    """Most tokens per second of one sequence: every weight is read once a token."""
    for parameters, width, bandwidth in ((1e9, 2.0, 2e10), (8e9, 1.0, 3e12), (70e9, 0.5, 8e12)):
        expect_close(
            f"decode_tokens_per_second({parameters:g}, {width:g}, {bandwidth:g})",
            attempt(answer, parameters, width, bandwidth),
            bandwidth / (parameters * width),
            "One token at batch 1 reads every weight exactly once: how many bytes is that, how often a second?",
        )
    return "bandwidth ÷ bytes of the weights: no kernel can beat it at batch 1"
