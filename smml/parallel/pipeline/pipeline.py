"""A step through a pipeline: each rank runs its program of computing, sending and receiving, and adds up gradients."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn

from smml.errors import UserError
from smml.parallel.pipeline.messages import COMPUTE, SEND, program
from smml.parallel.pipeline.schedules import BACKWARD, FORWARD, Action, Schedule

Clock = Callable[[Action], AbstractContextManager[Any]]


class Pipeline(nn.Module):
    """`stages` of this rank by their numbers, run by `plan`; `width` is D of the stream [B, T, D] between stages.

    A stage is called with its input and gives the stream; the last one is called with targets too and gives the mean
    loss. One that has `no_sync` and `wait`, as DataParallel, adds up gradients in it until its last micro-batch.
    `tied` is a parameter that the first and the last rank both hold. Ranks are those of `group`, all by default.
    `clock` is entered around every forward and backward. Call `wait` between the last backward and the optimizer.
    Raises UserError where stages that reduce gradients share a parameter.
    """

    def __init__(
        self,
        stages: Mapping[int, nn.Module],
        plan: Schedule,
        width: int,
        group: distributed.ProcessGroup | None = None,
        tied: nn.Parameter | None = None,
        clock: Clock = nullcontext,
    ) -> None:
        super().__init__()
        held = [id(p) for stage in stages.values() for p in stage.parameters()]
        if len(set(held)) < len(held) and any(hasattr(s, "no_sync") for s in stages.values()):
            raise UserError(
                "two stages of a rank share a parameter and each would reduce its gradients: untie them, or use more ranks."
            )
        self.stages = nn.ModuleDict({str(number): stage for number, stage in stages.items()})
        self.plan, self.width, self.tied, self.clock = plan, width, tied, clock
        self.group = group or distributed.group.WORLD
        self.program = program(plan, distributed.get_rank(group))

    def backward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Forward and backward of a batch, tokens and targets [B, T]; gradients are added to those of the parameters.

        Returns the mean loss on the rank of the last stage, detached, and 0 on the others. Only the first stage's rank
        looks into tokens, only the last one's into targets. Raises UserError for a batch that does not fall into
        micro-batches.
        """
        must_fit(len(tokens), self.plan.micro)
        run = _Run(self, tokens, targets)
        for do, action in self.program:
            if do == COMPUTE:
                received = run.wait_for_input(action)
                with self.clock(action):
                    run.compute(action, received)
            elif do == SEND:
                run.begin_send(action)
            else:
                run.begin_receive(action)
        run.end()
        return run.loss

    def wait(self) -> None:
        """Return when every gradient is that of the whole model: also where ranks share a stage or tie parameters."""
        for stage in self.stages.values():
            getattr(stage, "wait", lambda: None)()
        if self.tied is not None and self.plan.ranks > 1:
            add_theirs(self.tied.grad, self.plan.ranks, self.group)


def must_fit(batch: int, micro: int) -> None:
    """Raise UserError where a batch does not fall into so many equal micro-batches."""
    if batch % micro:
        raise UserError(
            f"a batch of {batch} does not fall into {micro} equal micro-batches: choose a multiple of {micro}."
        )


def add_theirs(gradient: Tensor, ranks: int, group: distributed.ProcessGroup | None) -> None:
    """Add the other end's gradient to one that the first and the last of `ranks` hold: an all-reduce of two, without a
    group of their own.
    """
    first = distributed.get_rank(group) == 0
    peer = distributed.get_global_rank(group or distributed.group.WORLD, ranks - 1 if first else 0)
    mine, theirs = gradient.clone(), torch.empty_like(gradient)
    # One sends first and the other receives first: on NCCL messages of a pair pass one at a time.
    if first:
        works = [distributed.isend(mine, peer, group), distributed.irecv(theirs, peer, group)]
    else:
        works = [distributed.irecv(theirs, peer, group), distributed.isend(mine, peer, group)]
    for work in works:
        work.wait()
    gradient += theirs


class _Run:
    """What one step has under way on this rank."""

    def __init__(self, pipeline: Pipeline, tokens: Tensor, targets: Tensor) -> None:
        self.pipeline, self.plan = pipeline, pipeline.plan
        self.tokens, self.targets = tokens.chunk(self.plan.micro), targets.chunk(self.plan.micro)
        self.loss = torch.zeros((), device=tokens.device)
        self.kept: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}  # input, output
        self.made: dict[Action, Tensor] = {}  # to be sent, or taken by a stage of this rank
        self.coming: dict[Action, tuple[distributed.Work, Tensor]] = {}
        self.leaving: dict[Action, tuple[distributed.Work, Tensor]] = {}

    def wait_for_input(self, action: Action) -> Tensor | None:
        """The activation or gradient that the action needs, when it is here; None where it needs none."""
        source = self.plan.needs(action)
        if source in self.coming:
            work, received = self.coming.pop(source)
            work.wait()
        else:
            received = self.made.pop(source) if source else None
        if action.kind == BACKWARD:  # whose gradient is here has its activation: no waiting
            self._let_go([action._replace(kind=FORWARD)])
        return received

    def compute(self, action: Action, received: Tensor | None) -> None:
        """Forward or backward; what it makes for another stage is kept to be sent or taken."""
        stage = self.pipeline.stages[str(action.stage)]
        goes_on = self.plan.feeds(action) is not None
        if action.kind == FORWARD:
            x = self.tokens[action.micro] if received is None else received.requires_grad_()
            if goes_on:
                y = stage(x)  # [b, T, D]
                self.made[action] = y.detach()
            else:
                y = stage(x, self.targets[action.micro]) / self.plan.micro
                self.loss += y.detach()
            self.kept[action.stage, action.micro] = x, y
            return
        x, y = self.kept.pop((action.stage, action.micro))
        last = action.micro == self.plan.micro - 1
        with nullcontext() if last else getattr(stage, "no_sync", nullcontext)():
            torch.autograd.backward(y, received)
        if goes_on:
            self.made[action] = x.grad

    def begin_send(self, action: Action) -> None:
        """Send what an action made; of gradients only one at a time is on its way, so that they do not pile up."""
        if action.kind == BACKWARD:
            self._let_go([sent for sent in self.leaving if sent.kind == BACKWARD])
        tensor = self.made.pop(action).contiguous()
        peer = self._global(self.plan.sent_to(action))
        self.leaving[action] = distributed.isend(tensor, peer, self.pipeline.group), tensor

    def begin_receive(self, action: Action) -> None:
        """Make room for what an action of another rank makes, and ask for it."""
        shape = (*self.tokens[0].shape, self.pipeline.width)
        dtype = next(self.pipeline.parameters()).dtype
        room = torch.empty(shape, dtype=dtype, device=self.loss.device)
        source = self._global(self.plan.rank_of(action.stage))
        self.coming[action] = distributed.irecv(room, source, self.pipeline.group), room

    def end(self) -> None:
        """Return when all that was sent has left."""
        self._let_go(list(self.leaving))

    def _let_go(self, sent: Iterable[Action]) -> None:
        for action in sent:
            if action in self.leaving:
                self.leaving.pop(action)[0].wait()

    def _global(self, rank: int) -> int:
        return distributed.get_global_rank(self.pipeline.group, rank)
