"""The Llama that the ladder's notebook trains, by device: one step takes a tenth of a second, and every rung can be seen."""

from dataclasses import dataclass, replace

from smml.llama.config import CONFIGS, LlamaConfig


@dataclass(frozen=True)
class Size:
    """batch [B, T] through a Llama of `shape`; `chunk` rows of logits at a time; `larger_batch` sequences at the end."""

    shape: LlamaConfig
    batch: int
    larger_batch: int
    sequence_length: int
    chunk: int


SIZES = {
    "cpu": Size(
        replace(
            CONFIGS["tiny"], vocab_size=8192, dim=256, layers=3, heads=8, kv_heads=4, feed_forward_dim=1024,
        ), 1, 2, 512, 128,
    ),
    # Four of its sixteen layers: the whole one is climbed by `smml bench llama-step`.
    "cuda": Size(
        replace(CONFIGS["llama-3.2-1b"], layers=4, max_sequence_length=4096), 2, 8, 4096, 1024
    ),
}  # fmt: skip
# So small that the interpreter takes a second for every kernel of a step.
INTERPRETED = replace(
    CONFIGS["tiny"], vocab_size=256, dim=64, layers=1, heads=2, kv_heads=1, feed_forward_dim=128
)
