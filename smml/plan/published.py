"""A row of a table of published runs → cluster, job, layout and what was measured. Pure; errors name row and column.

Columns as in smml/data/calibration/*.csv, in any order and mixture; an empty or missing one is not stated. Beside those
there: cp, ep, zero, attention, compiled_loss, overlap_tensor, overlap_data, overlap_pipeline, network, network_gbit_per_s, gpus_per_node, head_dim,
tie_embeddings, experts, experts_per_token, tokens. What a row does not state is assumed as `read_row` says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from smml.errors import UserError
from smml.plan.cluster import LATE, Cluster, cluster
from smml.plan.layout import Job, Layout
from smml.plan.shape import CONVENTIONS, NAMES, Convention, ModelShape, named_shape

ENGINES = {"": "", "compile": "compiled", "torch.compile": "compiled", "inductor": "compiled"}
ENGINES |= {"megatron": "fused", "nemo": "fused", "transformer-engine": "fused"}
DTYPES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "float8": "fp8",
    "amp_bf16": "bf16",
    "amp_fp8": "fp8",
}
YES = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class Published:
    """One measured quantity of one published run."""

    source: str
    cluster: Cluster
    job: Job
    layout: Layout
    metric: str
    value: float
    unit: str
    convention: Convention
    tokens: float | None = None


class _Row:
    """The cells of a row; a wrong one is an error that names it."""

    def __init__(self, cells: Mapping[str, str | None], where: str) -> None:
        self.cells = {
            key.strip(): (value or "").strip() for key, value in cells.items() if key is not None
        }
        self.where = where

    def text(self, column: str, default: str = "") -> str:
        return self.cells.get(column) or default

    def error(self, column: str, wanted: str) -> UserError:
        given = self.cells.get(column)
        return UserError(f"{self.where}, column {column}: {given!r}; {wanted}. Correct it there.")

    def number(self, column: str, default: float | None = None) -> float:
        said = self.text(column)
        if not said and default is not None:
            return default
        try:
            value = float(said)
        except ValueError:
            raise self.error(column, "a number is needed") from None
        if not 0 <= value < float("inf"):
            raise self.error(column, "a number of 0 or more is needed")
        return value

    def count(self, column: str, default: int | None = None) -> int:
        value = self.number(column, default)
        if value != int(value) or value < 1:
            raise self.error(column, "a whole number of 1 or more is needed")
        return int(value)

    def flag(self, column: str, default: bool = False) -> bool:
        said = self.text(column).lower()
        if not said:
            return default
        if said not in YES:
            raise self.error(column, "1 or 0 is needed")
        return YES[said]


def read_row(cells: Mapping[str, str | None], where: str = "row") -> list[Published]:
    """What a row measured: its metric, and its peak memory where that stands beside.

    Assumed where not stated: FSDP alone is eager PyTorch, with tensor or pipeline parallelism, or without FSDP, kernels
    are hand-fused (Megatron and its like). Of those, fp16 GPTs are from before FlashAttention and sum whole gradients
    after backward; others shard the optimizer, and on Hopper and later have cuDNN's attention, split the sequence among
    tensor-parallel ranks, overlap pipeline sends, in FP8 or without FSDP (Transformer Engine) all tensor-parallel
    messages too, and interleave layer by layer where there are enough micro-batches. FSDP shards parameters (zero 3); a
    GPT in eager PyTorch under it is of 2023 and has FlashAttention-1. NeMo sums gradients in 16 bits. A GPT ties its
    embeddings and learns its positions. Raises UserError naming row and column.
    """
    row = _Row(cells, where)
    gpus = row.count("gpus")
    place = cluster(
        row.text("accelerator"),
        gpus,
        network=row.text("network").lower() or None,
        network_gbit_per_s=row.number("network_gbit_per_s", 0.0) or None,
        gpus_per_node=int(row.number("gpus_per_node", 0)) or None,
    )
    shape = _shape(row)
    sharded = int(row.number("fsdp", 0))
    fsdp = sharded > 0
    t, p, c = row.count("tp", 1), row.count("pp", 1), row.count("cp", 1)
    if gpus % (t * p * c):
        raise row.error("gpus", f"tp × pp × cp = {t * p * c} must divide it")
    data = gpus // (t * p * c)
    micro = row.count("micro_batch", 1)
    dtype = row.text("dtype", "bf16").lower()
    dtype = DTYPES.get(dtype, dtype)
    engine = row.text("engine").lower()
    nemo = engine == "nemo"
    engine = ENGINES.get(engine, engine) or ("eager" if fsdp and t * p == 1 else "fused")
    early = dtype == "fp16" and not shape.gated and not fsdp
    late = engine == "fused" and place.accelerator.architecture.split()[0] in LATE
    # FSDP with tensor parallelism is torchtitan's, which always splits the sequence too, as NeMo's recipes do.
    split = row.flag("sequence_parallel", fsdp or late) and t > 1
    batch = row.count("global_batch", micro * data)
    enough = late and p > 1 and batch >= p * data * micro
    chunks = -(-shape.layers // p) if enough else 1
    first = fsdp and engine == "eager" and not shape.gated
    assumed = "unfused" if early else "flash1" if first else "flash3" if late else "flash"
    layout = Layout(
        data_parallel=data,
        tensor_parallel=t,
        pipeline_parallel=p,
        context_parallel=c,
        expert_parallel=row.count("ep", 1),
        micro_batch_size=micro,
        interleave=row.count("interleave", chunks),
        sequence_parallel=split,
        zero_stage=int(row.number("zero", 3 if fsdp else 0 if early else 1)),
        shard_ranks=sharded * c if 0 < sharded < data else 0,
        recompute=row.text("recompute", "none").lower(),
        overlap_tensor=row.text(
            "overlap_tensor",
            "full" if late and (dtype == "fp8" or (split and not fsdp)) else "backward",
        ),
        overlap_data=row.flag("overlap_data", not early),
        overlap_pipeline=row.flag("overlap_pipeline", late),
        gradient_bytes=row.count("gradient_bytes", 2 if nemo else 4),
    )
    job = Job(
        shape,
        row.count("seq"),
        batch,
        dtype,
        engine,
        row.text("attention", assumed).lower(),
        row.flag("compiled_loss"),
    )
    layout.check(job, gpus)
    facts = (row.text("source", where), place, job, layout)
    tokens = row.number("tokens", 0.0) or None
    metric, unit = row.text("metric"), row.text("unit")
    convention = _convention(row.text("flop_convention").lower(), metric)
    found = [Published(*facts, metric, row.number("value"), unit, convention, tokens)]
    if row.text("peak_memory_gib"):
        found.append(
            Published(*facts, "peak_memory", row.number("peak_memory_gib"), "GiB", convention)
        )
    return found


def _shape(row: _Row) -> ModelShape:
    name = row.text("model", "model")
    if name in NAMES and not row.text("layers"):
        shape = named_shape(name)
        positions = max(shape.learned_positions, row.count("seq")) if not shape.gated else 0
        return replace(shape, learned_positions=positions)
    gated = row.flag("gated_mlp")
    dim, heads = row.count("hidden"), row.count("heads")
    tied = named_shape(name).tie_embeddings if name in NAMES else not gated
    return ModelShape(
        name=name,
        vocab_size=row.count("vocab"),
        dim=dim,
        layers=row.count("layers"),
        heads=heads,
        kv_heads=row.count("kv_heads", heads),
        head_dim=row.count("head_dim", max(1, dim // heads)),
        feed_forward_dim=row.count("ffn", 4 * dim),
        gated=gated,
        tie_embeddings=row.flag("tie_embeddings", tied),
        learned_positions=0 if gated else row.count("seq"),
        experts=row.count("experts", 1),
        experts_per_token=row.count("experts_per_token", 1),
    )


def _convention(said: str, metric: str) -> Convention:
    """The named convention that a sentence such as "causal attention counted in full" means."""
    if said in CONVENTIONS:
        return said
    if "recompute counted" in said or "hardware" in said or metric == "hfu":
        return "hardware"
    if "6n" in said:
        return "6n"
    if "halved" in said or "half" in said or ("causal" in said and "full" not in said):
        return "causal"
    return "full"
