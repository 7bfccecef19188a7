"""How large ZeRO's units are: what its counts and its predictions rest on."""

from smml.llama import counts
from smml.llama.config import LlamaConfig


def unit_sizes(config: LlamaConfig, per_layer: bool = True) -> list[int]:
    """Parameters of every layer, and last those of the root: embedding, last norm, output matrix."""
    count = counts.parameters(config)
    root = count.embedding + config.dim + count.output
    layer, layers = (count.total - root) // config.layers, config.layers
    return [layer] * layers + [root] if per_layer else [count.total]


def padded(size: int, ranks: int) -> int:
    """The next multiple of `ranks`: parts are equal."""
    return -(-size // ranks) * ranks
