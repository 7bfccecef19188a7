"""How many parts a kernel's sums are cut into so that its programs fill the GPU: the waves in which they run."""

import math
from functools import cache

import torch

INTERPRETED_PROCESSORS = 8  # a small GPU's, so that the interpreter splits and merges too


def splits_for(programs: int, most: int, slots: int) -> int:
    """Parts (1…`most`) of each of `programs` so that all fill waves of `slots`: the fewest within a tenth of the best.

    What counts is how full the waves are: programs ÷ (waves · slots), of which the last may be nearly empty.
    """

    def filled(splits: int) -> float:
        waves = programs * splits / slots
        return waves / math.ceil(waves)

    candidates = range(1, max(most, 1) + 1)
    best = max(map(filled, candidates))
    return next(splits for splits in candidates if filled(splits) >= 0.9 * best)


@cache
def processors(device: torch.device) -> int:
    """Streaming multiprocessors of a GPU; of the one that the interpreter stands for elsewhere."""
    if device.type != "cuda":
        return INTERPRETED_PROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count
