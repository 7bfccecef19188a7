"""How: the job, and how it is laid over the ranks. Pure; a layout that cannot be names the field that is wrong."""

from dataclasses import dataclass
from typing import Literal

from smml.errors import UserError
from smml.plan.shape import ModelShape

Recompute = Literal["none", "selective", "full"]
Engine = Literal["eager", "fused", "compiled"]
Attention = Literal["unfused", "flash1", "flash", "flash3"]
Overlap = Literal["none", "backward", "full"]
DTYPES = ("fp16", "bf16", "fp8")


@dataclass(frozen=True)
class Job:
    """What is trained: `global_batch_size` sequences of `sequence_length` tokens a step.

    `dtype`: bf16, fp16, or fp8 for the layers' linear products. `engine`: eager PyTorch, hand-fused kernels (Megatron)
    or torch.compile. `attention`: scores through memory, FlashAttention-1, 2, or 3 (cuDNN). `compiled_loss`: logits
    are not copied in float32. Raises UserError naming the field.
    """

    shape: ModelShape
    sequence_length: int
    global_batch_size: int
    dtype: str = "bf16"
    engine: Engine = "compiled"
    attention: Attention = "flash"
    compiled_loss: bool = False

    def __post_init__(self) -> None:
        _counts(self, "sequence_length", "global_batch_size")
        _one_of("dtype", self.dtype, DTYPES)
        _one_of("engine", self.engine, ("eager", "fused", "compiled"))
        _one_of("attention", self.attention, ("unfused", "flash1", "flash", "flash3"))
        positions = self.shape.learned_positions
        if positions and self.sequence_length > positions:
            raise UserError(
                f"sequence_length is {self.sequence_length}: {self.shape.name} has {positions} learned positions. "
                "Give no more than these."
            )

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step."""
        return self.global_batch_size * self.sequence_length


@dataclass(frozen=True)
class Layout:
    """Ranks in the order tensor (innermost), context, data, pipeline; experts lie along context and data.

    `zero_stage`: 0 nothing sharded, 1 optimizer, 2 and gradients, 3 and parameters (FSDP), over `shard_ranks` ranks of
    the data × context group (0: all of them; fewer is HSDP). `interleave`: model chunks a pipeline stage.
    `gradient_bytes`: of what a rank sums over micro-batches and sends.
    `overlap_tensor`: which tensor-parallel collectives run beside products. `recompute` "selective" is, with unfused
    attention, the scores (arXiv:2205.05198), else every second product and all between (torchtitan).
    """

    data_parallel: int = 1
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    context_parallel: int = 1
    expert_parallel: int = 1
    micro_batch_size: int = 1
    interleave: int = 1
    sequence_parallel: bool = False
    zero_stage: int = 1
    shard_ranks: int = 0
    recompute: Recompute = "none"
    overlap_tensor: Overlap = "backward"
    overlap_data: bool = True
    overlap_pipeline: bool = False
    gradient_bytes: int = 4

    def __post_init__(self) -> None:
        _counts(
            self,
            *("data_parallel", "tensor_parallel", "pipeline_parallel", "context_parallel"),
            *("expert_parallel", "micro_batch_size", "interleave"),
        )
        _one_of("zero_stage", self.zero_stage, (0, 1, 2, 3))
        _one_of("gradient_bytes", self.gradient_bytes, (2, 4))
        _one_of("recompute", self.recompute, ("none", "selective", "full"))
        _one_of("overlap_tensor", self.overlap_tensor, ("none", "backward", "full"))
        if self.shard_ranks and (self.data_parallel * self.context_parallel) % self.shard_ranks:
            raise UserError(
                f"shard_ranks is {self.shard_ranks}: it must divide data_parallel × context_parallel = "
                f"{self.data_parallel * self.context_parallel}, or be 0 for all of them. Change it."
            )

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return (
            self.data_parallel
            * self.tensor_parallel
            * self.pipeline_parallel
            * self.context_parallel
        )

    @property
    def replicas(self) -> int:
        """Ranks that hold the same part of the model: data × context."""
        return self.data_parallel * self.context_parallel

    @property
    def shards(self) -> int:
        """Ranks over which a ZeRO stage spreads its state."""
        return (self.shard_ranks or self.replicas) if self.zero_stage else 1

    def micro_batches(self, job: Job) -> int:
        """Micro-batches that one pipeline passes through in a step."""
        return job.global_batch_size // (self.data_parallel * self.micro_batch_size)

    def chunk_layers(self, shape: ModelShape) -> int:
        """Layers of the largest model chunk."""
        return -(-shape.layers // (self.pipeline_parallel * self.interleave))

    def held_parameters(self, shape: ModelShape) -> tuple[float, float]:
        """Parameters of the fullest rank before replicas share anything: dense ones with an end's, and experts'."""
        t = self.tensor_parallel
        layers = self.chunk_layers(shape) * self.interleave
        experts = shape.experts * shape.expert_parameters if shape.experts > 1 else 0
        ends = shape.end_parameters if self.pipeline_parallel == 1 else shape.vocab_size * shape.dim
        dense = layers * (shape.layer_parameters - experts) + ends
        return dense / t, layers * experts / t / self.expert_parallel

    def owned_parameters(self, shape: ModelShape) -> float:
        """Of `held_parameters` those that one of `shards` ranks owns; experts have fewer copies to share among."""
        dense, experts = self.held_parameters(shape)
        return dense / self.shards + experts / max(1, self.shards // self.expert_parallel)

    def problem(self, job: Job, gpus: int) -> str | None:
        """Why this layout cannot carry the job on `gpus` accelerators, naming the field; None where it can."""
        shape, t, p = job.shape, self.tensor_parallel, self.pipeline_parallel
        if self.world_size != gpus:
            return f"data_parallel × tensor_parallel × pipeline_parallel × context_parallel is {self.world_size}, gpus is {gpus}"
        per_step = self.data_parallel * self.micro_batch_size
        if job.global_batch_size % per_step:
            return f"global_batch_size {job.global_batch_size} is no multiple of data_parallel × micro_batch_size = {per_step}"
        if shape.heads % t or (shape.kv_heads % t and t % shape.kv_heads):
            return f"tensor_parallel {t} does not divide heads {shape.heads} or fit kv_heads {shape.kv_heads}"
        if shape.feed_forward_dim % t:
            return f"tensor_parallel {t} does not divide feed_forward_dim {shape.feed_forward_dim}"
        # The embedding and the logits may stand where a first and a last layer would (arXiv:2407.21783, section 3.3.2).
        if p * self.interleave > shape.layers + 2:
            return f"pipeline_parallel {p} × interleave {self.interleave} exceeds layers {shape.layers} and the two ends"
        if self.interleave > 1 and p == 1:
            return f"interleave {self.interleave} needs pipeline_parallel above 1"
        if self.interleave > 1 and self.micro_batches(job) < p:
            return f"interleave {self.interleave} needs at least pipeline_parallel {p} micro-batches, there are {self.micro_batches(job)}"
        if self.context_parallel > 1 and job.sequence_length % (2 * self.context_parallel):
            return f"context_parallel {self.context_parallel} cannot halve and deal sequence_length {job.sequence_length}"
        if self.context_parallel > 1 and job.attention == "unfused":
            return "context_parallel above 1 needs attention 'flash' or 'flash3'"
        if self.sequence_parallel and t == 1:
            return "sequence_parallel needs tensor_parallel above 1"
        if (
            self.sequence_parallel
            and (self.micro_batch_size * job.sequence_length // self.context_parallel) % t
        ):
            return f"sequence_parallel: tensor_parallel {t} does not divide the tokens of a micro-batch"
        if shape.experts % self.expert_parallel:
            return f"expert_parallel {self.expert_parallel} does not divide experts {shape.experts}"
        if self.replicas % self.expert_parallel:
            return f"expert_parallel {self.expert_parallel} does not divide data_parallel × context_parallel = {self.replicas}"
        return None

    def check(self, job: Job, gpus: int) -> None:
        """Raise UserError where `problem` finds one."""
        if problem := self.problem(job, gpus):
            raise UserError(f"{problem}. Change one of them.")

    def __str__(self) -> str:
        parts = [
            f"{name}{value}"
            for name, value in (
                ("dp", self.data_parallel),
                ("tp", self.tensor_parallel),
                ("pp", self.pipeline_parallel),
                ("cp", self.context_parallel),
                ("ep", self.expert_parallel),
            )
            if value > 1
        ]
        parts = parts or ["dp1"]
        parts += [f"v{self.interleave}"] * (self.interleave > 1) + ["sp"] * self.sequence_parallel
        parts += [f"zero{self.zero_stage}", f"mbs{self.micro_batch_size}"]
        return " ".join([*parts, f"recompute {self.recompute}"])


def _counts(holder: object, *fields: str) -> None:
    for field in fields:
        value = getattr(holder, field)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{field} is {value!r}: give a whole number of 1 or more.")


def _one_of(field: str, value: object, allowed: tuple) -> None:
    if value not in allowed or isinstance(value, bool):
        raise UserError(
            f"{field} is {value!r}: there are {', '.join(map(str, allowed))}. Choose one."
        )
