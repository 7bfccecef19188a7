"""Attention over whole sequences, forward and backward, beside PyTorch's flash, cuDNN and FlexAttention kernels.

A causal product counts the pairs that are visible, for every peer alike; backward counts 2.5 times forward's FLOPs,
whatever a kernel computes again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smml.bench.cuda_graph import captured, captured_after
from smml.bench.peers import KERNEL, side_by_side
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.measure import Record

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """One attention: sequences, query and key-value heads, tokens of a sequence, width of a head."""

    name: str
    batch: int
    heads: int
    kv_heads: int
    tokens: int
    head_dim: int
    causal: bool = True
    flex: bool = False  # FlexAttention takes half a minute to compile for a shape


# On a GPU 16,384 tokens each, of a width of 2048 and of two Llamas' heads.
SHAPES = {
    "cpu": [Shape("tiny", 1, 2, 1, 40, 16)],
    "cuda": [
        Shape("d128-2k", 8, 16, 16, 2048, 128),
        Shape("d128-16k", 1, 16, 16, 16_384, 128),
        Shape("d128-16k-all", 1, 16, 16, 16_384, 128, causal=False),
        Shape("d64-16k", 1, 32, 32, 16_384, 64),
        Shape("llama-1b-4k", 4, 32, 8, 4096, 64),
        Shape("llama-8b-8k", 2, 32, 8, 8192, 128, flex=True),
    ],
}
BUDGET_S = {"cpu": 0.02, "cuda": 0.3}  # for each call
# ‖difference‖ ÷ ‖result‖ of a peer: they round the weights at different places.
TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2}
# PyTorch's own words, and those of cuDNN where it finds no way to do what PyTorch asks of it.
REFUSALS = ("No available kernel", "cudnn_frontend", "cuDNN Frontend error")

Attention = Callable[["Tensor", "Tensor", "Tensor"], "Tensor"]


def run(setting: Setting) -> Iterator[Record]:
    """FLOP/s of every peer at every shape, forward, then backward, and ratios; see `side_by_side`."""
    import torch

    for shape in SHAPES[setting.device]:
        yield from compare(setting, shape)
        torch.compiler.reset()


def compare(setting: Setting, shape: Shape) -> Iterator[Record]:
    """Both passes at one shape. Raises UserError where a peer's result or gradient differs from PyTorch's."""
    import torch

    from smml.kernels import flash_attention

    dtype = getattr(torch, setting.profile.dtype)
    q, k, v, do = _operands(setting, shape, dtype)
    sizes = {
        "batch": shape.batch,
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "queries": shape.tokens,
        "keys": shape.tokens,
        "head_dim": shape.head_dim,
        "causal": shape.causal,
    }
    peers = _peers(setting, shape, (q, k, v))
    for way, count, prepare in (
        ("forward", flash_attention.work, _forward),
        ("backward", flash_attention.backward_work, _backward),
    ):
        calls = {peer: prepare(setting, function, q, k, v, do) for peer, function in peers.items()}
        _agree(setting, f"{shape.name} {way}", {peer: call() for peer, call in calls.items()})
        work = count(**sizes, itemsize=dtype.itemsize)
        yield from side_by_side(
            setting,
            f"attention/{shape.name}/{way}",
            calls,
            amount=work.flops,
            unit="FLOP/s",
            work=work,
            inputs={"shape": shape.name, "way": way} | sizes,
            ours=KERNEL,
            budget_s=BUDGET_S[setting.device],
        )
        del calls


def _operands(setting: Setting, shape: Shape, dtype: object) -> "tuple[Tensor, ...]":
    """q, k, v, which want gradients, and the gradient of the result, random normal, lying as a Llama's do."""
    import torch

    generator = torch.Generator(setting.device).manual_seed(0)
    found = []
    for heads in (shape.heads, shape.kv_heads, shape.kv_heads, shape.heads):
        size = (shape.batch, shape.tokens, heads, shape.head_dim)
        x = torch.randn(size, generator=generator, device=setting.device).to(dtype)
        found.append(x.transpose(1, 2))
    return *(x.requires_grad_() for x in found[:3]), found[3]


def _peers(setting: Setting, shape: Shape, operands: "tuple[Tensor, ...]") -> dict[str, Attention]:
    """Peers that take these operands on this device; ours first."""
    import torch
    from torch.nn import functional
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from smml.kernels import flash_attention

    gqa = shape.heads != shape.kv_heads

    def sdpa(backend: SDPBackend) -> Attention:
        def call(q: "Tensor", k: "Tensor", v: "Tensor") -> "Tensor":
            with sdpa_kernel(backend):
                return functional.scaled_dot_product_attention(
                    q, k, v, is_causal=shape.causal, enable_gqa=gqa
                )

        return call

    found: dict[str, Attention] = {
        KERNEL: lambda q, k, v: flash_attention.attention(q, k, v, None, shape.causal),
        "flash": sdpa(SDPBackend.FLASH_ATTENTION),
    }
    if setting.device == "cpu":
        return found | {"math": sdpa(SDPBackend.MATH)}
    if _takes(sdpa(SDPBackend.CUDNN_ATTENTION), operands):
        found["cudnn"] = sdpa(SDPBackend.CUDNN_ATTENTION)
    if shape.flex:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        blocks = create_block_mask(
            lambda b, h, q, k: q >= k, None, None, shape.tokens, shape.tokens, setting.device
        )
        flex = torch.compile(flex_attention, dynamic=False)
        found["flex"] = lambda q, k, v: flex(q, k, v, block_mask=blocks, enable_gqa=gqa)
    return found


def _takes(function: Attention, operands: "tuple[Tensor, ...]") -> bool:
    """Whether a backend takes these operands; PyTorch says only by trying."""
    try:
        function(*operands)
    except RuntimeError as error:
        if any(refusal in str(error) for refusal in REFUSALS):
            return False
        raise
    return True


def _forward(
    setting: Setting, function: Attention, q: "Tensor", k: "Tensor", v: "Tensor", do: "Tensor"
) -> Callable[[], object]:
    """The pass without autograd; returns its result."""
    import torch

    def call() -> object:
        with torch.no_grad():
            return (function(q, k, v),)

    return captured(call, setting.device)


def _backward(
    setting: Setting, function: Attention, q: "Tensor", k: "Tensor", v: "Tensor", do: "Tensor"
) -> Callable[[], object]:
    """The gradients of a pass done before, repeatable; returns them."""
    import torch
    from torch._functorch import config

    def prepared() -> Callable[[], object]:
        # Leaves of its own: autograd ties a leaf to the stream on which it is first used.
        leaves = [x.detach().requires_grad_() for x in (q, k, v)]
        # A compiled backward pass would otherwise write over what it was given, and run only once.
        with config.patch(donated_buffer=False):
            out = function(*leaves)
        return lambda: torch.autograd.grad(out, leaves, do, retain_graph=True)

    return captured_after(prepared, setting.device)


def _agree(setting: Setting, name: str, results: dict[str, "tuple[Tensor, ...]"]) -> None:
    """Raise UserError unless every peer's results equal PyTorch's flash attention, up to their dtype's rounding."""
    import torch

    for peer, found in results.items():
        for got, want in zip(found, results["flash"], strict=True):
            off = (got - want).norm(dtype=torch.float32) / want.norm(dtype=torch.float32)
            if not off <= TOLERANCE[setting.profile.dtype]:
                raise UserError(
                    f"attention {name}: {peer} differs from PyTorch's flash attention by {off:.2e}: "
                    "its time would mean nothing. Report it."
                )
