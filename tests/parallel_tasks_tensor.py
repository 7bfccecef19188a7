"""Tasks for the tests of tensor parallel: on a part of the ranks, with and without a loss, and with mistakes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import distributed

from smml.llama.kv_cache import StaticCache
from smml.llama.model import Llama
from smml.llama.ops import IGNORE_INDEX
from smml.parallel import (
    differentiable,
    proof,
    strategy_tasks,
    tensor_cut,
    tensor_parallel,
    vocabulary_loss as loss_file,
)
from smml.parallel.collective_tasks import device
from smml.parallel.data_parallel import DataParallel
from smml.parallel.tensor_parallel import TensorParallelLlama, put_together


def in_groups(
    groups: Sequence[Sequence[int]], changes: Mapping[str, Any], batch: int = 4, **options: bool
) -> float:
    """The worst gradient against one process's where each group trains on data of its own; 0 on ranks in none."""
    config, rank = (
        strategy_tasks.config(strategy_tasks.PROOF | dict(changes)),
        distributed.get_rank(),
    )
    made = [distributed.new_group(list(ranks)) for ranks in groups]
    worst = 0.0
    for number, (ranks, group) in enumerate(zip(groups, made, strict=True)):
        if rank not in ranks:
            continue
        data = proof.batch_of(config, batch, 24, seed=number)
        one = Llama(config, seed=5).to(device())
        ours = TensorParallelLlama(config, 5, group, device=device(), **options)
        targets = data[:, 1:].clone()
        targets[0, :7] = IGNORE_INDEX
        whole, loss = one(data[:, :-1], targets), ours(data[:, :-1], targets)
        whole.backward()
        (3 * loss).backward()  # also a loss that is scaled, as with micro-batches
        assert abs(loss.item() / whole.item() - 1) < 1e-6
        for name, p in one.named_parameters():
            mine = dict(ours.named_parameters())[name].grad / 3
            found = put_together(name, mine, config, ours.sharing)
            if p.grad.norm() > 1e-6:  # a key's bias changes no attention: its gradient is rounding
                worst = max(worst, ((found - p.grad).norm() / p.grad.norm()).item())
    return worst


def with_data_parallel(sequence: bool) -> float:
    """The worst gradient of two pairs that share a model each and half of the batch, against one process's."""
    config, rank = strategy_tasks.config(strategy_tasks.PROOF), distributed.get_rank()
    pairs = [distributed.new_group([0, 1]), distributed.new_group([2, 3])]
    crossed = [distributed.new_group([0, 2]), distributed.new_group([1, 3])]
    model = TensorParallelLlama(config, 3, pairs[rank // 2], device=device(), sequence=sequence)
    both = DataParallel(model, bucket_bytes=40_000, group=crossed[rank % 2])
    one, data = Llama(config, seed=3).to(device()), proof.batch_of(config, 4, 24)
    one(data[:, :-1], data[:, 1:]).backward()
    mine = data.chunk(2)[rank // 2]
    both(mine[:, :-1], mine[:, 1:]).backward()
    both.wait()
    whole = dict(one.named_parameters())
    return max(
        (
            (put_together(n, p.grad, config, model.sharing) - whole[n].grad).norm()
            / whole[n].grad.norm()
        ).item()
        for n, p in model.named_parameters()
    )


def logits() -> dict[str, float]:
    """Differences of logits to one process's: of a whole sequence, and token by token with a cache."""
    config = strategy_tasks.config(strategy_tasks.PROOF)
    one, ours = Llama(config, seed=0).to(device()), TensorParallelLlama(config, device=device())
    tokens = proof.batch_of(config, 2, 11)
    with torch.no_grad():
        wanted = one(tokens)
        whole = ours(tokens)
        cache = StaticCache(ours.config, 2, 12, device())
        parts = [ours(tokens[:, :9], cache=cache)]
        parts += [ours(tokens[:, n : n + 1], cache=cache) for n in range(9, 12)]
    return {
        "whole": (whole - wanted).abs().max().item(),
        "cached": (torch.cat(parts, 1) - wanted).abs().max().item(),
    }


def refuse(case: str) -> None:
    """Build or call what must be refused on every rank, before anything is sent."""
    config = strategy_tasks.config(strategy_tasks.PROOF)
    tokens = torch.zeros(1, 6, dtype=torch.long)
    if case == "sizes":
        changes = {"kv_heads": 3, "vocab_size": 189}
        TensorParallelLlama(strategy_tasks.config(strategy_tasks.PROOF | changes))
    elif case == "gather_again":
        TensorParallelLlama(config, gather_again=True)
    else:
        ours = TensorParallelLlama(config, sequence=True)
        ours(tokens[:, :5], tokens[:, :5]) if case == "tokens" else ours(tokens)


# What somebody may forget, and where: module, name, and what stands there instead.
MISTAKES = {
    "sum of norms' gradients": (tensor_parallel, "used_by_all", lambda x, sharing: x),
    "sum after the row product": (
        tensor_parallel,
        "partial_sum",
        lambda x, sharing: x,
    ),
    "part of q, k and v each": (
        tensor_parallel,
        "cut",
        lambda name, config: _straight(tensor_cut.cut(name, config)),
    ),
    "other ranks' logits": (
        loss_file,
        "gathered",
        lambda x, sharing: _own_only(*differentiable.gathered(x, sharing)),
    ),
}


def mistaken(mistake: str, options: Mapping[str, bool]) -> list[str]:
    """What the proof says of tensor parallel with that mistake in it."""
    module, name, wrong = MISTAKES[mistake]
    right = getattr(module, name)
    setattr(module, name, wrong)
    try:
        return strategy_tasks.prove("tensor", options, batch=12, tokens=8)["problems"]
    finally:
        setattr(module, name, right)


def _straight(how: tensor_cut.Cut | None) -> tensor_cut.Cut | None:
    return how and tensor_cut.Cut(how.dim, (sum(how.blocks),))


def _own_only(parts: torch.Tensor, work: Any) -> tuple[torch.Tensor, Any]:
    work.wait()
    if parts.dim() == 3:  # [p, 2, N]: log-sum-exp and target's logit of every rank
        parts[:] = parts[distributed.get_rank()].clone()
    return parts, work
