"""Tasks for workers: prove strategies, time them in turns, and find the most that one of them holds."""

import gc
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import distributed

from smml.llama.config import CONFIGS, LlamaConfig
from smml.measure.live_bytes import LiveBytes, MemoryLimit
from smml.parallel import proof
from smml.parallel.collective_tasks import device
from smml.parallel.strategies import build

# A Llama that 1, 2, 3, 4, 6 or 8 ranks may cut: by layers, heads, key-value heads, width, vocabulary and batch.
PROOF = {
    **{"dim": 96, "layers": 4, "heads": 24, "kv_heads": 12, "head_dim": 4, "feed_forward_dim": 96},
    **{"vocab_size": 192, "tie_embeddings": False, "initializer_range": 0.05},
}
PROOF_BATCH, PROOF_TOKENS = 24, 48
PROVED: set[str] = set()  # by these processes, on every rank: once is enough

Options = Mapping[str, Any]


def prove(
    strategy: str,
    options: Options | None = None,
    model: Options = PROOF,
    batch: int = PROOF_BATCH,
    tokens: int = PROOF_TOKENS,
) -> dict[str, Any]:
    """The proof of a strategy on this rank as plain data, and `problems`: what does not hold."""
    found = proof.prove(strategy, config(model), batch, tokens, options or {})
    if (model, batch, tokens) == (PROOF, PROOF_BATCH, PROOF_TOKENS) and not any(
        proof.problems_by_rank(found)
    ):
        PROVED.add(_key(strategy, options or {}))
    return asdict(found) | {"problems": found.problems()}


def seconds(
    strategies: Mapping[str, Options], model: Options, batch: int, tokens: int, samples: int = 7
) -> dict[str, list[float]]:
    """Seconds of a step (backward and update) of each strategy, in turns; the slowest rank's.

    Each is proved first, on a small model, unless it has been. Raises UserError where that fails.
    """
    for name, options in strategies.items():
        if _key(_kind(name), options) not in PROVED:
            proof.demand(_kind(name), config(PROOF), PROOF_BATCH, PROOF_TOKENS, options)
            PROVED.add(_key(_kind(name), options))
    shape = config(model)
    data = proof.batch_of(shape, batch, tokens)
    made = {name: build(_kind(name), shape, **options) for name, options in strategies.items()}
    found: dict[str, list[float]] = {name: [] for name in made}
    for sample in range(samples + 1):
        for name, strategy in made.items():
            took = _slowest(lambda strategy=strategy: (strategy.backward(data), strategy.update()))
            if sample:  # the first one warms up
                found[name].append(took)
    return found


def peak(
    strategy: str,
    model: Options,
    batch: int,
    tokens: int,
    options: Options | None = None,
    limit: int | None = None,
) -> dict[str, int]:
    """Most bytes that this rank holds in two steps, building included, and what it holds between backward and update.

    With `limit` in bytes, a rank that needs more raises MemoryLimit.
    """
    proof.one_process.cache_clear()
    gc.collect()
    shape = config(model)
    data = proof.batch_of(shape, batch, tokens)

    def two_steps() -> dict[str, int]:
        made = build(strategy, shape, **(options or {}))
        for _ in range(2):
            made.backward(data)
            held = made.held()
            made.update()
        return held

    if device() == "cuda":
        return _on_gpu(two_steps, limit)
    with LiveBytes(limit) as followed:
        held = two_steps()
    return held | {"most": followed.most}


def config(changes: Options) -> LlamaConfig:
    """The tiny Llama with some fields changed."""
    return replace(CONFIGS["tiny"], **changes)


def _key(strategy: str, options: Options) -> str:
    return json.dumps([strategy, options], sort_keys=True)


def _kind(name: str) -> str:
    """The strategy of a name that says more: zero-3#small is zero-3 with other options."""
    return name.partition("#")[0]


def _on_gpu(call: Callable[[], dict[str, int]], limit: int | None) -> dict[str, int]:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total) if limit else 1.0)
    try:
        held = call()
    except torch.OutOfMemoryError as error:
        raise MemoryLimit(
            f"{str(error).splitlines()[0]} Use more ranks, a strategy that holds less, or a smaller batch."
        ) from error
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return held | {"most": torch.cuda.max_memory_allocated()}


def _slowest(step: Callable[[], object]) -> float:
    distributed.barrier()
    start = time.perf_counter()
    step()
    if device() == "cuda":
        torch.cuda.synchronize()
    mine = torch.tensor(time.perf_counter() - start, device=device())
    distributed.all_reduce(mine, distributed.ReduceOp.MAX)
    return mine.item()
