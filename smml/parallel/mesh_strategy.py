"""Strategies combined: each axis of a mesh (mesh.py) has its own, and each wraps what the one inside of it has made.

tensor      a narrower Llama on every rank                    TensorParallelLlama
pipeline    some of its layers                                Stage, run by Pipeline
data        gradients averaged over ranks that hold the same  DataParallel, or ZeRO, which also cuts what they hold
context     sequences cut too: one more axis to average over  ContextParallelLlama
"""

from collections.abc import Mapping

import torch
from torch import Tensor, distributed, nn

from smml.errors import UserError
from smml.llama.config import LlamaConfig
from smml.llama.model import Llama
from smml.parallel import initial
from smml.parallel.collective_tasks import device
from smml.parallel.context_parallel import ContextParallelLlama
from smml.parallel.data_parallel import DataParallel
from smml.parallel.equal_shares import must_divide
from smml.parallel.mesh import grid, mesh, place
from smml.parallel.mesh_counts import held_bytes, sent_bytes, shares
from smml.parallel.pipeline.pipeline import Pipeline
from smml.parallel.pipeline.schedules import schedule
from smml.parallel.pipeline.stage import Stage, load, named_parameters, split
from smml.parallel.strategy import Bytes, Strategy
from smml.parallel.tensor_cut import cut
from smml.parallel.tensor_parallel import TensorParallelLlama, put_together
from smml.parallel.zero import ZeRO


class MeshStrategy(Strategy):
    """One Llama on a mesh. Options: the size of each of AXES, those left out being 1; `zero`, a stage of ZeRO for the data
    axis (0: none); `micro`, the pipeline's micro-batches. Raises UserError for what cannot be combined.
    """

    def __init__(
        self, config: LlamaConfig, seed: int = 0, zero: int = 0, micro: int = 1, **axes: int
    ) -> None:
        super().__init__(config, seed)
        self.sizes, self.micro = grid(axes, self.size), micro
        possible(self.sizes, zero)
        shares(config, self.sizes)
        self.at = place(self.sizes, self.rank)
        self.mesh = mesh(self.sizes)
        self.model = self._model()
        self.own: dict[str, nn.Parameter] = {}
        if self.sizes["pipeline"] > 1:
            self.module = self._pipeline()
        elif zero:
            self.module = ZeRO(self.model, self.model.layers, zero, self.mesh["data"].get_group())
        else:
            self.own = dict(self.model.named_parameters())
            # Ranks along context hold the same weights as those along data, and no others: tensor is 1 then.
            group = None if self.sizes["context"] > 1 else self.mesh["data"].get_group()
            self.module = DataParallel(self.model, group=group)

    def _model(self) -> Llama:
        """What the tensor axis makes of the Llama; without memory where the pipeline takes only some of it."""
        where = "meta" if self.sizes["pipeline"] > 1 else device()
        if self.sizes["tensor"] > 1:
            group = self.mesh["tensor"].get_group()
            return TensorParallelLlama(self.config, self.seed, group, device=where)
        if self.sizes["context"] > 1:
            group = self.mesh["context"].get_group()
            return ContextParallelLlama(self.config, group=group, seed=self.seed).to(device())
        return Llama(self.config, device=where, seed=self.seed)

    def _pipeline(self) -> Pipeline:
        ranks, number = self.sizes["pipeline"], self.at["pipeline"]
        parts = split(self.config.layers, ranks)
        stage = stage_of(self.model, parts[number], first=number == 0, last=number == ranks - 1)
        if self.sizes["tensor"] > 1:
            self._load(stage)
        else:
            load([stage], self.seed, device())
        self.own = named_parameters([stage])
        ends = number in (0, ranks - 1) and self.config.tie_embeddings
        return Pipeline(
            {number: DataParallel(stage, group=self.mesh["data"].get_group())},
            schedule("1f1b", ranks, self.micro),
            self.config.dim,
            self.mesh["pipeline"].get_group(),
            self.own["embedding.weight"] if ends else None,
        )

    @torch.no_grad()
    def _load(self, stage: Stage) -> None:
        """Memory for a stage of a narrower Llama, and this rank's parts of its weights."""
        stage.to_empty(device=device())
        stage.rope_cos, stage.rope_sin = initial.rope_tables(self.config, device())
        own = named_parameters([stage])
        for name, whole in initial.weights(self.config, self.seed, device()):
            if name in own:
                how = cut(name, self.config)
                mine = how.part(whole, self.at["tensor"], self.sizes["tensor"]) if how else whole
                own[name].copy_(mine)

    def backward(self, data: Tensor) -> Tensor:
        """The sequences of this rank's place along data, through all that the other axes share."""
        must_divide(self.sizes["data"], batch=len(data))
        mine = data.chunk(self.sizes["data"])[self.at["data"]]
        tokens, targets = mine[:, :-1], mine[:, 1:]
        # Ranks along pipeline add up to one loss; all others have one each, and its mean counts.
        losses = self.size // self.sizes["pipeline"]
        if isinstance(self.module, Pipeline):
            loss = self.module.backward(tokens, targets)
        else:
            loss = self.module(tokens, targets)
            loss.backward()
        self.module.wait()
        return loss.detach() / losses

    def update(self) -> None:
        """AdamW on what this rank holds."""
        super().update()
        if isinstance(self.module, ZeRO):
            self.module.updated()

    def parameters(self) -> list[nn.Parameter]:
        """This rank's stage, or shards, of its narrower Llama."""
        return self.module.shards() if isinstance(self.module, ZeRO) else list(self.own.values())

    def held(self) -> Bytes:
        """With ZeRO also what is whole along data."""
        more = self.module.held() if isinstance(self.module, ZeRO) else {}
        return super().held() | more

    def whole_gradients(self) -> dict[str, Tensor]:
        """Put together along tensor, then taken from the stage that has them."""
        if isinstance(self.module, ZeRO):
            return self._whole(self.module.whole(gradients=True))
        return self._whole({name: p.grad for name, p in self.own.items()})

    def whole_parameters(self) -> dict[str, Tensor]:
        """Likewise."""
        if isinstance(self.module, ZeRO):
            return self._whole(self.module.whole())
        return self._whole({name: p.detach() for name, p in self.own.items()})

    def _whole(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.sizes["tensor"] > 1:
            sharing = self.model.sharing
            own = {n: put_together(n, part, self.config, sharing) for n, part in own.items()}
        if self.sizes["pipeline"] == 1:
            return dict(own)
        group, found = self.mesh["pipeline"].get_group(), {}
        for name, like in Llama(self.config, device="meta").named_parameters():
            holders: list[bool | None] = [None] * self.sizes["pipeline"]
            distributed.all_gather_object(holders, name in own, group)
            found[name] = (
                own[name].clone() if name in own else torch.empty_like(like, device=device())
            )
            distributed.broadcast(found[name], group=group, group_src=holders.index(True))
        return found

    @classmethod
    def holds(
        cls, config: LlamaConfig, rank: int, ranks: int, zero: int = 0, micro: int = 1, **axes: int
    ) -> Bytes:
        """16 bytes for each parameter of this rank's layers of the narrower Llama, cut along data as ZeRO's stage says."""
        sizes = grid(axes, ranks)
        return held_bytes(config, sizes, place(sizes, rank), zero)

    @classmethod
    def sends(
        cls,
        config: LlamaConfig,
        rank: int,
        ranks: int,
        batch: int,
        tokens: int,
        zero: int = 0,
        micro: int = 1,
        **axes: int,
    ) -> Bytes:
        """The sum of what the axes send, each for the part that the others leave it."""
        sizes = grid(axes, ranks)
        return sent_bytes(config, sizes, place(sizes, rank), batch, tokens, zero)


def possible(sizes: Mapping[str, int], zero: int) -> None:
    """Raise UserError for axes that this file does not combine, naming them."""
    met = [axis for axis in ("pipeline", "tensor") if sizes[axis] > 1]
    if sizes["context"] > 1 and met:
        raise UserError(
            f"a mesh with context and {' and '.join(met)} is not built: combine context with data."
        )
    if zero and (met := [axis for axis in ("pipeline", "context") if sizes[axis] > 1]):
        raise UserError(
            f"ZeRO with {' and '.join(met)} is not built: combine it with tensor, or give zero=0."
        )


def stage_of(model: Llama, layers: range, *, first: bool, last: bool) -> Stage:
    """The stage that holds these layers of a model that has no memory yet, its own modules and operations."""
    stage = Stage(model.config, layers, first=first, last=last, ops=model.ops)
    for name in ("embedding", "norm", "output"):
        if hasattr(stage, name):
            setattr(stage, name, getattr(model, name))
    for number in layers:
        stage.layers[str(number)] = model.layers[number]
    return stage
