"""Exercises of 01_leveraging_hardware/09_llama_mfu_ladder."""

from collections.abc import Callable, Mapping

from smml.course.checking import WrongAnswer, attempt, exercise, expect_close


@exercise(
    lambda rate, parameters, layers, width, length, peak: rate * 6 * parameters / peak,
    lambda rate, parameters, layers, width, length, peak: (
        rate * (6 * parameters + 12 * layers * width * length) / peak
    ),
    lambda rate, parameters, layers, width, length, peak: (
        rate * (2 * parameters + 2 * layers * width * (length + 1)) / peak
    ),
)
def utilization(answer: Callable[[float, float, int, int, int, float], float]) -> str:
    """MFU of a training rate: 6N and causal attention's scores a token, over the peak."""
    for rate, parameters, layers, width, length, peak in (
        (5e4, 1e9, 16, 2048, 8192, 1e15),
        (1e4, 8e9, 32, 4096, 32_768, 1e15),
        (1e3, 1e6, 4, 4096, 16_384, 1e12),
    ):
        expect_close(
            f"utilization({rate:g}, {parameters:g}, {layers}, {width}, {length}, {peak:g})",
            attempt(answer, rate, parameters, layers, width, length, peak),
            rate * (6 * parameters + 6 * layers * width * (length + 1)) / peak,
            "6N, and in each layer 4 FLOPs a position and unit of width, over (T + 1) / 2 positions on average; all "
            "three times, for backward is two more.",
        )
    return "model FLOPs a second over the peak: 6N, and the scores of half the square"


@exercise(
    lambda kinds: max(kinds, key=lambda kind: kinds[kind][1]),
    lambda kinds: max(kinds, key=lambda kind: kinds[kind][0]),
    lambda kinds: max(kinds, key=lambda kind: kinds[kind][0] * kinds[kind][1]),
)
def next_rung(answer: Callable[[Mapping[str, tuple[float, float]]], str]) -> str:
    """Of kinds with (share of the time, factor faster), the one whose change saves the most (Amdahl's law)."""
    for kinds in (
        {"norms": (0.05, 10.0), "products": (0.7, 1.3), "scores": (0.25, 3.0)},
        {"loss": (0.3, 2.0), "products": (0.6, 1.1), "norms": (0.1, 20.0)},
        {"loss": (0.2, 1.5), "products": (0.5, 1.6), "norms": (0.3, 2.5)},
    ):
        given = attempt(answer, dict(kinds))
        right = max(kinds, key=lambda kind: kinds[kind][0] * (1 - 1 / kinds[kind][1]))
        if given != right:
            raise WrongAnswer(
                f"next_rung({kinds}) is not {given!r}. A kind with share s that gets f times as fast takes s / f "
                "afterwards: the rest of s is what the step saves."
            )
    return "the share times the part of it that goes away"
