"""Tasks for test_parallel_context: attention and models over some of the ranks, held to one process, and broken ones."""

from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import distributed

from smml.llama import ops
from smml.llama.model import Llama
from smml.parallel import block_attention, proof, ring_attention, strategy_tasks
from smml.parallel.context_parallel import ContextParallelLlama
from smml.parallel.data_parallel import DataParallel
from smml.parallel.gather_attention import gather_attention
from smml.parallel.sequence_order import pieces
from smml.parallel.ulysses import ulysses_attention

WAYS = {
    "ring": ring_attention.ring_attention,
    "gather": gather_attention,
    "ulysses": ulysses_attention,
}


def attention(
    way: str, order: str, shape: dict[str, int], members: list[int], dtype: str = "float32"
) -> dict[str, float] | None:
    """Largest difference of out and of the gradients of q, k and v to the unsharded attention, over these ranks."""
    group = distributed.new_group(members)
    if distributed.get_rank() not in members:
        return None
    rank, ranks = distributed.get_rank(group), len(members)
    generator = torch.Generator().manual_seed(0)

    def random(heads: int) -> torch.Tensor:
        size = (shape["batch"], heads, shape["tokens"], shape["head_dim"])
        return torch.randn(size, generator=generator, dtype=getattr(torch, dtype))

    operands = [random(shape[h]).requires_grad_() for h in ("heads", "kv_heads", "kv_heads")]
    whole = ops.attention(*operands, None, True)
    weight = random(shape["heads"])
    wanted = [whole, *torch.autograd.grad((whole * weight).sum(), operands)]

    held = [torch.arange(p.start, p.stop) for p in pieces(order, shape["tokens"], rank, ranks)]
    mine = torch.cat(held)
    parts = [x.detach()[:, :, mine].requires_grad_() for x in operands]
    out = WAYS[way](*parts, order, group)
    found = [out, *torch.autograd.grad((out * weight[:, :, mine]).sum(), parts)]
    return {
        name: (a - b[:, :, mine]).abs().max().item()
        for name, a, b in zip(("out", "q", "k", "v"), found, wanted, strict=True)
    }


def model(
    order: str,
    tokens: int,
    members: list[int],
    replicas: list[list[int]] | None = None,
    changes: dict[str, Any] | None = None,
) -> dict[str, float] | None:
    """Relative difference of the loss and the worst gradient to one process's.

    Sequences are cut over `members`; with `replicas`, groups of ranks that share sequences, the batch is cut over those.
    """
    groups = {tuple(m): distributed.new_group(m) for m in (replicas or [members])}
    at = distributed.get_rank()
    mine = next((m for m in groups if at in m), None)
    if mine is None:
        return None
    config = strategy_tasks.config(strategy_tasks.PROOF | (changes or {}))
    data = proof.batch_of(config, 4, tokens)
    one = Llama(config)
    whole = one(data[:, :-1], data[:, 1:])
    whole.backward()
    cut = ContextParallelLlama(config, order=order, group=groups[mine], seed=7 * at)
    cut.load_state_dict(one.state_dict())
    if replicas:
        data = data.chunk(len(replicas))[list(groups).index(mine)]
        step = DataParallel(cut)  # over all ranks: those of one sequence and those of others
        loss = step(data[:, :-1], data[:, 1:])
        loss.backward()
        step.wait()
        distributed.all_reduce(loss := loss.detach())
        loss /= distributed.get_world_size()
    else:
        loss = cut(data[:, :-1], data[:, 1:])
        loss.backward()
        for tensor in (loss := loss.detach(), *(p.grad for p in cut.parameters())):
            distributed.all_reduce(tensor, group=groups[mine])
            tensor /= len(mine)
    pairs = zip(cut.parameters(), one.parameters(), strict=True)
    gradient = max(((a.grad - b.grad).norm() / b.grad.norm()).item() for a, b in pairs)
    return {"loss": abs(loss.item() / whole.item() - 1), "gradient": gradient}


def ignored(leave_out: int) -> float:
    """Relative difference of the loss where the first `leave_out` targets of each sequence do not count."""
    config = strategy_tasks.config(strategy_tasks.PROOF)
    data = proof.batch_of(config, 2, 16)
    tokens, targets = data[:, :-1], data[:, 1:].clone()
    targets[:, :leave_out] = ops.IGNORE_INDEX
    whole = Llama(config)(tokens, targets)
    loss = ContextParallelLlama(config, order="contiguous")(tokens, targets)
    loss.backward()
    distributed.all_reduce(loss := loss.detach())
    return abs(loss.item() / distributed.get_world_size() / whole.item() - 1)


def logits() -> float:
    """Largest difference of this rank's logits to the unsharded model's at its positions."""
    config = strategy_tasks.config(strategy_tasks.PROOF)
    tokens = proof.batch_of(config, 2, 16)[:, :-1]
    size, rank = distributed.get_world_size(), distributed.get_rank()
    held = torch.cat([torch.arange(p.start, p.stop) for p in pieces("zigzag", 16, rank, size)])
    with torch.no_grad():
        whole, mine = Llama(config)(tokens), ContextParallelLlama(config)(tokens)
    return (mine - whole[:, held]).abs().max().item()


def broken(how: str) -> list[str]:
    """What the proof says of ring attention with one thing wrong."""
    with _patched(how):
        config = strategy_tasks.config(strategy_tasks.PROOF)
        return proof.prove("context", config, 4, 24, {}).problems()


def proofs(cases: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    """The proof of every strategy, options and changes of the model."""
    found = []
    for name, options, changes in cases:
        config = strategy_tasks.config(strategy_tasks.PROOF | changes)
        done = proof.prove(name, config, strategy_tasks.PROOF_BATCH, 24, options)
        found.append(asdict(done) | {"problems": done.problems()})
    return found


@contextmanager
def _patched(how: str):
    backward, passing, merge = (
        ring_attention.attend_more_backward_,
        ring_attention.passing,
        block_attention.merge_,
    )

    def no_gradient_for_others(grad_q, grad_kv, grad, saved, kv, part):
        backward(grad_q, grad_kv if part.causal else grad_kv.clone(), grad, saved, kv, part)

    def once_more(kv, group):
        yield from passing(kv, group)
        ring_attention.Shift(kv, group).wait()

    def unweighted(out, lse, other, other_lse):
        out.add_(other).div_(2)

    changes = {
        "gradients of passing blocks are lost": (
            ring_attention,
            "attend_more_backward_",
            no_gradient_for_others,
        ),
        "blocks go all the way round": (ring_attention, "passing", once_more),
        "parts are averaged, not weighed": (block_attention, "merge_", unweighted),
    }
    module, name, wrong = changes[how]
    right = {"attend_more_backward_": backward, "passing": passing, "merge_": merge}[name]
    setattr(module, name, wrong)
    try:
        yield
    finally:
        setattr(module, name, right)
