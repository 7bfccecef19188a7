"""torch.distributed.pipelining as strategies: its stages and schedules around the modules of ours."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed import pipelining

from smml.parallel.collective_tasks import device
from smml.parallel.pipeline.pipeline import add_theirs
from smml.parallel.pipeline.schedules import Schedule
from smml.parallel.pipeline.stage import Stage
from smml.parallel.pipeline.strategy import GPipe, Interleaved, OneForwardOneBackward


class TorchPipeline:
    """torch's schedule `kind` over the stages of this rank, with the two methods of our Pipeline."""

    def __init__(
        self, kind: type, stages: Mapping[int, Stage], plan: Schedule, tied: nn.Parameter | None
    ) -> None:
        made = [
            pipelining.PipelineStage(stage, number, plan.stages, torch.device(device()))
            for number, stage in stages.items()
        ]
        self.first, self.last = 0 in stages, plan.stages - 1 in stages
        self.plan, self.tied = plan, tied
        # Only the rank of the last stage calls the loss, but all must name one to go backward.
        loss = list(stages.values())[-1].loss
        several = plan.name == "interleaved"
        self.schedule = kind(made if several else made[0], plan.micro, loss_fn=loss)

    def backward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """As Pipeline.backward."""
        losses: list[Tensor] = []
        given = {"target": targets, "losses": losses} if self.last else {}
        self.schedule.step(*([tokens] if self.first else []), **given, return_outputs=False)
        return torch.stack(losses).mean().detach() if losses else torch.zeros((), device=device())

    def wait(self) -> None:
        """torch leaves tied parameters to its user."""
        if self.tied is not None and self.plan.ranks > 1:
            add_theirs(self.tied.grad, self.plan.ranks, None)


class _Torchs(OneForwardOneBackward):
    kind: type

    def mechanism(self, stages: Mapping[int, Stage]) -> TorchPipeline:
        return TorchPipeline(self.kind, stages, self.plan, self.tied())


class TorchOneForwardOneBackward(_Torchs):
    """torch's Schedule1F1B."""

    kind = pipelining.Schedule1F1B


class TorchGPipe(_Torchs, GPipe):
    """torch's ScheduleGPipe."""

    kind = pipelining.ScheduleGPipe


class TorchInterleaved(_Torchs, Interleaved):
    """torch's ScheduleInterleaved1F1B."""

    kind = pipelining.ScheduleInterleaved1F1B
