"""ZeRO as strategies: a Llama in `ZeRO`, a layer a unit, each rank its part of the batch."""

from typing import Any, ClassVar

from torch import Tensor, nn

from smml.llama.config import LlamaConfig
from smml.llama.model import Llama
from smml.parallel import initial
from smml.parallel.collective_tasks import device
from smml.parallel.equal_shares import must_divide
from smml.parallel.strategy import Bytes, Strategy
from smml.parallel.zero import ZeRO
from smml.parallel.zero_sizes import padded, unit_sizes


class ZeRO1(Strategy):
    """The optimizer's moments are shared; `per_layer=False` makes the whole model one unit."""

    stage: ClassVar[int] = 1

    def __init__(self, config: LlamaConfig, seed: int = 0, per_layer: bool = True) -> None:
        super().__init__(config, seed)
        module = Llama(config, device="meta")
        module.rope_cos, module.rope_sin = initial.rope_tables(config, device())
        units = module.layers if per_layer else ()
        self.module = ZeRO(module, units, self.stage, device=device())
        for name, weight in initial.weights(config, seed):
            self.module.load(name, weight)

    def backward(self, data: Tensor) -> Tensor:
        """This rank's sequences; gradients are the mean over ranks."""
        must_divide(self.size, batch=len(data))
        mine = data.chunk(self.size)[self.rank]
        loss = self.module(mine[:, :-1], mine[:, 1:])
        loss.backward()
        self.module.wait()
        return loss.detach() / self.size

    def update(self) -> None:
        """Every rank its own part."""
        super().update()
        self.module.updated()

    def parameters(self) -> list[nn.Parameter]:
        """One vector a unit: this rank's part of it."""
        return self.module.shards()

    def whole_gradients(self) -> dict[str, Tensor]:
        """Gathered from all."""
        return self.module.whole(gradients=True)

    def whole_parameters(self) -> dict[str, Tensor]:
        """Gathered from all."""
        return self.module.whole()

    def held(self) -> Bytes:
        """Also what is whole."""
        return super().held() | self.module.held()

    @classmethod
    def holds(
        cls, config: LlamaConfig, rank: int, ranks: int, per_layer: bool = True, **options: Any
    ) -> Bytes:
        """4 + 4 + 8 bytes a parameter, of which each stage shares one more: 8, 4 + 8, 4 + 4 + 8."""
        whole = 4 * sum(padded(size, ranks) for size in unit_sizes(config, per_layer))
        share = whole // ranks
        return {
            "parameters": whole if cls.stage < 3 else share,
            "gradients": whole if cls.stage < 2 else share,
            "optimizer": 2 * share,
        }

    @classmethod
    def sends(
        cls,
        config: LlamaConfig,
        rank: int,
        ranks: int,
        batch: int,
        tokens: int,
        per_layer: bool = True,
        **options: Any,
    ) -> Bytes:
        """Gradients are reduced once; parameters are gathered once, at stage 3 a layer's twice: forward and backward."""
        *layers, root = (4 * padded(size, ranks) for size in unit_sizes(config, per_layer))
        times = 2 if cls.stage == 3 else 1
        return {"all-gather": times * sum(layers) + root, "reduce-scatter": sum(layers) + root}


class ZeRO2(ZeRO1):
    """Gradients are shared too: a rank keeps the reduced ones of its part."""

    stage = 2


class ZeRO3(ZeRO1):
    """Parameters are shared too: a rank has those of a layer while the layer computes."""

    stage = 3
