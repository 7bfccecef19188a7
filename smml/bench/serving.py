"""Tokens a second of one server by kind: read from a prompt, written by decoding, looked up from what was kept."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from smml.bench import llama_batching
from smml.bench.bench_model import itemsize
from smml.bench.llama_decode import LaunchCost, launch_cost, predict
from smml.bench.read_stream import reading
from smml.bench.setting import Setting
from smml.cost.units.token_seconds import Requests, cached_work, input_work, output_work
from smml.llama import counts
from smml.llama.config import LlamaConfig
from smml.measure import Record
from smml.plot import seconds
from smml.roofline import Prediction, Work

if TYPE_CHECKING:  # torch takes seconds to import: `smml bench` names its benches without it
    from smml.llama.kv_cache import StaticCache
    from smml.llama.model import Llama

# Long enough that reading is bound by compute where computing is fast, short enough for two cores.
ON_CPU = Requests(prompt_tokens=64, new_tokens=64, cached_tokens=128, batch_size=4)
ON_GPU = Requests(prompt_tokens=1024, new_tokens=256, cached_tokens=1024, batch_size=32)


def run(setting: Setting) -> Iterator[Record]:
    """Tokens a second of each kind, as one request of this machine's size has them."""
    stream, cost = reading(setting), launch_cost(setting)
    yield from measure(setting, stream, cost, server(setting), sizes(setting))


def sizes(setting: Setting) -> Requests:
    """One request of a size that this machine can be timed with in seconds."""
    return ON_CPU if setting.device == "cpu" else ON_GPU


def server(setting: Setting) -> "Llama":
    """Llama-3.2-1B on a GPU; on a CPU a model larger than the caches, with its linear layers packed."""
    return llama_batching.model(llama_batching.decode_config(setting), setting)


def works(config: LlamaConfig, requests: Requests, itemsize: int) -> dict[str, Work]:
    """FLOPs and bytes of the three calls: a prompt read alone, a step of all sequences, a prefix looked up."""
    return {
        "input": input_work(config, requests, itemsize),
        "output": output_work(config, requests, itemsize),
        "cached": cached_work(config, requests, itemsize),
    }


def tokens(requests: Requests) -> dict[str, int]:
    """Tokens of each of these calls."""
    return {
        "input": requests.prompt_tokens,
        "output": requests.batch_size,
        "cached": requests.cached_tokens,
    }


def predictions(
    setting: Setting,
    stream: Setting,
    cost: LaunchCost,
    config: LlamaConfig,
    requests: Requests,
) -> dict[str, Prediction]:
    """Seconds of the three calls; `setting` has the bandwidth of copying, `stream` that of reading."""
    work = works(config, requests, itemsize(setting))
    written = llama_batching.predict_decode(
        stream, config, requests.batch_size, cost, requests.past
    )
    return {
        "input": predict(stream, config, work["input"], cost),
        "output": written,
        "cached": setting.roof().predict(work["cached"]),
    }


def measure(
    setting: Setting, stream: Setting, cost: LaunchCost, model: "Llama", requests: Requests
) -> list[Record]:
    """Tokens a second read, written and looked up, each with its prediction; arguments as in `predictions`."""
    config = model.config
    work, told = works(config, requests, itemsize(setting)), vars(requests)
    expected = predictions(setting, stream, cost, config, requests)
    calls = {
        "input": _read(model, requests),
        "output": llama_batching.decode_step(model, requests.batch_size, requests.past),
        "cached": _look_up(model, requests),
    }
    found = []
    for kind, call in calls.items():
        record = (setting if kind == "cached" else stream).measure(
            f"serving/{kind}/{counts.parameters(config).total / 1e6:.3g}M",
            call,
            work[kind],
            inputs={**told, "world_size": 1},
            predicted=expected[kind],
            unit="B/s",
            flush=kind == "cached",
        )
        found.append(in_tokens(record, tokens(requests)[kind]))
    return found


def in_tokens(record: Record, tokens: int) -> Record:
    """A record of a call (FLOP/s or B/s) as the tokens a second of the job, of which the call makes `tokens`."""

    def rate(value: float) -> float:
        return tokens / seconds(record, value)

    return record.model_copy(
        update={
            "unit": "tokens/s",
            "value": rate(record.value),
            "p20": rate(record.p20),
            "p80": rate(record.p80),
            "predicted": record.predicted and rate(record.predicted),
            "inputs": record.inputs | {"tokens": tokens},
        }
    )


def _read(model: "Llama", requests: Requests) -> Callable[[], object]:
    """A call that reads one prompt after a prefix that is in its KV cache, logits of the last position only."""
    import torch

    cache = _filled(model, requests.cached_tokens + requests.prompt_tokens)
    ids = torch.zeros(
        1, requests.prompt_tokens, dtype=torch.int64, device=model.embedding.weight.device
    )

    def call() -> None:
        cache.length = requests.cached_tokens
        with torch.inference_mode():
            model(ids, cache=cache, last_only=True)

    return call


def _look_up(model: "Llama", requests: Requests) -> Callable[[], object]:
    """A call that copies the kept keys and values of a prefix to where a new sequence has its own."""
    kept, own = (_filled(model, requests.cached_tokens) for _ in range(2))

    def call() -> None:
        for mine, theirs in zip(own.keys + own.values, kept.keys + kept.values, strict=True):
            mine.copy_(theirs)

    return call


def _filled(model: "Llama", length: int) -> "StaticCache":
    from smml.llama.kv_cache import StaticCache

    weight = model.embedding.weight
    cache = StaticCache(model.config, 1, length, weight.device, weight.dtype)
    for tensor in cache.keys + cache.values:
        tensor.normal_()  # whatever lay in the memory could be NaN or denormal, which some cores add slowly
    return cache
