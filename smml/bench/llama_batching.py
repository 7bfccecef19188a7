"""A Llama's decode and training steps over batch size, each with its prediction; all batches of a kind in turns."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from smml.bench.bench_model import ON_CPU, config as bench_config, itemsize
from smml.bench.llama_decode import LaunchCost, decode_work, launch_cost
from smml.bench.read_stream import reading
from smml.bench.setting import Setting
from smml.bench.train_step import Size, parts
from smml.hardware.reach import thread_count
from smml.llama import counts
from smml.llama.config import CONFIGS, LlamaConfig
from smml.measure import Record, slowed, time_interleaved
from smml.plot import seconds
from smml.roofline import Prediction, Work

if TYPE_CHECKING:  # torch takes seconds to import: `smml bench` names its benches without it
    from smml.llama.model import Llama

PAST = 128  # tokens in the cache of each sequence
SMALL_VOCABULARY = 1024  # the output matrix is not packed: on a CPU it must not count
ROOMY_BYTES = 40e9  # a GPU that holds the float32 training state of a billion parameters, or 8 of them in bfloat16
CLIP_READ, CLIP_WRITTEN, ADAMW_READ, ADAMW_WRITTEN = 8, 4, 16, 12  # bytes a parameter, in float32


def run(setting: Setting) -> Iterator[Record]:
    """Decode steps, then training steps, over the profile's batches; a roomy GPU decodes Llama-3.1-8B too."""
    yield from decode_steps(reading(setting), model(decode_config(setting), setting))
    if _roomy(setting):
        yield from decode_steps(reading(setting), model(CONFIGS["llama-3.1-8b"], setting))
    yield from training_steps(setting)


def decode_config(setting: Setting) -> LlamaConfig:
    """Llama-3.2-1B on a GPU; on a CPU the benches' model, larger than the caches, with a small vocabulary."""
    config = bench_config(setting)
    return replace(config, vocab_size=SMALL_VOCABULARY) if setting.device == "cpu" else config


def training_config(setting: Setting) -> LlamaConfig:
    """Llama-3.2-1B on a roomy GPU, 4 of its layers on another; on a CPU 2 layers of the benches' model."""
    if setting.device == "cpu":
        return replace(ON_CPU, vocab_size=SMALL_VOCABULARY, layers=2)
    whole = CONFIGS["llama-3.2-1b"]
    return whole if _roomy(setting) else replace(whole, layers=4)


def model(config: LlamaConfig, setting: Setting) -> "Llama":
    """A Llama for decoding with random weights in the profile's dtype; on a CPU its linear layers are packed."""
    import torch

    from smml.bench.packed_linear import packed
    from smml.llama.model import Llama

    dtype = getattr(torch, setting.profile.dtype)
    return packed(Llama(config, device=setting.device, dtype=dtype).eval())


def decode_step(model: "Llama", batch: int, past: int = PAST) -> Callable[[], list[int]]:
    """A call that gives the next token of each of `batch` sequences, to the host, again and again at one position."""
    import torch

    from smml.llama.kv_cache import StaticCache

    weight = model.embedding.weight
    cache = StaticCache(model.config, batch, past + 1, weight.device, weight.dtype)
    for tensor in cache.keys + cache.values:
        tensor.normal_()  # whatever lay in the memory could be NaN or denormal, which some cores add slowly
    tokens = torch.zeros(batch, 1, dtype=torch.int64, device=weight.device)

    def call() -> list[int]:
        cache.length = past
        with torch.inference_mode():
            return model(tokens, cache=cache, last_only=True)[:, -1].argmax(-1).tolist()

    return call


def predict_decode(
    setting: Setting, config: LlamaConfig, batch: int, cost: LaunchCost, past: int = PAST
) -> Prediction:
    """The roof's terms of one step of all sequences, and its launches: a GPU computes meanwhile, a CPU does not."""
    roof = setting.roof().predict(decode_work(setting, config, past, batch))
    launch_s = cost.seconds(config)
    if setting.device == "cpu":
        return Prediction(roof.compute_s + launch_s, roof.memory_s + launch_s)
    return Prediction(roof.compute_s, roof.memory_s, launch_s)


def decode_steps(
    setting: Setting, model: "Llama", cost: LaunchCost | None = None, past: int = PAST
) -> list[Record]:
    """One decode step at each batch size of the profile; `setting` is one of reading (see `read_stream`)."""
    config, cost = model.config, cost or launch_cost(setting)
    batches = setting.profile.decode_batches
    return _steps(
        setting,
        f"decode/{_size(config)}/past-{past}",
        {batch: decode_step(model, batch, past) for batch in batches},
        {batch: decode_work(setting, config, past, batch) for batch in batches},
        {batch: predict_decode(setting, config, batch, cost, past) for batch in batches},
        {"past": past, "parameters": counts.parameters(config).total},
        tokens=1,
    )


def passes_work(setting: Setting, config: LlamaConfig, batch: int, tokens: int) -> Work:
    """Forward and backward: the weights read in each, gradients written, activations written and read back."""
    count, size = counts.parameters(config).total, itemsize(setting)
    on_gpu = setting.device != "cpu"
    saved = counts.activation_bytes(config, batch, tokens, size, fused_norm=on_gpu).saved
    written = 4 * count + saved
    flops = counts.training_flops(config, batch, tokens)
    return Work(flops, 2 * size * count + saved, written, written)


def update_work(config: LlamaConfig) -> Work:
    """Clipping (the norm read, gradients scaled) and AdamW (4 float32 numbers read and 3 written a parameter)."""
    count = counts.parameters(config).total
    read, written = CLIP_READ + ADAMW_READ, CLIP_WRITTEN + ADAMW_WRITTEN
    return Work(0, read * count, written * count, 0)


def predict_training(setting: Setting, config: LlamaConfig, batch: int, tokens: int) -> Prediction:
    """Passes bound by compute or memory, and after them the update, which the memory bounds whatever the batch."""
    roof = setting.roof()
    passes = roof.predict(passes_work(setting, config, batch, tokens))
    update_s = roof.predict(update_work(config)).memory_s
    return Prediction(passes.compute_s + update_s, passes.memory_s + update_s)


def training_steps(setting: Setting) -> list[Record]:
    """One training step (clipping and AdamW included) at each batch size of the profile."""
    import torch

    from smml.train.step import train_step

    config, tokens = training_config(setting), setting.profile.training_tokens
    batches = setting.profile.training_batches
    llama, optimizer, whole = parts(setting, Size(config, max(batches), tokens))
    dtype = getattr(torch, setting.profile.dtype)

    def step(batch: int) -> Callable[[], object]:
        return lambda: train_step(llama, optimizer, whole[:batch], dtype=dtype)

    works = {b: passes_work(setting, config, b, tokens) + update_work(config) for b in batches}
    return _steps(
        setting,
        f"train/{_size(config)}/tokens-{tokens}",
        {batch: step(batch) for batch in batches},
        works,
        {batch: predict_training(setting, config, batch, tokens) for batch in batches},
        {"sequence_length": tokens, "parameters": counts.parameters(config).total},
        tokens=tokens,
    )


def step_seconds(record: Record) -> float:
    """Median seconds of the step that a record of this bench holds: the latency of a token, where it decodes."""
    return seconds(record, record.value)


def tokens_per_s(record: Record) -> float:
    """Tokens of the step, over all its sequences, ÷ its seconds."""
    return record.inputs["tokens"] / step_seconds(record)


def knee(batch_seconds: Mapping[int, float]) -> float:
    """Batch at which the smallest batch's time and the largest one's time per sequence cross.

    Left of it a step takes as long for one sequence as for several; right of it every sequence adds its own time.
    """
    low, high = min(batch_seconds), max(batch_seconds)
    return batch_seconds[low] / (batch_seconds[high] / high)


def _steps(
    setting: Setting,
    name: str,
    calls: Mapping[int, Callable[[], object]],
    works: Mapping[int, Work],
    predicted: Mapping[int, Prediction],
    inputs: dict[str, Any],
    tokens: int,
) -> list[Record]:
    """A record for each batch, timed in turns; `tokens` are those of one sequence in one step."""
    repeat = setting.slowdown
    timed = {str(b): slowed(call, repeat) if repeat > 1 else call for b, call in calls.items()}
    with thread_count(setting.threads("compute")):
        timings = time_interleaved(timed, device=setting.device, budget_s=0.6)
    return [
        setting.record(
            f"{name}/batch-{batch}",
            timings[str(batch)],
            works[batch],
            predicted[batch],
            inputs | {"batch": batch, "tokens": batch * tokens},
        )
        for batch in calls
    ]


def _roomy(setting: Setting) -> bool:
    gpus = setting.machine.gpus
    return setting.device != "cpu" and bool(gpus) and (gpus[0].memory_bytes or 0) > ROOMY_BYTES


def _size(config: LlamaConfig) -> str:
    """Parameters as people say them: 71M, 1.24B."""
    count = counts.parameters(config).total
    return f"{count / 1e9:.3g}B" if count >= 1e9 else f"{count / 1e6:.3g}M"
