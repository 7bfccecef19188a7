"""Tasks for the tests of expert parallel: mistakes that a proof must find, and what no proof covers."""

from contextlib import contextmanager

import torch
from torch import distributed

from smml.measure.live_bytes import LiveBytes
from smml.parallel import expert_parallel, strategy_tasks
from smml.parallel.data_parallel import DataParallel
from smml.parallel.expert_parallel import AllToAll, ExpertParallelLlama
from smml.parallel.mixture import MixtureLlama
from smml.parallel.proof import batch_of


@contextmanager
def replaced(owner, name, value):
    kept = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def nothing_summed(self):
    """Attention, norms, router and embedding keep the gradients of this rank's tokens."""


def averaged_experts(self):
    """Gradients of experts divided by ranks once more, as if every rank held them."""
    waited(self)
    for layer in self.layers:
        layer.feed_forward.gate_up.grad /= distributed.get_world_size()


def gradients_stay(ctx, gradient):
    """Backward of the all-to-all sends as many bytes, of zeros."""
    return sent_back(ctx, torch.zeros_like(gradient))


def shifted(x, rows, *weights):
    """Every token goes through the expert of its neighbour."""
    return grouped(x.roll(1, 0), rows, *weights).roll(-1, 0)


waited = ExpertParallelLlama.wait
sent_back = AllToAll.backward
grouped = expert_parallel.grouped_swiglu
MISTAKES = {
    "nothing summed": (ExpertParallelLlama, "wait", nothing_summed),
    "averaged experts": (ExpertParallelLlama, "wait", averaged_experts),
    "gradients stay": (AllToAll, "backward", staticmethod(gradients_stay)),
    "shifted": (expert_parallel, "grouped_swiglu", shifted),
}


def problems(mistake: str) -> list[str]:
    with replaced(*MISTAKES[mistake]):
        return strategy_tasks.prove("expert")["problems"]


def uneven() -> dict[str, list]:
    """Rank 0 sends all its three rows to the last rank, the others nothing; and the gradients come back."""
    rank, size = distributed.get_rank(), distributed.get_world_size()
    rows = torch.arange(6.0).view(3, 2) if rank == 0 else torch.zeros(0, 2)
    rows.requires_grad_()
    send = [0] * (size - 1) + [len(rows)]
    receive = [3 if rank == size - 1 else 0] + [0] * (size - 1)
    came = AllToAll.apply(rows, send, receive, None)
    (came * torch.tensor([10.0, 100.0])).sum().backward()
    return {"came": came.tolist(), "gradient": rows.grad.tolist()}


def most_while_built(model: dict, experts: int) -> dict[str, int]:
    """The most bytes at one time while a rank makes its weights, and those it keeps."""
    with LiveBytes() as followed:
        made = ExpertParallelLlama(strategy_tasks.config(model), experts=experts)
    kept = sum(p.nbytes for p in made.parameters()) + sum(b.nbytes for b in made.buffers())
    return {"most": followed.most, "kept": kept}


def with_data_parallel() -> float:
    """Experts over pairs of ranks, data parallel over the pairs: the largest difference to one process's gradients."""
    rank = distributed.get_rank()
    pairs = [distributed.new_group(ranks) for ranks in ((0, 1), (2, 3), (0, 2), (1, 3))]
    experts, data = pairs[rank // 2], pairs[2 + rank % 2]
    shape = strategy_tasks.config(strategy_tasks.PROOF)
    one = MixtureLlama(shape)
    tokens = batch_of(shape, 8, 16)
    one(tokens[:, :-1], tokens[:, 1:]).backward()
    inner = ExpertParallelLlama(shape, group=experts)
    model = DataParallel(inner, group=data)
    mine = tokens.chunk(4)[rank]
    model(mine[:, :-1], mine[:, 1:]).backward()
    model.wait()
    inner.wait()
    whole = dict(one.named_parameters())
    worst = 0.0
    for name, p in inner.named_parameters():
        wanted = whole[name].grad
        if len(p) != len(wanted):
            wanted = wanted.chunk(2)[rank % 2]
        worst = max(worst, ((p.grad - wanted).norm() / wanted.norm()).item())
    return worst
