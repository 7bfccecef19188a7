"""The matmul ladder beside cuBLAS at one large size, and the best rung over the linear layers of Llamas.

Every call is captured as a graph, torch's too, so that what is timed is the GPU and not the Python that launches it.
"""

import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from smml.bench.cuda_graph import captured
from smml.bench.peers import KERNEL, OURS, geometric_mean, side_by_side
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.kernels.matmul import LADDER
from smml.llama.config import named_config
from smml.measure import Record
from smml.roofline import gemm

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

SQUARE = {"cpu": 64, "cuda": 8192}
NAIVE_SQUARE = {"cpu": 8, "cuda": 2048}  # a rung that would take seconds at the size of the others
LLAMAS = {  # name and tokens of a batch
    "cpu": (("tiny", 32),),
    "cuda": (("llama-3.2-1b", 8192), ("llama-3.1-8b", 8192), ("llama-3.1-70b", 4096)),
}
BUDGET_S = {"cpu": 0.05, "cuda": 0.3}  # for each call
TOLERANCE = {
    "float32": 1e-5,
    "float16": 2e-3,
    "bfloat16": 1e-2,
}  # of a peer's result, ‖difference‖ ÷ ‖result‖

Call = Callable[["Tensor", "Tensor"], "Tensor"]


def run(setting: Setting) -> Iterator[Record]:
    """The ladder, then the linear layers and the geometric mean of their ratios."""
    yield from ladder(setting)
    ratios = []
    for model, tokens in LLAMAS[setting.device]:
        for record in llama(setting, model, tokens):
            yield record
            ratios += [record] if record.unit == "×" else []
    dtype = setting.profile.dtype
    yield geometric_mean(setting, f"gemm-llama/geomean/{KERNEL}-to-torch/{dtype}", ratios)


def rungs(device: str, dtype: str) -> dict[str, Call]:
    """Name → product of every rung that runs on `device` in `dtype`, in the ladder's order."""
    import torch

    found: dict[str, Call] = {}
    for name in LADDER:
        module = importlib.import_module(f"smml.kernels.matmul.{name}")
        takes = getattr(module, "DTYPES", (getattr(torch, dtype),))
        # Only a rung that does not run everywhere has this.
        runs = getattr(module, "available", lambda _: True)
        if runs(device) and getattr(torch, dtype) in takes:
            found[name] = module.matmul
    return found


def ladder(setting: Setting) -> Iterator[Record]:
    """FLOP/s of every rung and of torch.matmul on square matrices; ratios are those of the last rung.

    The naive rung has a size of its own, with torch.matmul beside it at that size.
    """
    found = rungs(setting.device, setting.profile.dtype)
    naive = {"naive": found.pop("naive")}
    for size, calls in ((NAIVE_SQUARE, naive), (SQUARE, found)):
        n = size[setting.device]
        # Not "matmul/8x8x8/tiled": an interpreted rung's time says nothing of the rung.
        prefix = "" if KERNEL == OURS else f"{KERNEL}/"
        named = {f"{prefix}{name}": call for name, call in calls.items()}
        yield from _compare(setting, f"matmul/{n}x{n}x{n}", (n, n, n), named, list(named)[-1])


def compiled_ladder(setting: Setting) -> list[Record]:
    """The ladder's records where the rungs are compiled; none where they are interpreted and have no speed to show."""
    return list(ladder(setting)) if KERNEL == OURS else []


def llama(setting: Setting, model: str, tokens: int) -> Iterator[Record]:
    """FLOP/s of the product that smml chooses and of torch.matmul in each linear layer x [tokens, K] · Wᵀ of a Llama."""
    from smml.kernels.matmul.product import matmul

    for layer, (n, k) in layers(model).items():
        name = f"gemm-llama/{model}/{layer}/{tokens}x{n}x{k}"
        yield from _compare(setting, name, (tokens, n, k), {KERNEL: matmul}, KERNEL)


def layers(model: str) -> dict[str, tuple[int, int]]:
    """Shapes [N, K] of the weights of a Llama's linear layers, query, key and value as one, gate and up as one."""
    c = named_config(model)
    return {
        "qkv": (c.query_dim + 2 * c.kv_dim, c.dim),
        "out": (c.dim, c.query_dim),
        "gate_up": (2 * c.feed_forward_dim, c.dim),
        "down": (c.dim, c.feed_forward_dim),
        "logits": (c.vocab_size, c.dim),
    }


def _compare(
    setting: Setting, name: str, size: tuple[int, int, int], calls: dict[str, Call], ours: str
) -> Iterator[Record]:
    """Records of `calls` and torch.matmul on A [m, k] and B [k, n] stored as [n, k], once all agree."""
    import torch

    m, n, k = size
    dtype = getattr(torch, setting.profile.dtype)
    generator = torch.Generator(setting.device).manual_seed(0)
    a, weight = (
        torch.randn(shape, generator=generator, device=setting.device).to(dtype)
        for shape in ((m, k), (n, k))
    )
    b, calls = weight.T, calls | {"torch": torch.matmul}
    with torch.inference_mode():
        expected = torch.matmul(a, b)
        for peer, call in calls.items():
            off = (call(a, b) - expected).norm(dtype=torch.float32)
            if not off <= TOLERANCE[setting.profile.dtype] * expected.norm(dtype=torch.float32):
                raise UserError(
                    f"{name}: {peer} differs from torch.matmul by {off:.2e}: its time would mean nothing. Report it."
                )
        del expected
        bound = {peer: _bound(call, a, b, setting.device) for peer, call in calls.items()}
        work = gemm(m, n, k, a.itemsize)
        yield from side_by_side(
            setting,
            name,
            bound,
            amount=work.flops,
            unit="FLOP/s",
            work=work,
            inputs={"m": m, "n": n, "k": k},
            ours=ours,
            budget_s=BUDGET_S[setting.device],
        )


def _bound(call: Call, a: "Tensor", b: "Tensor", device: str) -> Callable[[], object]:
    return captured(lambda: call(a, b), device)
