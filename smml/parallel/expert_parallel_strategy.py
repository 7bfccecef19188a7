"""Expert parallel as a strategy, and the same mixture of experts undivided: alone, and data parallel."""

from typing import Any

from torch import Tensor, distributed, nn

from smml.errors import UserError
from smml.llama.config import LlamaConfig
from smml.parallel.alone import Alone
from smml.parallel.collective_tasks import device
from smml.parallel.data_parallel import DataParallel
from smml.parallel.data_parallel_strategy import DataParallelStrategy
from smml.parallel.equal_shares import must_divide
from smml.parallel.expert_parallel import ExpertParallelLlama
from smml.parallel.mixture import STACKED, MixtureLlama, parameters
from smml.parallel.strategy import Bytes, Strategy

COUNT_BYTES = 8  # of a number of tokens, int64


class ExpertParallelStrategy(Strategy):
    """experts / p of the experts on a rank; options are those of MixtureLlama."""

    def __init__(self, config: LlamaConfig, seed: int = 0, **options: Any) -> None:
        super().__init__(config, seed)
        self.module = ExpertParallelLlama(config, seed=seed, **options).to(device())

    def backward(self, data: Tensor) -> Tensor:
        """This rank's sequences, whose tokens travel to their experts."""
        must_divide(self.size, batch=len(data))
        mine = data.chunk(self.size)[self.rank]
        loss = self.module(mine[:, :-1], mine[:, 1:])
        loss.backward()
        self.module.wait()
        return loss.detach()

    def parameters(self) -> list[nn.Parameter]:
        """All that is no expert, and this rank's experts."""
        return list(self.module.parameters())

    def whole_gradients(self) -> dict[str, Tensor]:
        """Experts are gathered."""
        return {name: self._whole(name, p.grad) for name, p in self.module.named_parameters()}

    def whole_parameters(self) -> dict[str, Tensor]:
        """Experts are gathered."""
        return {name: self._whole(name, p.detach()) for name, p in self.module.named_parameters()}

    def _whole(self, name: str, part: Tensor) -> Tensor:
        if not name.endswith(STACKED):
            return part
        whole = part.new_empty(self.size * len(part), *part.shape[1:])
        distributed.all_gather_into_tensor(whole, part.contiguous())
        return whole

    @classmethod
    def reference(cls, config: LlamaConfig, seed: int, **options: Any) -> nn.Module:
        """All experts in one process."""
        return MixtureLlama(config, seed=seed, **options)

    @classmethod
    def holds(
        cls, config: LlamaConfig, rank: int, ranks: int, experts: int = 8, **options: Any
    ) -> Bytes:
        """16 bytes for each of the shared parameters and 1/p of the experts'."""
        held = 4 * parameters(config, experts).held(ranks)
        return {"parameters": held, "gradients": held, "optimizer": 2 * held}

    @classmethod
    def sends(
        cls,
        config: LlamaConfig,
        rank: int,
        ranks: int,
        batch: int,
        tokens: int,
        experts: int = 8,
        top_k: int = 2,
        came: int | None = None,
        **options: Any,
    ) -> Bytes:
        """Each choice of a token crosses four times: there and back, and its gradients; half of it leaves from its own rank,
        half from where it came to. `came`: choices that come to this rank in a forward, in all layers (None: its equal part).
        Beside it travel the counts of every layer, and the gradients of what all hold.
        """
        own = config.layers * batch * tokens * top_k // ranks
        return {
            "all-to-all": 2 * (own + (own if came is None else came)) * config.dim * 4,
            "all-gather": config.layers * ranks * experts * COUNT_BYTES,
            "all-reduce": 4 * parameters(config, experts).shared,
        }

    @classmethod
    def decided(cls, one: nn.Module, rank: int, ranks: int) -> dict[str, Any]:
        """Choices that the unsharded router made for this rank's experts."""
        return {"came": int(one.loads().chunk(ranks, dim=1)[rank].sum())}


class MixtureAlone(Alone):
    """Every rank all experts and the whole batch."""

    def __init__(self, config: LlamaConfig, seed: int = 0, **options: Any) -> None:
        Strategy.__init__(self, config, seed)
        self.module = MixtureLlama(config, seed=seed, **options).to(device())

    reference = ExpertParallelStrategy.reference

    @classmethod
    def holds(
        cls, config: LlamaConfig, rank: int, ranks: int, experts: int = 8, **options: Any
    ) -> Bytes:
        """What one process holds."""
        return ExpertParallelStrategy.holds(config, rank, 1, experts)


class MixtureDataParallel(DataParallelStrategy):
    """Every rank all experts and a part of the batch. Raises UserError for `balance`: each part's is not the whole's."""

    def __init__(self, config: LlamaConfig, seed: int = 0, **options: Any) -> None:
        Strategy.__init__(self, config, seed)
        if options.get("balance"):
            raise UserError(
                "data parallel would balance every rank's part by itself: leave balance out, or use expert parallel."
            )
        self.module = DataParallel(MixtureLlama(config, seed=seed, **options).to(device()))

    reference = ExpertParallelStrategy.reference
    holds = MixtureAlone.holds

    @classmethod
    def sends(
        cls,
        config: LlamaConfig,
        rank: int,
        ranks: int,
        batch: int,
        tokens: int,
        experts: int = 8,
        **options: Any,
    ) -> Bytes:
        """Every gradient once, also of experts that no token met."""
        return {"all-reduce": 4 * parameters(config, experts).total}
