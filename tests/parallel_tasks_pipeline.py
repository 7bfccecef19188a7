"""Tasks for the workers of the tests of pipelines: other groups, other wrappers, and mechanisms that are broken."""

from unittest import mock

import torch
from torch import distributed

from smml.llama.config import LlamaConfig
from smml.llama.model import Llama
from smml.parallel import proof, strategy_tasks
from smml.parallel.data_parallel import DataParallel
from smml.parallel.pipeline import pipeline
from smml.parallel.pipeline.pipeline import Pipeline
from smml.parallel.pipeline.schedules import schedule
from smml.parallel.pipeline.stage import load, named_parameters, split
from smml.parallel.pipeline.strategy import stage

MODEL = strategy_tasks.PROOF | {"tie_embeddings": True}


def replicas(order: str, micro: int, interleave: int) -> float:
    """Two pipelines side by side, of half of the ranks and half of the batch each; the worst gradient after their mean."""
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    half, config = ranks // 2, strategy_tasks.config(MODEL)
    rows = [distributed.new_group(list(range(first, first + half))) for first in (0, half)]
    columns = [distributed.new_group([n, n + half]) for n in range(half)]
    mine, place = rows[rank // half], rank % half
    plan = schedule(order, half, micro, interleave)
    parts = split(config.layers, plan.stages)
    stages = {n: stage(config, parts, n) for n in plan.stages_of(place)}
    load(stages.values(), 0, "cpu")
    own = named_parameters(stages.values())
    tied = own.get("embedding.weight")
    made = Pipeline(stages, plan, config.dim, mine, tied)
    data = proof.batch_of(config, 24, 16)
    part = data.chunk(2)[rank // half]
    made.backward(part[:, :-1], part[:, 1:])
    made.wait()
    for parameter in own.values():
        distributed.all_reduce(parameter.grad, group=columns[place])
    return _worst({name: p.grad / 2 for name, p in own.items()}, data, config)


def wrapped(tied: bool) -> float:
    """Each rank a pipeline of its own whose stages are data parallel."""
    rank = distributed.get_rank()
    config = strategy_tasks.config(MODEL | {"tie_embeddings": tied})
    alone = [distributed.new_group([n]) for n in range(distributed.get_world_size())][rank]
    plan = schedule("interleaved", 1, 3, 2)
    parts = split(config.layers, 2)
    stages = {n: stage(config, parts, n) for n in range(2)}
    load(stages.values(), 0, "cpu")
    inner = {n: DataParallel(held) for n, held in stages.items()}
    made = Pipeline(inner, plan, config.dim, alone)
    data = proof.batch_of(config, 24, 16)
    part = data.chunk(distributed.get_world_size())[rank]
    made.backward(part[:, :-1], part[:, 1:])
    made.wait()
    return _worst({n: p.grad for n, p in named_parameters(stages.values()).items()}, data, config)


def _worst(gradients: dict[str, torch.Tensor], data: torch.Tensor, config: LlamaConfig) -> float:
    whole = Llama(config)
    whole(data[:, :-1], data[:, 1:]).backward()
    wanted = {name: p.grad for name, p in whole.named_parameters()}
    return max(
        ((mine - wanted[name]).norm() / wanted[name].norm()).item()
        for name, mine in gradients.items()
    )


def broken(how: str) -> list[str]:
    """What the proof says of a pipeline in which one thing is forgotten."""
    if how == "the other end's gradient":
        with mock.patch.object(pipeline, "add_theirs"):
            return _problems(tie_embeddings=True)
    if how == "a micro-batch":
        with mock.patch.object(pipeline._Run, "compute", _without_the_last):
            return _problems()
    with mock.patch.object(pipeline._Run, "begin_send", _twice):
        return _problems()


def _problems(**changes: object) -> list[str]:
    model = strategy_tasks.PROOF | changes
    return strategy_tasks.prove("pipeline-1f1b", {"micro": 4}, model)["problems"]


def _without_the_last(run: pipeline._Run, action, received) -> None:
    compute(run, action, received)
    if action.kind == "F" and run.plan.feeds(action) and action.micro == run.plan.micro - 1:
        run.made[action] = torch.zeros_like(run.made[action])


def _twice(run: pipeline._Run, action) -> None:
    run.made[action] = run.made[action] * 2
    begin_send(run, action)


compute, begin_send = pipeline._Run.compute, pipeline._Run.begin_send
