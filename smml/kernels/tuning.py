"""`triton.autotune` that also works in the interpreter, where there is no GPU to time on."""

from collections.abc import Callable, Sequence

import triton

from smml import triton_mode

# The interpreter's speed says nothing of a GPU's, so that two configurations are enough to walk the tuner's path.
TRIED_WHEN_INTERPRETED = 2


def autotune(configs: Sequence[triton.Config], key: Sequence[str]) -> Callable:
    """Decorator: run each of `configs` for every new value of the arguments named in `key`, keep the fastest.

    Interpreted, the first two are run once each and the first is kept.
    """
    if not triton_mode.INTERPRETED:
        return triton.autotune(configs=list(configs), key=list(key))
    chosen = list(configs)[:TRIED_WHEN_INTERPRETED]
    return triton.autotune(configs=chosen, key=list(key), do_bench=_Rank())


class _Rank:
    """Runs a call once and gives a later call a longer time: the first configuration wins."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, call: Callable[[], object], quantiles: Sequence[float]) -> list[float]:
        call()
        self.calls += 1
        return [float(self.calls)] * len(quantiles)
