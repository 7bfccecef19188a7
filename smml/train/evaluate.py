"""How well a model predicts held-out text: loss, perplexity, bits per byte."""

import math
from dataclasses import asdict, dataclass

import torch

from smml.llama.model import Llama
from smml.train.shards import Tokens


@dataclass(frozen=True)
class Evaluation:
    """`loss` in nats a token over `tokens` predicted ones; perplexity is exp(loss), of this tokenizer's tokens.

    `bits_per_byte` is all nats in bits ÷ bytes of text: it alone compares models with different tokenizers.
    """

    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int

    def as_dict(self) -> dict[str, float]:
        """The four figures by name."""
        return asdict(self)


@torch.no_grad()
def evaluate(
    model: Llama,
    tokens: Tokens,
    sequence_length: int,
    batch_size: int,
    dtype: torch.dtype = torch.float32,
) -> Evaluation:
    """Predict every token of the stream but the first, each once, in windows of `sequence_length` that start afresh."""
    device = model.embedding.weight.device
    starts = list(range(0, tokens.count - 1, sequence_length))
    whole = [start for start in starts if start + sequence_length < tokens.count]
    groups = [whole[i : i + batch_size] for i in range(0, len(whole), batch_size)]
    groups += [[start] for start in starts[len(whole) :]]  # the rest at the end is shorter
    total = torch.zeros((), dtype=torch.float64, device=device)
    for group in groups:
        ends = [min(start + sequence_length, tokens.count - 1) for start in group]
        rows = [
            torch.from_numpy(tokens.read(start, end + 1))
            for start, end in zip(group, ends, strict=True)
        ]
        batch = torch.stack(rows).to(device)  # [B, T + 1]
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            total += model(batch[:, :-1], batch[:, 1:]).double() * batch[:, 1:].numel()
    nats = total.item()
    loss = nats / (tokens.count - 1)
    # A diverged model's loss may pass what exp can hold.
    perplexity = math.exp(loss) if loss < 700 else math.inf
    return Evaluation(loss, perplexity, nats / math.log(2) / tokens.text_bytes, tokens.count - 1)
