"""Seconds of a server that one token takes to be read, written or looked up: by the roof, or as records say."""

from dataclasses import dataclass

from smml.cost.units.from_records import throughput
from smml.cost.units.token_prices import TokenSeconds
from smml.data import Instance, accelerators
from smml.errors import UserError
from smml.llama import counts
from smml.llama.config import LlamaConfig
from smml.measure import Record
from smml.roofline import Roof, Work


@dataclass(frozen=True)
class Requests:
    """What a service is asked for: tokens of one request by kind, and how many are answered together.

    `cached_tokens` stand before `prompt_tokens`, which are read anew. Raises UserError naming the field.
    """

    prompt_tokens: int
    new_tokens: int
    cached_tokens: int = 0
    batch_size: int = 1

    def __post_init__(self) -> None:
        for name, least in {
            "prompt_tokens": 1,
            "new_tokens": 1,
            "cached_tokens": 0,
            "batch_size": 1,
        }.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name} is {value!r}; give a whole number, {least} or more.")

    @property
    def past(self) -> int:
        """Tokens in the KV cache of a sequence in the middle of its answer."""
        return self.cached_tokens + self.prompt_tokens + self.new_tokens // 2


def input_work(config: LlamaConfig, requests: Requests, itemsize: int) -> Work:
    """Reading one prompt after what is cached: all weights once, FLOPs of every new token, logits of the last."""
    past, tokens = requests.cached_tokens, requests.prompt_tokens
    flops = counts.forward_flops(config, 1, tokens, past, logits=1).total
    read = counts.parameters(config).active * itemsize
    read += counts.kv_cache_bytes(config, 1, past, itemsize)
    written = counts.kv_cache_bytes(config, 1, tokens, itemsize)
    return Work(flops, read, written, written)


def output_work(config: LlamaConfig, requests: Requests, itemsize: int) -> Work:
    """One step of the batch in the middle of its answers: all weights once, the KV cache of every sequence."""
    moved = counts.decode_bytes(config, requests.batch_size, requests.past, itemsize)
    flops = counts.decode_flops(config, requests.batch_size, requests.past)
    return Work(flops, moved.weights + moved.kv_read, moved.kv_written, moved.kv_written)


def cached_work(config: LlamaConfig, requests: Requests, itemsize: int) -> Work:
    """Keys and values of the cached tokens copied to one sequence: read once, written once; a copy for each array."""
    size = counts.kv_cache_bytes(config, 1, requests.cached_tokens, itemsize)
    return Work(0, size, size, size, 2 * config.layers)


def predicted(roof: Roof, config: LlamaConfig, requests: Requests, itemsize: int) -> TokenSeconds:
    """Seconds a token of each kind on a roof; a prompt is read alone, answers are written `batch_size` at a time."""
    reading = roof.predict(input_work(config, requests, itemsize)).seconds
    writing = roof.predict(output_work(config, requests, itemsize)).seconds
    cached = 0.0
    if requests.cached_tokens:
        cached = roof.predict(cached_work(config, requests, itemsize)).seconds
        cached /= requests.cached_tokens
    return TokenSeconds(reading / requests.prompt_tokens, writing / requests.batch_size, cached)


def measured(reading: Record, writing: Record, looking_up: Record | None = None) -> TokenSeconds:
    """Seconds a token of each kind, from records of tokens/s of one server; raises UserError as `throughput` does."""
    rates = [throughput(r).tokens_per_s for r in (reading, writing)]
    cached = 0.0 if looking_up is None else 1 / throughput(looking_up).tokens_per_s
    return TokenSeconds(1 / rates[0], 1 / rates[1], cached)


def memory_share(instance: Instance, held_bytes: float) -> float:
    """Share of an instance's memory that `held_bytes` take: of its accelerators' where it has some, else of the host's.

    Raises UserError where they do not fit.
    """
    memory = instance.memory.value * 2**30
    if instance.accelerator is not None:
        memory = instance.accelerator_count * accelerators()[instance.accelerator].memory.value
    if not 0 <= held_bytes < memory:
        raise UserError(
            f"held_bytes is {held_bytes:,.0f} and {instance.name} has {memory:,.0f} B; keep less, or rent more."
        )
    return held_bytes / memory
