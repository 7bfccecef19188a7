"""Exercises of 04_cost_optimization/01_unit_economics."""

from collections.abc import Callable

from smml.course.checking import attempt, exercise, expect_close

_HOURS = (
    (1.0, 900_000.0, 90_000.0, 0.001, 0.01),
    (3.6, 200_000.0, 50_000.0, 0.0005, 0.02),
    (0.09, 10_000.0, 40_000.0, 0.003, 0.015),
)


@exercise(
    lambda usd, read, written, read_s, write_s: usd / written * 1e6,
    lambda usd, read, written, read_s, write_s: usd / (read + written) * 1e6,
    lambda usd, read, written, read_s, write_s: usd * write_s / 3600 * 1e6,
    lambda usd, read, written, read_s, write_s: usd * write_s / (read * read_s + written * write_s),
)
def output_price(answer: Callable[[float, float, float, float, float], float]) -> str:
    """USD per million written tokens when an hour's bill is split by the seconds that reading and writing take."""
    for usd, read, written, read_s, write_s in _HOURS:
        expect_close(
            f"output_price({usd:g}, {read:g}, {written:g}, {read_s:g}, {write_s:g})",
            attempt(answer, usd, read, written, read_s, write_s),
            usd * write_s / (read * read_s + written * write_s) * 1e6,
            "How many seconds of the hour made tokens, and which share of them does one written token take? That share "
            "of the whole bill is its price, idle seconds included.",
        )
    return "a token pays its share of the seconds in use, so that all tokens together pay the hour"


@exercise(
    lambda usd, gpus, ranks, duty, goodput: usd / gpus,
    lambda usd, gpus, ranks, duty, goodput: usd / ranks / duty,
    lambda usd, gpus, ranks, duty, goodput: usd / (gpus * duty * goodput),
    lambda usd, gpus, ranks, duty, goodput: usd / ranks * duty * goodput,
)
def usd_per_gpu_hour_used(answer: Callable[[float, int, int, float, float], float]) -> str:
    """USD per GPU-hour that counts: all GPUs are paid, only those with a rank work, part of the time, part of it kept."""
    for usd, gpus, ranks, duty, goodput in (
        (40.0, 8, 8, 1.0, 0.9),
        (98.0, 8, 4, 0.5, 0.8),
        (640.0, 128, 96, 0.7, 0.93),
    ):
        expect_close(
            f"usd_per_gpu_hour_used({usd:g}, {gpus}, {ranks}, {duty:g}, {goodput:g})",
            attempt(answer, usd, gpus, ranks, duty, goodput),
            usd / (ranks * duty * goodput),
            "Of the GPU-hours that one paid hour holds, how many ran a rank, while a job ran, on work that was kept?",
        )
    return "the whole price over the hours that count; idle GPUs are in the price, not in the hours"
