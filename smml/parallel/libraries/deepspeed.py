"""DeepSpeed's ZeRO as strategies, stages 1, 2 and 3, each held to what its documentation claims.

DeepSpeed is an extra (pyproject.toml): nothing here needs it before a strategy is built. Read beside deepspeed 0.19.8.
"""

import importlib.util
import os
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from smml.errors import UserError
from smml.llama import counts
from smml.llama.config import LlamaConfig
from smml.llama.model import Llama
from smml.parallel.collective_tasks import device
from smml.parallel.data_parallel_strategy import DataParallelStrategy
from smml.parallel.equal_shares import must_divide
from smml.parallel.strategy import Bytes, Strategy, adamw

ALIGNMENT = 2  # elements: stages 1 and 2 pad the model to whole multiples of it on every rank
INSTALL = "DS_ACCELERATOR=cpu pip install --no-build-isolation -e .[deepspeed] (without the variable where there are GPUs)"

Settings = Mapping[str, Any]


def library() -> Any:
    """The module deepspeed. Raises UserError where it is not installed."""
    if importlib.util.find_spec("deepspeed") is None:
        raise UserError(f"deepspeed is not installed: {INSTALL}.")
    os.environ.setdefault("DS_ACCELERATOR", device())
    import deepspeed

    return deepspeed


def compile_operators() -> None:
    """A task: on a CPU DeepSpeed compiles an operator when it first meets a process group, which takes a minute or more.

    All ranks must call; give the task time. Raises UserError where DeepSpeed is not installed.
    """
    library().init_distributed(dist_init_required=False)


class DeepSpeedZeRO1(DataParallelStrategy):
    """The optimizer's states are shared: moments and a second copy of the weights in float32, though they are float32.

    `settings` are keys of zero_optimization in DeepSpeed's configuration. `clipping` is the norm to which it scales
    gradients down before an update: 1.0 where a configuration does not say 0, which is another training job.
    """

    stage: ClassVar[int] = 1

    def __init__(
        self,
        config: LlamaConfig,
        seed: int = 0,
        settings: Settings | None = None,
        clipping: float = 0.0,
    ) -> None:
        Strategy.__init__(self, config, seed)
        self.llama = Llama(config, seed=seed).to(device())
        zero = {"stage": self.stage, **(settings or {})}
        self.engine, self.optimizer = engine_around(
            self.llama, {"zero_optimization": zero, "gradient_clipping": clipping}
        )

    def backward(self, data: Tensor) -> Tensor:
        """This rank's sequences; gradients are the mean over ranks."""
        must_divide(self.size, batch=len(data))
        alone_with_its_groups(self.engine)
        mine = data.chunk(self.size)[self.rank]
        loss = self.engine(mine[:, :-1], mine[:, 1:])
        self.engine.backward(loss)
        return loss.detach() / self.size

    def update(self) -> None:
        """Every rank its own part, then weights are gathered."""
        self.engine.step()

    def parameters(self) -> list[nn.Parameter]:
        """The model's."""
        return list(self.llama.parameters())

    def whole_gradients(self) -> dict[str, Tensor]:
        """Gathered by DeepSpeed."""
        from deepspeed.utils import safe_get_full_grad

        return {name: safe_get_full_grad(p) for name, p in self.llama.named_parameters()}

    def whole_parameters(self) -> dict[str, Tensor]:
        """The model's own, gathered where they are sharded."""
        with library().zero.GatheredParameters(self.parameters()):
            return {name: p.detach().clone() for name, p in self.llama.named_parameters()}

    def held(self) -> Bytes:
        """Storages that last from backward to update; the buffers of its buckets, which are as large as set, do not count."""
        kept = self.optimizer.averaged_gradients.values()
        gradients = [tensor for group in kept if group is not None for tensor in group]
        gradients += [p.grad for p in self.parameters() if p.grad is not None]
        states = self.optimizer.optimizer.state.values()
        moments = [t for s in states for t in s.values() if isinstance(t, Tensor) and t.dim()]
        return {
            "parameters": _bytes(self._weights()),
            "gradients": _bytes(gradients),
            "optimizer": _bytes([*self._masters(), *moments]),
        }

    def _weights(self) -> list[Tensor]:
        return [p.data for p in self.parameters()]

    def _masters(self) -> list[Tensor]:
        return self.optimizer.single_partition_of_fp32_groups

    @classmethod
    def holds(cls, config: LlamaConfig, rank: int, ranks: int, **options: Any) -> Bytes:
        """All weights; 12 bytes of states for each of a rank's equal part of them; gradients of parameters that it touches.

        Stage 1 promises no more than the states, but drops the other gradients too, when backward ends.
        """
        whole = _padded(counts.parameters(config).total, ALIGNMENT * ranks)
        part = whole // ranks
        touched = end = 0
        for parameter in Llama(config, device="meta").parameters():
            begin, end = end, end + parameter.numel()
            if begin < (rank + 1) * part and end > rank * part:
                touched += parameter.numel()
        return {"parameters": 4 * whole, "gradients": 4 * touched, "optimizer": 12 * part}

    @classmethod
    def sends(
        cls,
        config: LlamaConfig,
        rank: int,
        ranks: int,
        batch: int,
        tokens: int,
        settings: Settings | None = None,
        **options: Any,
    ) -> Bytes:
        """Every gradient once, all-reduced though each rank needs only a part: use_multi_rank_bucket_allreduce is on by
        default. Off, each part is reduced to the rank that needs it. And the square of the gradients' norm, 4 bytes.
        """
        total = counts.parameters(config).total
        gathered = 4 * _padded(total, ALIGNMENT * ranks)
        if (settings or {}).get("use_multi_rank_bucket_allreduce", True):
            return {"all-reduce": 4 * total + 4, "all-gather": gathered}
        return {"reduce": 4 * total, "all-reduce": 4, "all-gather": gathered}


class DeepSpeedZeRO2(DeepSpeedZeRO1):
    """Also gradients: those of other ranks are dropped bucket by bucket during backward, no longer at its end."""

    stage = 2


class DeepSpeedZeRO3(DeepSpeedZeRO1):
    """Also weights. What it claims is that all three are 1/ranks.

    By default it does not shard a parameter of less than 100,000 elements (stage3_param_persistence_threshold), and frees
    none between forward and backward before 1,000,000,000 are live (stage3_max_live_parameters and
    stage3_max_reuse_distance): a small model stays whole. It is made whole on every rank before it is cut.
    """

    stage = 3

    def _weights(self) -> list[Tensor]:
        return [t for p in self.parameters() for t in (p.data, p.ds_tensor)]

    def _masters(self) -> list[Tensor]:
        return self.optimizer.fp32_partitioned_groups_flat

    @classmethod
    def holds(cls, config: LlamaConfig, rank: int, ranks: int, **options: Any) -> Bytes:
        """This rank's part of each; a parameter is padded to equal parts."""
        part = 4 * _cut(config, ranks) // ranks
        return {"parameters": part, "gradients": part, "optimizer": 3 * part}

    @classmethod
    def sends(
        cls,
        config: LlamaConfig,
        rank: int,
        ranks: int,
        batch: int,
        tokens: int,
        settings: Settings | None = None,
        **options: Any,
    ) -> Bytes:
        """Weights are gathered once, and again for backward where both limits are 0; between, the claim is as by default,
        for models that stay under the limits. Gradients are scattered; the square of their norm is a float64.
        """
        limits = ("stage3_max_live_parameters", "stage3_max_reuse_distance")
        times = 1 if any((settings or {}).get(limit, 1) for limit in limits) else 2
        whole = 4 * _cut(config, ranks)
        return {"all-gather": times * whole, "reduce-scatter": whole, "all-reduce": 8}


def engine_around(module: nn.Module, settings: Settings) -> tuple[Any, Any]:
    """DeepSpeed's engine and optimizer around a module, trained as all strategies are.

    The groups of tensor parallel are the process's: an earlier engine's are forgotten, or this one would take them for its
    own. See `alone_with_its_groups`.
    """
    initialize = library().initialize
    from deepspeed.utils import groups

    groups.mpu = groups._TENSOR_MODEL_PARALLEL_GROUP = None
    groups._MODEL_PARALLEL_GROUP = groups._DATA_PARALLEL_GROUP = None
    engine, optimizer, *_ = initialize(
        model=module,
        optimizer=adamw(list(module.parameters())),
        # It wants to know a batch, and takes whatever it is given.
        config={"train_micro_batch_size_per_gpu": 1, "gradient_clipping": 0.0, **settings},
        dist_init_required=False,
    )
    engine.groups_at_start = groups._TENSOR_MODEL_PARALLEL_GROUP
    return engine, optimizer


def alone_with_its_groups(engine: Any) -> None:
    """Raise UserError where an engine with other groups was built since: this one would reduce over those."""
    from deepspeed.utils import groups

    if groups._TENSOR_MODEL_PARALLEL_GROUP is not engine.groups_at_start:
        raise UserError(
            "DeepSpeed holds the groups of one engine a process, and another was built since: use AutoTP and ZeRO one "
            "after the other, not in turns."
        )


def _cut(config: LlamaConfig, ranks: int) -> int:
    """Elements of all parameters, each padded to parts of equal size."""
    return sum(_padded(p.numel(), ranks) for p in Llama(config, device="meta").parameters())


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages that these lie in, each counted once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
