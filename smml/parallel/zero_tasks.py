"""Tasks for workers: what a step of ZeRO is made of, each piece timed alone on all ranks at once."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import distributed

from smml.parallel import proof
from smml.parallel.collective_tasks import device
from smml.parallel.strategies import build
from smml.parallel.strategy_tasks import config


def step_parts(
    model: dict[str, Any], batch: int, tokens: int, samples: int = 5
) -> dict[str, list[float]]:
    """Seconds of backward (forward included) and of the update of a model that sends nothing; the slowest rank's."""
    shape = config(model)
    data = proof.batch_of(shape, batch, tokens)
    alone = build("alone", shape)
    found: dict[str, list[float]] = {"backward": [], "update": []}
    for sample in range(samples + 1):
        took = {"backward": seconds(lambda: alone.backward(data)), "update": seconds(alone.update)}
        for part, value in took.items():
            if sample:  # the first one warms up
                found[part].append(value)
    return found


def collective_seconds(payloads: Sequence[int], samples: int = 5) -> dict[str, list[list[float]]]:
    """Seconds of the collectives that data parallel and ZeRO call, by name for each payload in bytes, in turns.

    Payloads are those of nccl-tests (see links.py). gloo's are not what it does for lists of tensors.
    """
    ranks, found = distributed.get_world_size(), {}
    for sample in range(samples + 1):
        for at, payload in enumerate(payloads):
            part = max(1, payload // 4 // ranks)
            whole, own = (
                torch.zeros(ranks * part, device=device()),
                torch.zeros(part, device=device()),
            )
            calls = {
                "all-gather": partial(distributed.all_gather_into_tensor, whole, own),
                "reduce-scatter": partial(distributed.reduce_scatter_tensor, own, whole),
                "all-reduce/ring": partial(distributed.all_reduce, whole),
            }
            for name, call in calls.items():
                took = seconds(call)
                if sample:
                    found.setdefault(name, [[] for _ in payloads])[at].append(took)
    return found


def seconds(call: Callable[[], object]) -> float:
    """Of one call after a barrier: the slowest rank's."""
    distributed.barrier()
    start = time.perf_counter()
    call()
    if device() == "cuda":
        torch.cuda.synchronize()
    mine = torch.tensor(time.perf_counter() - start, device=device())
    distributed.all_reduce(mine, distributed.ReduceOp.MAX)
    return mine.item()
