"""Attention of one new token a sequence over long caches: share of the memory's bandwidth, beside PyTorch's SDPA.

The heads are those of Llama 3 8B; a batch has so many sequences that its keys and values are several times the cache.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from smml.bench.cuda_graph import captured
from smml.bench.peers import KERNEL, side_by_side
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.measure import Record

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

# Batch, query heads, key-value heads, width of a head, tokens in the cache.
SHAPES = {
    "cpu": [(2, 4, 2, 16, 160)],
    "cuda": [
        (64, 32, 8, 128, 1024),
        (16, 32, 8, 128, 8192),
        (4, 32, 8, 128, 32_768),
        (1, 32, 8, 128, 32_768),
    ],
}
PAGE_SIZE = 16  # tokens, as serving engines have it
BUDGET_S = {"cpu": 0.02, "cuda": 0.4}  # for each call
# ‖difference‖ ÷ ‖result‖ of a peer: they round the weights at different places.
TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2}


def run(setting: Setting) -> Iterator[Record]:
    """Bytes per second of every peer at every shape, and ratios; see `side_by_side`."""
    for shape in SHAPES[setting.device]:
        yield from compare(setting, *shape)


def compare(
    setting: Setting, batch: int, heads: int, kv_heads: int, head_dim: int, tokens: int
) -> Iterator[Record]:
    """All peers over one cache. Raises UserError where one differs from PyTorch's result."""
    import torch

    from smml.kernels import decode_attention as module

    dtype = getattr(torch, setting.profile.dtype)
    generator = torch.Generator(setting.device).manual_seed(0)
    # [B, S, K, d], which is pages side by side too.
    keys, values = (
        torch.randn(
            batch, tokens, kv_heads, head_dim, generator=generator, device=setting.device
        ).to(dtype)
        for _ in range(2)
    )
    q = torch.randn(batch, heads, head_dim, generator=generator, device=setting.device).to(dtype)
    calls = _calls(q, keys, values)
    _agree(setting, {peer: call() for peer, call in calls.items()})
    work = module.work([tokens] * batch, heads, kv_heads, head_dim, dtype.itemsize)
    yield from side_by_side(
        setting,
        f"decode-attention/batch-{batch}/tokens-{tokens}",
        {peer: captured(call, setting.device) for peer, call in calls.items()},
        amount=work.bytes,
        unit="B/s",
        work=work,
        inputs={"batch": batch, "tokens": tokens, "heads": heads, "kv_heads": kv_heads}
        | {"head_dim": head_dim, "page_size": PAGE_SIZE},
        ours=KERNEL,
        budget_s=BUDGET_S[setting.device],
    )


def _calls(q: "Tensor", keys: "Tensor", values: "Tensor") -> "dict[str, Callable[[], Tensor]]":
    """Ours over pages in a random order and over the contiguous cache, and PyTorch's; keys and values [B, S, K, d]."""
    import torch
    from torch.nn import functional

    from smml.kernels.decode_attention import decode_attention, decode_attention_contiguous

    batch, tokens, kv_heads, head_dim = keys.shape
    each = tokens // PAGE_SIZE
    order = torch.randperm(batch * each, generator=torch.Generator().manual_seed(0)).to(q.device)
    table = torch.argsort(order).view(batch, each).int()  # page order[p] of the sequences lies at p
    pages = [t.view(-1, PAGE_SIZE, kv_heads, head_dim)[order] for t in (keys, values)]
    lengths = torch.full((batch,), tokens, dtype=torch.int32, device=q.device)
    # Each head's tokens side by side, as a static cache has them.
    k, v = (t.transpose(1, 2).contiguous() for t in (keys, values))
    return {
        KERNEL: lambda: decode_attention(q, *pages, table, lengths),
        f"{KERNEL}-contiguous": lambda: decode_attention_contiguous(q, k, v, lengths),
        "sdpa": lambda: functional.scaled_dot_product_attention(
            q[:, :, None], k, v, enable_gqa=q.shape[1] != kv_heads
        )[:, :, 0],
    }


def _agree(setting: Setting, results: "Mapping[str, Tensor]") -> None:
    """Raise UserError where a peer's result is not PyTorch's: a fast wrong answer is no measurement."""
    wanted = results["sdpa"].double()
    for peer, result in results.items():
        off = float((result.double() - wanted).norm() / wanted.norm())
        if not off <= TOLERANCE[setting.profile.dtype]:
            raise UserError(
                f"decode attention: {peer} differs from PyTorch's result by {off:.1e}: report it."
            )
