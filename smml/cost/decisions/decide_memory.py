"""Whether a model and the KV cache of its sequences fit into the accelerators of one instance, and how many would."""

from dataclasses import dataclass

from smml.cost.decisions.decide_region import known_instance
from smml.cost.decisions.decision import amount, count
from smml.data import accelerators
from smml.data.catalogue import dtype_key
from smml.errors import UserError
from smml.llama.config import CONFIGS, LlamaConfig
from smml.llama.counts import kv_cache_bytes, parameters

# Bytes of one number as it is held; fp4 and its like are packed in pairs.
ITEM_BYTES = {
    "fp64": 8,
    "fp32": 4,
    "tf32": 4,
    "bf16": 2,
    "fp16": 2,
    "fp8": 1,
    "int8": 1,
    "fp4": 0.5,
}


@dataclass(frozen=True)
class ServingMemory:
    """What serving holds and what the instance has, all in bytes, the runtime's own needs left out: a bound from below."""

    model: str
    instance: str
    device: str
    devices: int
    memory_bytes: float
    weights_bytes: float
    kv_bytes_per_token: float
    context_tokens: int
    sequences: int

    @property
    def kv_cache_bytes(self) -> float:
        """Keys and values of all sequences at the full context."""
        return self.kv_bytes_per_token * self.context_tokens * self.sequences

    @property
    def held_bytes(self) -> float:
        """Weights and KV cache together."""
        return self.weights_bytes + self.kv_cache_bytes

    @property
    def fits(self) -> bool:
        """Whether that is no more than all accelerators of the instance have."""
        return self.held_bytes <= self.memory_bytes

    @property
    def most_tokens(self) -> int:
        """Tokens, over all sequences, that fit beside the weights; 0 where the weights alone do not fit."""
        return max(0, int((self.memory_bytes - self.weights_bytes) // self.kv_bytes_per_token))

    def __str__(self) -> str:
        has = f"{count(self.devices, 'device')} of {amount(self.memory_bytes / self.devices, 'B')} ({self.device})"
        needs = (
            f"{self.model} needs {amount(self.weights_bytes, 'B')} of weights and "
            f"{amount(self.kv_cache_bytes, 'B')} of KV cache ({self.sequences:,} × {self.context_tokens:,} tokens of "
            f"{amount(self.kv_bytes_per_token, 'B')}), {self.instance} has {has}"
        )
        if self.fits:
            return f"fits: {needs}"
        if not self.most_tokens:
            return f"does not fit: {needs}; the weights alone are too large"
        return (
            f"does not fit: {needs}; beside the weights there is room for {self.most_tokens:,} tokens, "
            f"{count(self.most_tokens // self.context_tokens, 'sequence')} of that length"
        )


def serving_memory(
    model: str | LlamaConfig,
    instance: str,
    context_tokens: int,
    sequences: int,
    dtype: str = "bf16",
    kv_dtype: str | None = None,
) -> ServingMemory:
    """Memory of serving `sequences` of `context_tokens` each, weights and cache spread over the whole instance.

    Raises UserError for an unknown model, type or dtype, a type without accelerators, and a context that the model was
    not made for.
    """
    name, config = (model, known_model(model)) if isinstance(model, str) else ("the model", model)
    for field, value in (("context_tokens", context_tokens), ("sequences", sequences)):
        if not value >= 1:
            raise UserError(f"{field} is {value!r}; give a whole number of 1 or more.")
    if context_tokens > config.max_sequence_length:
        raise UserError(
            f"context_tokens is {context_tokens:,}; {name} was made for {config.max_sequence_length:,} at most; ask for "
            "fewer or take another model."
        )
    entry = known_instance(instance)
    if entry.accelerator is None:
        raise UserError(
            f"{instance} has no accelerator; its {entry.memory.value:g} GiB are judged by `smml decide compute` without "
            "--instance."
        )
    device = accelerators()[entry.accelerator]
    return ServingMemory(
        name,
        instance,
        device.name,
        entry.accelerator_count,
        entry.accelerator_count * device.memory.value,
        parameters(config).total * ITEM_BYTES[dtype_key(dtype)],
        kv_cache_bytes(config, 1, 1, 1) * ITEM_BYTES[dtype_key(kv_dtype or dtype)],
        context_tokens,
        sequences,
    )


def known_model(name: str) -> LlamaConfig:
    """The published shape of that name; UserError lists the names."""
    if name not in CONFIGS:
        raise UserError(
            f"no model is called {name!r}; known are {', '.join(CONFIGS)}; give one of these, or --parameters."
        )
    return CONFIGS[name]
