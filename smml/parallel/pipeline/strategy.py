"""Pipeline parallel as strategies: a Llama cut into stages, trained by one of three schedules."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn

from smml.llama import counts
from smml.llama.config import LlamaConfig
from smml.llama.model import Llama
from smml.parallel.collective_tasks import device
from smml.parallel.pipeline.pipeline import Pipeline, must_fit
from smml.parallel.pipeline.schedules import Schedule, schedule
from smml.parallel.pipeline.stage import Stage, load, named_parameters, split
from smml.parallel.strategy import Bytes, Strategy

Planned = tuple[Schedule, tuple[range, ...]]  # and the layers of each stage


class OneForwardOneBackward(Strategy):
    """1F1B. Options: `micro` micro-batches (as many as ranks by default), `layers` of each stage (see stage.split)."""

    order: ClassVar[str] = "1f1b"
    interleave: ClassVar[int] = 1

    def __init__(self, config: LlamaConfig, seed: int = 0, **options: Any) -> None:
        super().__init__(config, seed)
        self.plan, self.parts = self.planned(config, self.size, **options)
        stages = {n: stage(config, self.parts, n) for n in self.plan.stages_of(self.rank)}
        load(stages.values(), seed, device())
        self.own = named_parameters(stages.values())
        self.module = self.mechanism(stages)

    def mechanism(self, stages: Mapping[int, Stage]) -> Any:
        """What runs the stages of this rank: it has `backward` and `wait`."""
        return Pipeline(stages, self.plan, self.config.dim, tied=self.tied())

    def tied(self) -> nn.Parameter | None:
        """The matrix that the first and the last rank both hold, on these two."""
        ends = self.rank in (0, self.size - 1) and self.config.tie_embeddings
        return self.own["embedding.weight"] if ends else None

    def backward(self, data: Tensor) -> Tensor:
        """All micro-batches through all stages; the last stage's rank has the loss."""
        must_fit(len(data), self.plan.micro)
        loss = self.module.backward(data[:, :-1], data[:, 1:])
        self.module.wait()
        return loss

    def parameters(self) -> list[nn.Parameter]:
        """Those of this rank's stages."""
        return list(self.own.values())

    def whole_gradients(self) -> dict[str, Tensor]:
        """Each from the rank that holds it."""
        return self._whole({name: p.grad for name, p in self.own.items()})

    def whole_parameters(self) -> dict[str, Tensor]:
        """Likewise."""
        return self._whole({name: p.detach() for name, p in self.own.items()})

    def _whole(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for name, like in Llama(self.config, device="meta").named_parameters():
            holder = self.plan.rank_of(self._stage_of(name))
            mine = holder == self.rank
            found[name] = own[name].clone() if mine else torch.empty_like(like, device=device())
            distributed.broadcast(found[name], holder)
        return found

    def _stage_of(self, name: str) -> int:
        part, _, rest = name.partition(".")
        if part == "layers":
            layer = int(rest.partition(".")[0])
            return next(n for n, layers in enumerate(self.parts) if layer in layers)
        return 0 if part == "embedding" else self.plan.stages - 1

    @classmethod
    def planned(
        cls,
        config: LlamaConfig,
        ranks: int,
        micro: int | None = None,
        interleave: int | None = None,
        layers: Sequence[int] | None = None,
    ) -> Planned:
        """The schedule, and the layers of each stage. Raises UserError as schedules.schedule and stage.split do."""
        plan = schedule(
            cls.order,
            ranks,
            ranks if micro is None else micro,
            cls.interleave if interleave is None else interleave,
        )
        return plan, split(config.layers, plan.stages, layers)

    @classmethod
    def holds(cls, config: LlamaConfig, rank: int, ranks: int, **options: Any) -> Bytes:
        """16 bytes a parameter of this rank's stages; tied embeddings on the first and on the last."""
        plan, parts = cls.planned(config, ranks, **options)
        whole, D = counts.parameters(config), config.dim
        layer = (whole.attention + whole.feed_forward + whole.norms - D) // config.layers
        held = layer * sum(len(parts[n]) for n in plan.stages_of(rank))
        first, last = rank == 0, rank == ranks - 1
        if first or (last and config.tie_embeddings):
            held += whole.embedding
        if last:
            held += whole.output + D
        return {"parameters": 4 * held, "gradients": 4 * held, "optimizer": 8 * held}

    @classmethod
    def sends(
        cls, config: LlamaConfig, rank: int, ranks: int, batch: int, tokens: int, **options: Any
    ) -> Bytes:
        """The stream of the whole batch over each boundary of a stage: forward to the next, its gradient to the one
        before; and the gradient of tied embeddings between the ends.
        """
        if ranks == 1:
            return {}
        plan, _ = cls.planned(config, ranks, **options)
        mine = plan.stages_of(rank)
        boundaries = 2 * len(mine) - (0 in mine) - (plan.stages - 1 in mine)
        sent = boundaries * 4 * batch * tokens * config.dim
        if config.tie_embeddings and rank in (0, ranks - 1):
            sent += 4 * config.vocab_size * config.dim
        return {"send": sent}


class GPipe(OneForwardOneBackward):
    """All forwards, then all backwards."""

    order = "gpipe"


class Interleaved(OneForwardOneBackward):
    """1F1B over several stages a rank: `interleave` of them, two by default."""

    order = "interleaved"
    interleave = 2


def stage(config: LlamaConfig, parts: Sequence[range], number: int) -> Stage:
    """Stage `number` of those that hold the layers of `parts`, without memory."""
    return Stage(config, parts[number], first=number == 0, last=number == len(parts) - 1)
