"""Tasks for workers: what a stage and a message take by themselves, and what every rank does when in whole steps."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, distributed

from smml.llama.config import LlamaConfig
from smml.parallel import proof
from smml.parallel.collective_tasks import device
from smml.parallel.pipeline.clock import Clock
from smml.parallel.pipeline.schedules import BACKWARD, FORWARD, Action
from smml.parallel.pipeline.stage import Stage, load
from smml.parallel.pipeline.strategy import stage
from smml.parallel.strategies import kind
from smml.parallel.strategy import adamw
from smml.parallel.strategy_tasks import PROOF, PROOF_TOKENS, config

Options = Mapping[str, Any]
SEVERAL = 4  # micro-batches forward before the first is backward: memory as new as in a step


def alone(
    strategy: str, options: Options, model: Options, sequences: int, tokens: int, rounds: int = 9
) -> dict[str, Any]:
    """Seconds that this rank takes while all are busy and nothing is sent. `spans`: by round the forward and backward of
    SEVERAL micro-batches of `sequences` through each of its stages. Medians of a step of the optimizer, `update`, of a
    `message` to a neighbour, and of beginning one, `begin`.
    """
    shape, clock = config(model), Clock(device())
    plan, parts = kind(strategy).planned(shape, distributed.get_world_size(), **options)
    mine = {n: stage(shape, parts, n) for n in plan.stages_of(distributed.get_rank())}
    load(mine.values(), 0, device())
    data = proof.batch_of(shape, sequences, tokens)
    stream = torch.randn(sequences, tokens, shape.dim, device=device())
    spans = []
    for _ in range(rounds + 1):
        clock.start()
        for number, held in mine.items():
            _there_and_back(held, number, data, stream, clock)
        spans.append([(*span.action, span.start_s, span.end_s) for span in clock.stop()[0]])
    update = adamw([p for held in mine.values() for p in held.parameters()]).step
    messages = [_message(stream) for _ in range(rounds)]
    return {
        "spans": spans[1:],  # the first round warms up
        "update": median([_seconds(update) for _ in range(rounds)][1:]),
        "message": median(message for message, _ in messages),
        "begin": median(begin for _, begin in messages),
    }


def steps(
    runs: Mapping[str, Options], model: Options, sequences: int, tokens: int, samples: int = 7
) -> dict[str, list[dict[str, Any]]]:
    """Forward and backward of a batch, of each of `runs` in turns: a strategy of ours, which may say more behind a #, with
    its options; `sequences` a micro-batch.

    A sample holds `step_s`, seconds until the last rank is done, and `spans`: what this rank did from when to when, both
    since the first rank began. Each strategy
    and each split of the layers is proved first, on a small model, with the most micro-batches that it will have. Raises
    UserError where that fails.
    """
    shape, clock = config(model), Clock(device())
    made = {}
    for name, options in runs.items():
        strategy = kind(_plain(name))(shape, **options)
        strategy.module.clock = clock
        data = proof.batch_of(shape, sequences * strategy.plan.micro, tokens)
        made[name] = strategy, data
    _demand(runs, shape)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in made}
    for sample in range(samples + 1):
        for name, (strategy, data) in made.items():
            distributed.barrier()
            mine = time.perf_counter()
            clock.start()
            strategy.backward(data)
            spans, took = clock.stop()
            for parameter in strategy.parameters():
                parameter.grad = None
            late = mine + _largest(-mine)  # after the first rank: one clock serves a machine
            step = _largest(late + took)
            if sample:
                times = [(*s.action, late + s.start_s, late + s.end_s) for s in spans]
                found[name].append({"step_s": step, "spans": times})
    return found


def _demand(runs: Mapping[str, Options], shape: LlamaConfig) -> None:
    small = replace(config(PROOF), layers=shape.layers, tie_embeddings=shape.tie_embeddings)
    most: dict[Any, tuple[str, Options]] = {}
    for name, options in sorted(runs.items(), key=lambda run: run[1].get("micro", 0)):
        cut = {what: value for what, value in options.items() if what != "micro"}
        most[_plain(name), str(cut)] = _plain(name), options
    for plain, options in most.values():
        micro = options.get("micro", distributed.get_world_size())
        proof.demand(plain, small, micro, PROOF_TOKENS, options)


def _plain(name: str) -> str:
    return name.partition("#")[0]


def _there_and_back(held: Stage, number: int, data: Tensor, stream: Tensor, clock: Clock) -> None:
    results = []
    distributed.barrier()
    for micro in range(SEVERAL):
        x = data[:, :-1] if held.first else stream.clone().requires_grad_()
        with clock(Action(FORWARD, number, micro)):
            results.append(held(x, data[:, 1:]) if held.last else held(x))
    distributed.barrier()
    for micro, result in enumerate(results):
        with clock(Action(BACKWARD, number, micro)):
            torch.autograd.backward(result, None if held.last else stream)


def _message(stream: Tensor) -> tuple[float, float]:
    """Seconds of a message to a neighbour once it is begun, and of beginning it, 0 for who has none: half of there and
    back, and of the calls that begin a send and a receive. On a GPU these keep nobody from computing.
    """
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    peer = rank ^ 1
    if peer >= ranks:
        return 0.0, 0.0
    room = torch.empty_like(stream)

    def there_and_back() -> None:
        for sends in (rank < peer, rank > peer):
            distributed.send(stream, peer) if sends else distributed.recv(room, peer)

    works: list[distributed.Work] = []

    def begin() -> None:
        calls = [(distributed.isend, stream), (distributed.irecv, room)]
        for call, tensor in calls if rank < peer else reversed(calls):
            works.append(call(tensor, peer))

    message = _seconds(there_and_back) / 2
    begun = 0.0 if device() == "cuda" else _seconds(begin) / 2
    for work in works:
        work.wait()
    return max(0.0, message - begun), begun


def _largest(value: float) -> float:
    over_all = torch.tensor(value, dtype=torch.float64, device=device())
    distributed.all_reduce(over_all, distributed.ReduceOp.MAX)
    return over_all.item()


def _seconds(call: Callable[[], object]) -> float:
    if device() == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device() == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
