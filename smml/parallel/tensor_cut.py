"""Which part of every parameter of a Llama a tensor-parallel rank holds: pure cutting and putting together.

    embedding, output           rows       V/p tokens of the vocabulary
    attention.qkv               rows       H/p query heads, K/p key heads, K/p value heads
    feed_forward.gate_up        rows       F/p of gate, F/p of up
    attention.output, down      columns    what the rank's rows above give
    norms, biases of the latter two        whole on every rank

Rows of a weight are columns of the matrix that multiplies from the right: hence "column parallel" for the first three,
and "row parallel" for the fourth (arXiv:1909.08053, section 3).
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from smml.llama.config import LlamaConfig
from smml.parallel.equal_shares import must_divide

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor


@dataclass(frozen=True)
class Cut:
    """Along `dim`, each of the `blocks` (their sizes) by itself into equal parts: a rank holds one part of each."""

    dim: int
    blocks: tuple[int, ...]

    def part(self, whole: "Tensor", rank: int, ranks: int) -> "Tensor":
        """What `rank` holds, a copy: q, k and v are neighbours in `whole`, and so are their parts in the result."""
        import torch

        blocks = whole.split(self.blocks, self.dim)
        return torch.cat([block.chunk(ranks, self.dim)[rank] for block in blocks], self.dim)

    def whole(self, parts: "list[Tensor]") -> "Tensor":
        """The parts of all ranks, in their order, put together."""
        import torch

        sizes = [size // len(parts) for size in self.blocks]
        blocks = zip(*(part.split(sizes, self.dim) for part in parts), strict=True)
        return torch.cat([piece for block in blocks for piece in block], self.dim)


def cut(name: str, config: LlamaConfig) -> Cut | None:
    """How the parameter of that name in Llama.named_parameters is cut; None for one that every rank holds whole."""
    q, kv, hidden = config.query_dim, config.kv_dim, config.feed_forward_dim
    owner, _, kind = name.rpartition(".")
    if name in ("embedding.weight", "output.weight"):
        return Cut(0, (config.vocab_size,))
    if owner.endswith("attention.qkv"):
        return Cut(0, (q, kv, kv))
    if owner.endswith("feed_forward.gate_up"):
        return Cut(0, (hidden, hidden))
    if kind == "weight" and owner.endswith("attention.output"):
        return Cut(1, (q,))
    if kind == "weight" and owner.endswith("feed_forward.down"):
        return Cut(1, (hidden,))
    return None


def rank_config(config: LlamaConfig, ranks: int) -> LlamaConfig:
    """The narrower Llama that each of `ranks` holds: its heads, key-value heads, feed-forward width and vocabulary.

    Raises UserError for sizes that the ranks do not divide. One key-value head serves a whole group of query heads, so
    that it cannot be cut: kv_heads limits the ranks.
    """
    must_divide(
        ranks,
        kv_heads=config.kv_heads,
        feed_forward_dim=config.feed_forward_dim,
        vocab_size=config.vocab_size,
    )
    return replace(
        config,
        heads=config.heads // ranks,
        kv_heads=config.kv_heads // ranks,
        feed_forward_dim=config.feed_forward_dim // ranks,
        vocab_size=config.vocab_size // ranks,
        bos_token_id=None,  # ids of the whole vocabulary
        eos_token_ids=(),
    )
