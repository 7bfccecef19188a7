"""Uneven stages: how many layers each should hold where the last one also has the output matrix and the loss. Pure."""

from smml.parallel.pipeline.rehearse import rehearse
from smml.parallel.pipeline.schedules import schedule
from smml.parallel.pipeline.simulate import Timeline, by_stage

Pair = tuple[float, float]  # seconds of forward and of backward


def splits(
    layers: int,
    ranks: int,
    micro: int,
    layer_s: Pair,
    ends_s: Pair,
    message_s: float = 0.0,
    begin_s: float = 0.0,
) -> dict[tuple[int, ...], Timeline]:
    """Layers of each stage → a step of 1F1B, for every number of layers that the last stage leaves to those in front, who
    share them as equally as they can.

    A layer takes `layer_s` for a micro-batch, and what the last stage does beside its layers `ends_s`. Layers are a
    multiple of the ranks, of which there are at least two.
    """
    plan, each, front = schedule("1f1b", ranks, micro), layers // ranks, ranks - 1
    found = {}
    for moved in range(each):
        split = *(each + moved // front + (n < moved % front) for n in range(front)), each - moved
        times = [
            [number * one + (stage == front) * more for stage, number in enumerate(split)]
            for one, more in zip(layer_s, ends_s, strict=True)
        ]
        found[split] = rehearse(plan, by_stage(*times), message_s, begin_s)
    return found
