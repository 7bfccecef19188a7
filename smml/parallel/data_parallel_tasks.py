"""Tasks for workers: data parallel by hand and PyTorch's, held to one process, and timed in turns."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from smml.llama.config import CONFIGS, LlamaConfig
from smml.llama.model import Llama
from smml.parallel.collective_tasks import device
from smml.parallel.data_parallel import BUCKET_BYTES, DataParallel

# A model that sends nothing, data parallel by hand, PyTorch's.
KINDS = ("alone", "smml", "torch")


def prove(
    model: dict[str, Any], batch: int, tokens: int, bucket_bytes: int = BUCKET_BYTES, micro: int = 1
) -> dict[str, float]:
    """Loss and gradients of this rank's part of the batch, averaged, against the whole batch on one process.

    `model` changes fields of the tiny Llama; `micro` micro-batches are added up before anything is sent.
    Returns the largest relative difference of a gradient, that of the loss, and the bytes reduced and expected.
    """
    rank, size = distributed.get_rank(), distributed.get_world_size()
    shape, data = config(model), batch_of(model, batch, tokens)
    alone = llama(shape)
    whole = loss_of(alone, data)
    whole.backward()
    own = DataParallel(
        llama(shape, seed=rank), bucket_bytes
    )  # another start, which rank 0's replaces
    parts = list(data.chunk(size)[rank].chunk(micro))
    losses = []
    for part in parts[:-1]:
        with own.no_sync():
            loss = loss_of(own, part) / micro
            loss.backward()
        losses.append(loss.detach())
    last = loss_of(own, parts[-1]) / micro
    last.backward()
    own.wait()
    mean = torch.stack([*losses, last.detach()]).sum()
    distributed.all_reduce(mean)
    return {
        "gradient": max(
            ((p.grad - q.grad).norm() / q.grad.norm()).item()
            for p, q in zip(own.parameters(), alone.parameters(), strict=True)
        ),
        "loss": abs(mean.item() / size / whole.item() - 1),
        "reduced": own.bytes_reduced,
        "expected": sum(p.nbytes for p in alone.parameters()),
        "buckets": len(own.buckets),
    }


def step_seconds(
    model: dict[str, Any],
    batch: int,
    tokens: int,
    kinds: Sequence[str] = KINDS,
    micro: int = 1,
    samples: int = 7,
) -> dict[str, list[float]]:
    """Seconds of a step (forward, backward, mean of gradients, SGD) of each of `kinds`, in turns; the slowest rank's.

    `batch` sequences over all ranks, in `micro` parts one after the other on each.
    """
    rank, size = distributed.get_rank(), distributed.get_world_size()
    parts = batch_of(model, batch, tokens).chunk(size)[rank].chunk(micro)
    made = {
        "alone": lambda: llama(config(model)),
        "smml": lambda: DataParallel(llama(config(model))),
        "torch": lambda: DistributedDataParallel(llama(config(model))),
    }
    steps = {kind: _step(made[kind](), parts) for kind in kinds}
    for step in steps.values():
        step()
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(samples):
        for kind, step in steps.items():
            found[kind].append(_slowest(step))
    return found


def config(changes: dict[str, Any]) -> LlamaConfig:
    """The tiny Llama with some fields changed."""
    from dataclasses import replace

    return replace(CONFIGS["tiny"], **changes)


def llama(shape: LlamaConfig, seed: int = 0) -> Llama:
    """A Llama on this rank's device whose weights depend on the seed alone."""
    torch.manual_seed(seed)
    return Llama(shape).to(device())


def batch_of(changes: dict[str, Any], batch: int, tokens: int) -> Tensor:
    """Random token ids [batch, tokens + 1], the same on every rank. Raises ValueError where ranks do not divide them."""
    size = distributed.get_world_size()
    if batch % size:
        raise ValueError(f"a batch of {batch} cannot be cut into {size} equal parts.")
    generator = torch.Generator().manual_seed(1)
    return torch.randint(config(changes).vocab_size, (batch, tokens + 1), generator=generator).to(
        device()
    )


def loss_of(model: nn.Module, data: Tensor) -> Tensor:
    """Mean loss of predicting every next token."""
    return model(data[:, :-1], data[:, 1:])


def _step(model: nn.Module, parts: Sequence[Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    without = getattr(model, "no_sync", nullcontext)  # a model alone sends nothing anyway
    wait = getattr(model, "wait", lambda: None)

    def step() -> None:
        optimizer.zero_grad()
        for part in parts[:-1]:
            with without():
                (loss_of(model, part) / len(parts)).backward()
        (loss_of(model, parts[-1]) / len(parts)).backward()
        wait()
        optimizer.step()

    return step


def _slowest(step: Callable[[], None]) -> float:
    distributed.barrier()
    start = time.perf_counter()
    step()
    if device() == "cuda":
        torch.cuda.synchronize()
    mine = torch.tensor(time.perf_counter() - start, device=device())
    distributed.all_reduce(mine, distributed.ReduceOp.MAX)
    return mine.item()


def leave_one_out() -> None:
    """A step that does not use one of two layers: the error that says so."""
    model = DataParallel(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).to(device()))
    model.module[0](torch.ones(1, 4, device=device())).sum().backward()
    model.wait()
