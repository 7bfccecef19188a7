"""Text continued token by token: greedy or sampled, with a static, a growing or no KV cache."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from smml.errors import UserError
from smml.llama.kv_cache import GrowingCache, StaticCache
from smml.llama.model import Llama


@dataclass(frozen=True)
class Sampling:
    """Draw from softmax(logits / temperature), cut to the `top_k` likeliest tokens and to the likeliest that together
    reach probability `top_p` (arXiv:1904.09751); the same `seed` draws the same tokens on the same device.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(
                f"temperature is {self.temperature}: it must be above 0. Leave sampling out for greedy."
            )
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k is {self.top_k}: it must be 1 or more, or None.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}: it must lie in (0, 1], or be None.")


def left_padded(prompts: Sequence[Sequence[int]], pad: int = 0) -> tuple[Tensor, Tensor]:
    """Prompts of different lengths as tokens [B, T], `pad` on the left, and their lengths [B]."""
    longest = max((len(prompt) for prompt in prompts), default=0)
    rows = [[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    return torch.tensor(rows, dtype=torch.int64), torch.tensor([len(prompt) for prompt in prompts])


def generate(
    model: Llama,
    tokens: Tensor,
    max_new_tokens: int,
    *,
    lengths: Tensor | None = None,
    sampling: Sampling | None = None,
    cache: Literal["static", "growing"] | None = "static",
    eos: tuple[int, ...] | None = None,
) -> Tensor:
    """Prompts [B, T] and what follows them [B, T + n], n ≤ max_new_tokens; arguments and errors as in `stream`."""
    steps = stream(
        model, tokens, max_new_tokens, lengths=lengths, sampling=sampling, cache=cache, eos=eos
    )
    return torch.cat((tokens, torch.stack(list(steps), dim=1)), dim=1)


def stream(
    model: Llama,
    tokens: Tensor,
    max_new_tokens: int,
    *,
    lengths: Tensor | None = None,
    sampling: Sampling | None = None,
    cache: Literal["static", "growing"] | None = "static",
    eos: tuple[int, ...] | None = None,
) -> Iterator[Tensor]:
    """Yield the next token of every row, int64 [B], up to max_new_tokens times, or until every row has ended.

    tokens [B, T] are prompts; `lengths` [B] says how many at the end of each row are real, the rest being padding on
    the left. Without `sampling` the likeliest token follows (greedy). `eos` defaults to the config's ids; a row that
    has ended repeats the first of them, and eos=() never ends. Raises UserError where prompt and new tokens pass the
    context.
    """
    _check(model, tokens, max_new_tokens, lengths, cache)
    eos = model.config.eos_token_ids if eos is None else eos
    return _steps(model, tokens, max_new_tokens, lengths, sampling, cache, eos)


def _steps(
    model: Llama,
    tokens: Tensor,
    max_new_tokens: int,
    lengths: Tensor | None,
    sampling: Sampling | None,
    cache: str | None,
    eos: tuple[int, ...],
) -> Iterator[Tensor]:
    batch, prompt = tokens.shape
    total = prompt + max_new_tokens
    device, dtype = tokens.device, model.embedding.weight.dtype
    kv_cache = None
    if cache == "static":
        # The last new token is never fed back, so its keys need no room.
        kv_cache = StaticCache(model.config, batch, total - 1, device, dtype)
    elif cache == "growing":
        kv_cache = GrowingCache(model.config)
    padding = None  # [B], tokens to skip at the left of each row
    if lengths is not None and bool((lengths != prompt).any()):
        padding = prompt - lengths.to(device)
    generator = torch.Generator(device).manual_seed(sampling.seed) if sampling else None
    ends = torch.tensor(eos, device=device)
    ended = torch.zeros(batch, dtype=torch.bool, device=device)

    fed, end = tokens, prompt
    for _ in range(max_new_tokens):
        # Not around the yield: the caller's code must not run in inference mode.
        with torch.inference_mode():
            extra = {} if padding is None else _padded(padding, fed.shape[1], end)
            logits = model(fed, cache=kv_cache, last_only=True, **extra)[:, -1]  # [B, V]
            following = (
                logits.argmax(-1) if sampling is None else _draw(logits, sampling, generator)
            )  # [B]
            if eos:
                following = torch.where(ended, ends[0], following)
                ended |= torch.isin(following, ends)
        following = following.clone()  # an ordinary tensor, that autograd may save
        yield following
        if eos and bool(ended.all()):
            return
        end += 1
        fed = (
            following[:, None]
            if kv_cache is not None
            else torch.cat((fed, following[:, None]), dim=1)
        )


def _padded(padding: Tensor, count: int, end: int) -> dict[str, Tensor]:
    """Positions [B, T] and mask [B, 1, T, S] of the last `count` of `end` tokens, `padding` [B] of them unreal."""
    columns = torch.arange(end, device=padding.device)  # [S]
    queries = columns[end - count :]  # [T]
    positions = (queries - padding[:, None]).clamp(min=0)
    real = columns >= padding[:, None, None]  # [B, 1, S]
    # Padding sees itself: a row of the softmax with nothing in it would be NaN.
    visible = (columns <= queries[:, None]) & real | (columns == queries[:, None])  # [B, T, S]
    return {"positions": positions, "mask": visible[:, None]}


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """One token [B] from each row of logits [B, V]."""
    logits = logits.float() / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p is not None:
        ordered, order = logits.sort(descending=True)
        probabilities = ordered.softmax(-1)
        # A token stays while those before it have not reached top_p; so the first always does.
        cut = probabilities.cumsum(-1) - probabilities >= sampling.top_p
        logits = logits.masked_fill(cut.scatter(-1, order, cut), -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


def _check(
    model: Llama, tokens: Tensor, max_new_tokens: int, lengths: Tensor | None, cache: str | None
) -> None:
    config = model.config
    if tokens.dim() != 2 or tokens.numel() == 0:
        raise UserError(
            f"prompts have shape {list(tokens.shape)}: give [batch, tokens], at least one token each."
        )
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}: it must be 1 or more.")
    if cache not in ("static", "growing", None):
        raise UserError(f"cache is {cache!r}: it must be 'static', 'growing' or None.")
    if tokens.shape[1] + max_new_tokens > config.max_sequence_length:
        raise UserError(
            f"{tokens.shape[1]} prompt tokens and {max_new_tokens} new ones pass max_sequence_length "
            f"{config.max_sequence_length}: shorten the prompt or ask for fewer."
        )
    least, most = int(tokens.min()), int(tokens.max())
    if least < 0 or most >= config.vocab_size:
        raise UserError(
            f"prompts hold token {least if least < 0 else most} and vocab_size is {config.vocab_size}: "
            "encode them with this model's tokenizer."
        )
    if lengths is not None and not (
        lengths.shape == tokens.shape[:1]
        and bool(((lengths >= 1) & (lengths <= tokens.shape[1])).all())
    ):
        raise UserError(
            f"lengths are {lengths.tolist()}: there must be {tokens.shape[0]} of them, each 1…{tokens.shape[1]}."
        )
