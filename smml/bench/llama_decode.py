"""A Llama's two phases on this machine: prefill (a prompt at once) and decode (a token a step), against their bounds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from smml.bench.bench_model import config as bench_config, itemsize
from smml.bench.read_stream import reading
from smml.bench.setting import Setting
from smml.hardware.reach import thread_count
from smml.llama import counts
from smml.llama.config import LlamaConfig
from smml.measure import Record, time_interleaved
from smml.roofline import Prediction, Work

if TYPE_CHECKING:  # torch takes seconds to import: `smml bench` names its benches without it
    from smml.llama.model import Llama

# So narrow that nothing is left of a step but what launching its operations costs.
SKELETON = LlamaConfig(
    vocab_size=64,
    dim=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    feed_forward_dim=64,
    max_sequence_length=64,
    tie_embeddings=True,
)
MORE_LAYERS = 10


@dataclass(frozen=True)
class LaunchCost:
    """Seconds that the operations of one step cost from Python whatever their size: of each layer, and of the ends."""

    layer_s: float
    ends_s: float

    def seconds(self, config: LlamaConfig) -> float:
        """Seconds of one step of a model of `config`."""
        return self.ends_s + config.layers * self.layer_s


def run(setting: Setting) -> Iterator[Record]:
    """Prefill of 256 tokens; decode at batch 1 and 8, with 256 tokens in the cache and with 2,048."""
    setting, cost = reading(setting), launch_cost(setting)
    model = bench_model(setting)
    yield prefill(setting, model, cost, 256)
    for batch in (1, 8):
        for past in (256, 2048):
            yield decode(setting, model, cost, past, batch)


def bench_model(setting: Setting) -> "Llama":
    """The model of `bench_config` with random weights in the profile's dtype, on its device."""
    import torch

    from smml.llama.model import Llama

    dtype = getattr(torch, setting.profile.dtype)
    return Llama(bench_config(setting), device=setting.device, dtype=dtype).eval()


def launch_cost(setting: Setting) -> LaunchCost:
    """Launch cost from two models too narrow to have any other: the layers between them, the rest."""
    import torch

    from smml.llama.model import Llama

    dtype = getattr(torch, setting.profile.dtype)
    few, many = SKELETON, replace(SKELETON, layers=MORE_LAYERS)
    calls = {
        c.layers: _step(Llama(c, device=setting.device, dtype=dtype).eval(), past=16, batch=1)
        for c in (few, many)
    }
    with thread_count(setting.threads("memory")):
        timings = time_interleaved(calls, device=setting.device, budget_s=0.4)
    layer_s = (timings[many.layers].p50 - timings[few.layers].p50) / (many.layers - few.layers)
    return LaunchCost(layer_s, max(timings[few.layers].p50 - few.layers * layer_s, 0.0))


def prefill_work(setting: Setting, config: LlamaConfig, tokens: int, batch: int = 1) -> Work:
    """FLOPs and bytes of reading `batch` prompts of `tokens`: weights read once, keys and values written."""
    size = itemsize(setting)
    read = counts.parameters(config).active * size
    written = counts.kv_cache_bytes(config, batch, tokens, size)
    return Work(counts.prefill_flops(config, batch, tokens), read, written, written)


def decode_work(setting: Setting, config: LlamaConfig, past: int, batch: int = 1) -> Work:
    """FLOPs and bytes of one more token for each of `batch` sequences with `past` in the cache."""
    moved = counts.decode_bytes(config, batch, past, itemsize(setting))
    written = moved.kv_written
    return Work(
        counts.decode_flops(config, batch, past), moved.weights + moved.kv_read, written, written
    )


def predict(setting: Setting, config: LlamaConfig, work: Work, cost: LaunchCost) -> Prediction:
    """The roof's two terms for `work`, and what launching a step of a model of `config` costs."""
    roof = setting.roof().predict(work)
    return Prediction(roof.compute_s, roof.memory_s, cost.seconds(config))


def prefill(
    setting: Setting, model: "Llama", cost: LaunchCost, tokens: int, batch: int = 1
) -> Record:
    """Measure a forward pass over `batch` prompts of `tokens`, logits of the last position only."""
    import torch

    config = model.config
    ids = torch.zeros(batch, tokens, dtype=torch.int64, device=setting.device)

    def call() -> None:
        with torch.inference_mode():
            model(ids, last_only=True)

    work = prefill_work(setting, config, tokens, batch)
    return setting.measure(
        f"prefill/{_size(config)}/batch-{batch}/tokens-{tokens}",
        call,
        work,
        inputs={"batch": batch, "tokens": tokens, "parameters": counts.parameters(config).total},
        unit="FLOP/s",
        predicted=predict(setting, config, work, cost),
    )


def decode(setting: Setting, model: "Llama", cost: LaunchCost, past: int, batch: int = 1) -> Record:
    """Measure one decode step of `batch` sequences with `past` tokens in a static cache."""
    config = model.config
    work = decode_work(setting, config, past, batch)
    return setting.measure(
        f"decode/{_size(config)}/batch-{batch}/past-{past}",
        _step(model, past, batch),
        work,
        inputs={"batch": batch, "past": past, "parameters": counts.parameters(config).total},
        unit="B/s",
        predicted=predict(setting, config, work, cost),
    )


def _step(model: "Llama", past: int, batch: int):
    """A call that decodes one token a sequence at position `past`, again and again at the same one."""
    import torch

    from smml.llama.kv_cache import StaticCache

    weight = model.embedding.weight
    cache = StaticCache(model.config, batch, past + 1, weight.device, weight.dtype)
    for tensor in cache.keys + cache.values:
        tensor.normal_()  # whatever lay in the memory could be NaN or denormal, which some cores add slowly
    ids = torch.zeros(batch, 1, dtype=torch.int64, device=weight.device)

    def call() -> None:
        cache.length = past
        with torch.inference_mode():
            model(ids, cache=cache, last_only=True)

    return call


def _size(config: LlamaConfig) -> str:
    """Parameters as people say them: 71M, 1.24B."""
    count = counts.parameters(config).total
    return f"{count / 1e9:.3g}B" if count >= 1e9 else f"{count / 1e6:.3g}M"
