"""Exercises of 02_multi_accelerator/08_choosing_a_layout."""

import math
from collections.abc import Callable

from smml.course.checking import attempt, exercise, expect_close


def _state(parameters: float, tensor: int, pipeline: int, data: int, stage: int) -> float:
    held = parameters / tensor / pipeline
    weights, gradients, optimizer = 2.0, 4.0, 12.0
    if stage >= 1:
        optimizer /= data
    if stage >= 2:
        gradients /= data
    if stage >= 3:
        weights /= data
    return held * (weights + gradients + optimizer)


@exercise(
    lambda parameters, tensor, pipeline, data, stage: 18 * parameters / tensor / pipeline,
    lambda parameters, tensor, pipeline, data, stage: (
        18 * parameters / tensor / pipeline / (data if stage else 1)
    ),
    lambda parameters, tensor, pipeline, data, stage: _state(
        parameters, tensor, 1, data * pipeline, stage
    ),
    lambda parameters, tensor, pipeline, data, stage: _state(
        parameters, tensor, pipeline, data, min(stage, 2)
    ),
)
def state_bytes(answer: Callable[[float, int, int, int, int], float]) -> str:
    """Bytes of weights (2), gradients (4), optimizer (12 a parameter) on one rank of tensor × pipeline × data."""
    for parameters, tensor, pipeline, data, stage in (
        (1e9, 1, 1, 1, 0),
        (8e9, 2, 1, 4, 0),
        (70e9, 8, 2, 4, 1),
        (8e9, 1, 1, 64, 2),
        (405e9, 8, 16, 16, 3),
    ):
        expect_close(
            f"state_bytes({parameters:g}, {tensor}, {pipeline}, {data}, {stage})",
            attempt(answer, parameters, tensor, pipeline, data, stage),
            _state(parameters, tensor, pipeline, data, stage),
            "Tensor and pipeline ranks hold different parameters. Data ranks hold the same ones, until a ZeRO stage shares "
            "out the optimizer (1), then the gradients (2), then the weights (3).",
        )
    return "cut by tensor × pipeline, shared among data ranks as far as the stage says"


@exercise(
    lambda device_h, devices, pause_s: math.sqrt(device_h * 3600 / devices * pause_s),
    lambda device_h, devices, pause_s: math.sqrt(2 * device_h * 3600 * pause_s),
    lambda device_h, devices, pause_s: math.sqrt(2 * device_h / devices * pause_s),
    lambda device_h, devices, pause_s: 2 * device_h * 3600 / devices,
)
def checkpoint_every_s(answer: Callable[[float, int, float], float]) -> str:
    """Young's interval in seconds for devices that each fail once in `device_h` hours and a pause of `pause_s`."""
    for device_h, devices, pause_s in (
        (50_000.0, 64, 10.0),
        (50_000.0, 16_384, 30.0),
        (1e5, 1, 2.0),
    ):
        expect_close(
            f"checkpoint_every_s({device_h:g}, {devices}, {pause_s:g})",
            attempt(answer, device_h, devices, pause_s),
            math.sqrt(2 * device_h * 3600 / devices * pause_s),
            "A pause of δ every τ costs δ/τ of the time, a failure every M loses τ/2 of work on average: the sum of δ/τ and "
            "τ/(2M) is least where both are equal. Count M in seconds, and of the whole job.",
        )
    return "√(2·δ·M), M the job's: the more devices, the shorter"
