"""Exercises of 00_getting_started/05_choosing_compute."""

import math
from collections.abc import Callable

from smml.course.checking import attempt, exercise, expect_close


@exercise(
    lambda price, instances, rate, load: price / (rate * load * 3600) * 1e6,
    lambda price, instances, rate, load: instances * price / (rate * 3600) * 1e6,
    lambda price, instances, rate, load: instances * price / (instances * rate * load * 3600) * 1e6,
    lambda price, instances, rate, load: instances * price / (rate * load) * 1e6,
)
def usd_per_million_tokens(answer: Callable[[float, int, float, float], float]) -> str:
    """USD per million tokens of a service: all instances, all hours, only the tokens that were asked for."""
    for price, instances, rate, load in (
        (1.0, 1, 100.0, 1.0),
        (0.8, 3, 900.0, 0.25),
        (0.09, 2, 40.0, 0.1),
    ):
        expect_close(
            f"usd_per_million_tokens({price:g}, {instances}, {rate:g}, {load:g})",
            attempt(answer, price, instances, rate, load),
            instances * price / (rate * load * 3600) * 1e6,
            "Take one hour: what do all instances cost in it, busy or not, and how many tokens leave them together?",
        )
    return "every instance is paid for every hour; only the mean load earns tokens"


@exercise(
    lambda cpu_price, cpu_rate, gpu_price: cpu_rate,
    lambda cpu_price, cpu_rate, gpu_price: cpu_rate * gpu_price / cpu_price,
    lambda cpu_price, cpu_rate, gpu_price: cpu_rate * math.ceil(gpu_price / cpu_price),
    lambda cpu_price, cpu_rate, gpu_price: math.floor(gpu_price / cpu_price),
)
def cpu_until(answer: Callable[[float, float, float], float]) -> str:
    """Most tokens per second that whole CPU instances carry for no more than one GPU instance costs."""
    for cpu_price, cpu_rate, gpu_price in (
        (0.1, 20.0, 0.55),
        (0.085, 110.0, 0.8),
        (0.2, 300.0, 0.5),
    ):
        expect_close(
            f"cpu_until({cpu_price:g}, {cpu_rate:g}, {gpu_price:g})",
            attempt(answer, cpu_price, cpu_rate, gpu_price),
            cpu_rate * math.floor(gpu_price / cpu_price),
            "How many whole CPU instances can you pay with the price of one GPU instance? Half of one is not sold.",
        )
    return "as many whole CPU instances as the GPU's price buys, each at its own rate"
