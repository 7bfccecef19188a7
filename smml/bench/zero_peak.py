"""The most memory that a rank takes in a step of data parallel and of ZeRO, predicted from the model's shape."""

from itertools import pairwise

from smml.bench import step_memory
from smml.llama.config import LlamaConfig
from smml.parallel.strategies import kind
from smml.parallel.zero_sizes import padded, unit_sizes


def predict_peak(
    name: str, config: LlamaConfig, ranks: int, batch: int, tokens: int, per_layer: bool = True
) -> int:
    """Bytes on one rank in float32; `name` is data, zero-1, zero-2 or zero-3, `batch` that of all ranks."""
    return max(moments(name, config, ranks, batch, tokens, per_layer).values())


def moments(
    name: str, config: LlamaConfig, ranks: int, batch: int, tokens: int, per_layer: bool = True
) -> dict[str, int]:
    """Bytes at the moments of a step that can be its largest, in their order; from the second step on.

    Backward of the loss, of the layers, of the root before and after its gradients lie side by side, and the update. A
    unit's gradients exist as autograd makes them, and once more side by side until they have been sent; while a layer
    computes, the next one is gathered (stage 3).
    """
    plan, by_hand = step_memory.Plan(config, batch // ranks, tokens), name != "data"
    *layers, root = (4 * padded(size, ranks) for size in unit_sizes(config, per_layer))
    holds = kind(name).holds(config, 0, ranks, per_layer=per_layer)
    unit = layers[0] if layers and by_hand else 0
    gathered, gathered_root = (unit, root) if name == "zero-3" else (0, 0)
    travels, part = (0, 0) if name == "zero-1" else (unit, unit // ranks)
    fixed = holds["parameters"] + holds["optimizer"] + gathered_root
    fixed += 0 if by_hand else holds["gradients"]  # its buckets are there from the start
    made = 4 * unit_sizes(config)[0] if by_hand else 0  # gradients of a layer
    stays = (part or unit) if unit else made  # of them, once backward is past it
    kept, of_layer = step_memory.kept_bytes(plan), step_memory.layer_bytes(plan)
    output = 4 * config.vocab_size * config.dim  # gradient of the output matrix
    down = 4 * config.dim * config.feed_forward_dim  # the first gradient that a layer makes
    rows = plan.batch * tokens
    working = 4 * rows * (2 * config.feed_forward_dim + 2 * config.dim)

    def backward_of(at: int) -> int:
        """In the layer above which `at` are done: early in it, at its end, and when its gradients are sent."""
        next_one = gathered * (at < config.layers - 1)
        there, end = gathered + next_one + travels * (at > 0), made - of_layer
        most = max(there + working + down, there + end, next_one + end + unit + part)
        return fixed + output + at * stays + kept - at * of_layer + most

    past = fixed + len(layers) * stays
    twice = output * config.tie_embeddings  # one gradient as output matrix, one as embedding
    sides = {
        "root": past + travels + root + twice,
        "root sent": past - gathered_root + 2 * root + (0 if name == "zero-1" else root // ranks),
    }
    # AdamW makes a root and a denominator as large as what it updates, and forgets the last denominator after that.
    updated = [0, *layers, root] if by_hand else [0, output, 0, 2 * down]
    temporary = max(last + 2 * size for last, size in pairwise(updated))
    return {
        "loss": fixed + gathered + kept + 3 * 4 * rows * config.vocab_size,
        "layers": max(map(backward_of, range(config.layers))),
        **(sides if by_hand else {}),
        "update": sum(holds.values()) + temporary // (ranks if by_hand else 1),
    }
