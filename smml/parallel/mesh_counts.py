"""What a rank of a mesh holds and sends, from the configuration alone: each axis counts what the others leave it."""

from collections import Counter
from collections.abc import Mapping

from smml.llama.config import LlamaConfig
from smml.parallel.context_parallel_strategy import ContextParallelStrategy
from smml.parallel.equal_shares import must_divide
from smml.parallel.pipeline.stage import split
from smml.parallel.pipeline.strategy import OneForwardOneBackward
from smml.parallel.strategy import Bytes
from smml.parallel.tensor_cut import rank_config
from smml.parallel.zero_strategy import padded, unit_sizes


def shares(config: LlamaConfig, sizes: Mapping[str, int]) -> LlamaConfig:
    """The narrower Llama that a rank holds. Raises UserError for sizes that do not divide the model."""
    split(config.layers, sizes["pipeline"])
    return rank_config(config, sizes["tensor"])


def held_bytes(
    config: LlamaConfig, sizes: Mapping[str, int], at: Mapping[str, int], zero: int
) -> Bytes:
    """Parameters, gradients and moments in float32 of the rank at that place."""
    narrow, data = rank_config(config, sizes["tensor"]), sizes["data"]
    if not zero:
        return OneForwardOneBackward.holds(narrow, at["pipeline"], sizes["pipeline"])
    whole = 4 * sum(padded(size, data) for size in unit_sizes(narrow))
    return {
        "parameters": whole if zero < 3 else whole // data,
        "gradients": whole if zero < 2 else whole // data,
        "optimizer": 2 * whole // data,
    }


def sent_bytes(
    config: LlamaConfig,
    sizes: Mapping[str, int],
    at: Mapping[str, int],
    batch: int,
    tokens: int,
    zero: int,
) -> Bytes:
    """Payload by collective of one step of `batch` sequences, over all axes."""
    must_divide(sizes["data"], batch=batch)
    narrow, batch = rank_config(config, sizes["tensor"]), batch // sizes["data"]
    pipeline, stage = sizes["pipeline"], at["pipeline"]
    total: Counter[str] = Counter()
    if sizes["tensor"] > 1:
        layers = len(split(config.layers, pipeline)[stage])
        last = stage == pipeline - 1
        streams = 4 * layers + (stage == 0) + last  # the embedding's forward, the logits' backward
        total["all-reduce"] += streams * 4 * batch * tokens * config.dim
        total["all-gather"] += last * sizes["tensor"] * 2 * 4 * batch * tokens
    if pipeline > 1:
        total.update(OneForwardOneBackward.sends(narrow, stage, pipeline, batch, tokens))
    if zero:
        *layers_, root = (4 * padded(size, sizes["data"]) for size in unit_sizes(narrow))
        total["all-gather"] += (2 if zero == 3 else 1) * sum(layers_) + root
        total["reduce-scatter"] += sum(layers_) + root
    elif sizes["context"] > 1:
        total.update(
            ContextParallelStrategy.sends(config, at["context"], sizes["context"], batch, tokens)
        )
    else:
        held = OneForwardOneBackward.holds(narrow, stage, pipeline)
        total["all-reduce"] += held["parameters"]
    return {collective: size for collective, size in total.items() if size}
