"""Linear layers with 8- and 4-bit weights at few rows, beside the same product with the profile's own weights.

A layer's weights would stay in a GPU's cache from one call to the next, and in a model they do not: a call goes
through so many layers of one shape that they are several times the cache, every peer through its own.
"""

import importlib.util
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from smml.bench.cuda_graph import captured
from smml.bench.peers import KERNEL, geometric_mean, side_by_side
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.hardware.reach import cache_bytes
from smml.measure import Record

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

# Outputs and inputs of the products of a Llama 3 8B layer.
SHAPES = {
    "cpu": {"tiny": (24, 128)},
    "cuda": {
        "qkv": (6144, 4096),
        "output": (4096, 4096),
        "gate-up": (28_672, 4096),
        "down": (4096, 14_336),
    },
}
ROWS = (1, 8, 16)
BUDGET_S = {"cpu": 0.02, "cuda": 0.2}  # for each call
# ‖difference‖ ÷ ‖result‖ against the weights before they were quantised, of normal weights.
TOLERANCE = {8: 0.03, 4: 0.2}


def run(setting: Setting) -> Iterator[Record]:
    """FLOP/s of every peer for each shape, batch and bits, ratios, and their geometric means over all shapes.

    Shares are those of the roof of the quantised product, whose bytes are counted for every peer.
    """
    import torch

    ratios: dict[int, list[Record]] = {8: [], 4: []}
    for shape, (outputs, inner) in SHAPES[setting.device].items():
        for bits, found in ratios.items():
            for record in _compare(setting, shape, outputs, inner, bits):
                if f"{KERNEL}-to-torch/" in record.name:
                    found.append(record)
                yield record
            if setting.device == "cuda":
                torch.compiler.reset()  # beyond a few versions of one function, none is compiled
                torch.cuda.empty_cache()
    for bits, found in ratios.items():
        name = f"quant/int{bits}/all/{KERNEL}-to-torch/{setting.profile.dtype}"
        yield geometric_mean(setting, name, found)


def _compare(setting: Setting, shape: str, outputs: int, inner: int, bits: int) -> Iterator[Record]:
    """Every number of rows at one shape. Raises UserError where a result is farther off than the bits explain."""
    import torch

    from smml.kernels import int4, int8

    dtype = getattr(torch, setting.profile.dtype)
    copies = 1
    if setting.device == "cuda":
        copies = -(-2 * cache_bytes(setting.machine) * 8 // (outputs * inner * bits))
    generator = torch.Generator(setting.device).manual_seed(0)
    weights = [
        torch.randn(outputs, inner, generator=generator, device=setting.device).to(dtype)
        for _ in range(copies)
    ]
    peers = _peers(weights, bits)
    work_of = {8: int8.work, 4: int4.work}[bits]
    for rows in ROWS:
        x = torch.randn(rows, inner, generator=generator, device=setting.device).to(dtype)
        calls = {peer: _bound(function, x) for peer, function in peers.items()}
        _agree(shape, bits, {peer: call() for peer, call in calls.items()})
        work = work_of(rows, outputs, inner, dtype.itemsize) * copies
        yield from side_by_side(
            setting,
            f"quant/int{bits}/{shape}/rows-{rows}",
            {peer: captured(call, setting.device) for peer, call in calls.items()},
            amount=work.flops,
            unit="FLOP/s",
            work=work,
            inputs={"shape": shape, "rows": rows, "outputs": outputs, "inner": inner}
            | {"bits": bits, "layers": copies},
            ours=KERNEL,
            budget_s=BUDGET_S[setting.device],
        )


def _bound(
    function: "Callable[[Tensor], list[Tensor]]", x: "Tensor"
) -> "Callable[[], list[Tensor]]":
    return lambda: function(x)


def _peers(weights: "list[Tensor]", bits: int) -> "dict[str, Callable[[Tensor], list[Tensor]]]":
    """Functions of x [M, K] that multiply it with every weight in turn; ours first."""
    import torch

    from smml.kernels import int4, int8

    if bits == 8:
        packed = [int8.quantize_int8(w) for w in weights]
        linear = int8.linear_int8
    else:
        packed = [int4.quantize_int4(w) for w in weights]
        linear = int4.linear_int4
    found = {
        KERNEL: lambda x: [linear(x, w) for w in packed],
        "torch": lambda x: [torch.mm(x, w.T) for w in weights],
    }
    if weights[0].is_cuda and importlib.util.find_spec("torchao"):
        theirs = _torchao(weights, bits)
        if theirs:
            found["torchao"] = theirs
    return found


def _torchao(weights: "list[Tensor]", bits: int) -> "Callable[[Tensor], list[Tensor]] | None":
    """torchao's weight-only layers, compiled as its makers advise; None where its kernels are not installed."""
    import torch
    from torch import nn
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    layers = nn.ModuleList()
    for weight in weights:
        layer = nn.Linear(*weight.T.shape, bias=False, device="meta")
        layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
        layers.append(layer)
    try:
        quantize_(layers, Int8WeightOnlyConfig() if bits == 8 else Int4WeightOnlyConfig())
    except ImportError:  # its 4-bit kernels come in a package of their own
        return None
    return torch.compile(lambda x: [layer(x) for layer in layers], dynamic=False)


def _agree(shape: str, bits: int, results: "dict[str, list[Tensor]]") -> None:
    """Raise UserError where a peer's products are farther from PyTorch's than rounding to `bits` explains."""
    for peer, products in results.items():
        for product, wanted in zip(products, results["torch"], strict=True):
            off = float((product.double() - wanted.double()).norm() / wanted.double().norm())
            if not off <= TOLERANCE[bits]:
                raise UserError(
                    f"quant {shape}: {peer} in {bits} bits differs from PyTorch's result by {off:.1e}: report it."
                )
