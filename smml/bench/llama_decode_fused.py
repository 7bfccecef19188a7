"""Decoding with a Llama: tokens per second and share of the bandwidth, fused kernels and narrow weights beside PyTorch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from smml.bench.cuda_graph import captured
from smml.bench.peers import KERNEL, side_by_side
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.llama import counts
from smml.llama.config import CONFIGS, LlamaConfig
from smml.measure import Record
from smml.roofline import Work

if TYPE_CHECKING:  # torch takes seconds to import: `smml bench` names its benches without it
    from torch import Tensor

    from smml.llama.model import Llama

# ‖logits − eager's‖ ÷ ‖eager's‖ that a peer may have on the same weights after one layer; integers round each of them.
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2, 8: 5e-2, 4: 3e-1}
# Random layers amplify what is rounded: through all of them, as many times as much in 16 bits, and integers are lost.
THROUGH_ALL = 10


@dataclass(frozen=True)
class Size:
    """One model at `past` cached tokens, `batches` of sequences; whether torch.compile may take its time there."""

    name: str
    shape: LlamaConfig
    batches: tuple[int, ...]
    past: int
    compiled: bool
    budget_s: float


# On a CPU the path is proven, not measured: kernels are interpreted there, and nothing is compiled.
SIZES = {
    "cpu": (
        Size("tiny", replace(CONFIGS["tiny"], layers=1, vocab_size=256), (1, 2), 16, False, 0.05),
    ),
    # A compiled model of 32 layers would take as long as all the rest of the suite.
    "cuda": (
        Size("1B", CONFIGS["llama-3.2-1b"], (1, 16), 1024, True, 0.3),
        Size("8B", CONFIGS["llama-3.1-8b"], (1, 16), 1024, False, 0.3),
    ),
}


def run(setting: Setting) -> Iterator[Record]:
    """Tokens per second of one step at each size and batch, shares of bandwidth by each one's own bytes, and ratios.

    On a GPU every call but `eager` is a CUDA graph. Weights of 16 bits are shared; those of 8 and 4 are made from them.
    """
    for size in SIZES[setting.device]:
        yield from _of_size(setting, size)


def _of_size(setting: Setting, size: Size) -> Iterator[Record]:
    import torch

    from smml.kernels.llama_ops import FUSED_OPS
    from smml.kernels.quantized_linear import quantize_model
    from smml.llama.model import Llama

    dtype = getattr(torch, setting.profile.dtype)
    plain = Llama(size.shape, device=setting.device, dtype=dtype).eval()
    models = {"eager": plain, KERNEL: with_ops(plain, FUSED_OPS)}
    bits = dict.fromkeys(models, 0)
    for width in (8, 4):
        models[f"{KERNEL}-int{width}"] = quantize_model(with_ops(plain, FUSED_OPS), width)
        bits[f"{KERNEL}-int{width}"] = width
    for batch in size.batches:
        calls = {name: step(model, size.past, batch) for name, model in models.items()}
        shallow = {
            name: step(first_layer(model), size.past, batch) for name, model in models.items()
        }
        _check(shallow, bits, setting.profile.dtype)
        same_weights = {name: call for name, call in calls.items() if not bits[name]}
        _check(same_weights, bits, setting.profile.dtype, THROUGH_ALL)
        timed = {
            name: call if name == "eager" else captured(call, setting.device)
            for name, call in calls.items()
        }
        if setting.device != "cpu":
            timed["eager-graph"] = captured(calls["eager"], setting.device)
        if size.compiled and batch == 1:
            compiled = step(plain, size.past, batch, torch.compile(plain, dynamic=False))
            timed["compiled"] = captured(compiled, setting.device)
        works = {name: work(model, size.past, batch) for name, model in models.items()}
        found = side_by_side(
            setting,
            f"llama-decode/{size.name}/batch-{batch}",
            timed,
            amount=batch,
            unit="tokens/s",
            work=works[KERNEL],
            inputs={"batch": batch, "past": size.past}
            | {"parameters": counts.parameters(size.shape).total},
            ours=KERNEL,
            budget_s=size.budget_s,
        )
        for record in found:
            yield _of_own_work(setting, record, works, batch)


def with_ops(model: "Llama", ops: object) -> "Llama":
    """A model for inference with the parameters of `model` themselves, and other operations."""
    from smml.llama.model import Llama

    other = Llama(model.config, device="meta", dtype=model.embedding.weight.dtype, ops=ops)
    other.load_state_dict(model.state_dict(keep_vars=True), assign=True)
    other.rope_cos, other.rope_sin = model.rope_cos, model.rope_sin
    return other.eval()


def first_layer(model: "Llama") -> "Llama":
    """The same model without its other layers: all that it holds is shared."""
    from smml.llama.model import Llama

    config = replace(model.config, layers=1)
    other = Llama(config, device="meta", dtype=model.embedding.weight.dtype, ops=model.ops)
    other.embedding, other.layers, other.norm = model.embedding, model.layers[:1], model.norm
    if not config.tie_embeddings:
        other.output = model.output
    other.rope_cos, other.rope_sin = model.rope_cos, model.rope_sin
    return other.eval()


def work(model: "Llama", past: int, batch: int) -> Work:
    """FLOPs of one step and its bytes: every tensor of the weights once, as it is stored, rows of a looked-up embedding,
    and the KV cache.
    """
    config, weight = model.config, model.embedding.weight
    moved = counts.decode_bytes(config, batch, past, weight.itemsize)
    held = [*model.parameters(), *model.buffers()]
    tables = model.rope_cos.nbytes + model.rope_sin.nbytes
    weights = sum(t.nbytes for t in held) - tables
    if not config.tie_embeddings:
        weights -= weight.nbytes
    weights += batch * config.dim * weight.itemsize
    written = moved.kv_written
    return Work(counts.decode_flops(config, batch, past), weights + moved.kv_read, written, written)


def step(
    model: "Llama", past: int, batch: int, forward: "Callable[..., Tensor] | None" = None
) -> "Callable[[], Tensor]":
    """A call that decodes one token a sequence at position `past`, again and again, and returns the logits.

    The keys and values before it are random-normal and the same for every call of one shape.
    """
    import torch

    from smml.llama.kv_cache import StaticCache

    weight = model.embedding.weight
    cache = StaticCache(model.config, batch, past + 1, weight.device, weight.dtype)
    generator = torch.Generator(weight.device).manual_seed(0)
    for tensor in cache.keys + cache.values:
        tensor.normal_(generator=generator)
    ids = torch.zeros(batch, 1, dtype=torch.int64, device=weight.device)
    forward = forward or model

    def call() -> "Tensor":
        cache.length = past
        with torch.no_grad():
            return forward(ids, cache=cache, last_only=True)

    return call


def _check(
    calls: "dict[str, Callable[[], Tensor]]", bits: dict[str, int], dtype: str, times: int = 1
) -> None:
    """Raise UserError where a peer's logits are farther from eager's than so many times what TOLERANCE says."""
    right = calls["eager"]().double()
    for name, call in calls.items():
        apart = float((call().double() - right).norm() / right.norm())
        if not apart <= times * TOLERANCE[bits[name] or dtype]:
            raise UserError(
                f"logits of {name} are {apart:.1e} off eager's: they do other work. Report it."
            )


def _of_own_work(setting: Setting, record: Record, works: dict[str, Work], batch: int) -> Record:
    """The record with the shares and prediction of its own bytes: narrow weights have fewer to read."""
    own = works.get(record.inputs.get("peer", ""))
    if own is None:
        return record
    roof, physical = setting.roof(), setting.physical_roof()
    update = {
        "predicted": batch / roof.predict(own).seconds,
        "share_of_measured": record.value * roof.least_seconds(own) / batch,
        "flops": own.flops,
        "bytes": own.bytes,
    }
    if physical:
        update["share_of_physical"] = record.value * physical.least_seconds(own) / batch
    return record.model_copy(update=update)
