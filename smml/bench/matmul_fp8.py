"""FP8 products over the shapes of Llama's layers: the kernel beside PyTorch's own, and the bfloat16 product they replace.

PyTorch's `_scaled_mm` adds in float32 or, faster, in what the matrix unit keeps; like is held against like. Every
call is captured as a graph, so that what is timed is the GPU and not the Python that launches it.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from smml.bench.cuda_graph import captured
from smml.bench.matmul import layers
from smml.bench.peers import KERNEL, geometric_mean, side_by_side
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.measure import Record

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

TOKENS = 8192
LLAMAS = ("llama-3.2-1b", "llama-3.1-8b")
# Interpreted, a product of a whole layer would take minutes.
CPU_SHAPES = ((16, 16, 32), (8, 24, 48))
DTYPE = "float8_e4m3fn"
OWN = "scaled_mm"
BUDGET_S = {"cpu": 0.05, "cuda": 0.2}  # for each call
# Two ways to add may differ by a rounding of the result to bfloat16; the unit's own sums by some more.
TOLERANCE = {"float32": 2**-7, "fast": 4e-2}


def run(setting: Setting) -> Iterator[Record]:
    """FLOP/s of every shape, once adding in float32 and once fast, and both times the mean of the ratios to `_scaled_mm`.

    Yields nothing where the GPU multiplies no fp8, and says so.
    """
    from smml.kernels import fp8_linear

    if not fp8_linear.available(setting.device):
        print(
            "fp8 products: not measured, this GPU has none (compute capability 8.9 and more has)."
        )
        return
    for adding in TOLERANCE:
        ratios = []
        for shape in shapes(setting.device):
            for record in product(setting, *shape, adding):
                if f"/{KERNEL}-to-{OWN}/" in record.name:
                    ratios.append(record)
                yield record
        yield geometric_mean(setting, f"matmul-fp8/mean/{adding}/{KERNEL}-to-{OWN}", ratios)


def shapes(device: str) -> tuple[tuple[int, int, int], ...]:
    """Tokens × output × input of the linear layers that are trained in fp8: all of a Llama's but the last."""
    if device == "cpu":
        return CPU_SHAPES
    found = [size for model in LLAMAS for name, size in layers(model).items() if name != "logits"]
    return tuple((TOKENS, n, k) for n, k in found)


def product(setting: Setting, m: int, n: int, k: int, adding: str) -> Iterator[Record]:
    """x [m, k] · weight [n, k]ᵀ with scales of rows, random-normal, by every peer; UserError where one's result is another."""
    import torch

    from smml.kernels.matmul import fp8

    generator = torch.Generator(setting.device).manual_seed(0)
    x, weight = (
        torch.randn(shape, generator=generator, device=setting.device).bfloat16()
        for shape in ((m, k), (n, k))
    )
    (a, a_scale), (b, b_scale) = fp8.quantize(x), fp8.quantize(weight)
    fast, one = adding == "fast", torch.ones((), device=setting.device)

    def own(scale: "Tensor", other: "Tensor") -> "Tensor":
        return torch._scaled_mm(
            a, b.T, scale_a=scale, scale_b=other, out_dtype=torch.bfloat16, use_fast_accum=fast
        )

    rows = (a_scale, b_scale.T)
    calls = {
        KERNEL: lambda: fp8.matmul(a, b.T, *rows, fast_accumulation=fast),
        OWN: lambda: own(*rows),
    }
    _check(calls, fp8.reference(a, b.T, *rows), TOLERANCE[adding])
    # Of other results, for comparison: one scale for all rows, and no fp8.
    calls |= {f"{OWN}-one-scale": lambda: own(one, one), "bfloat16": lambda: x @ weight.T}
    calls = {name: captured(call, setting.device) for name, call in calls.items()}
    work = fp8.work(m, n, k)
    yield from side_by_side(
        setting,
        f"matmul-fp8/{m}x{n}x{k}/{adding}",
        calls,
        amount=work.flops,
        unit="FLOP/s",
        work=work,
        inputs={"m": m, "n": n, "k": k, "operands": DTYPE, "adding": adding},
        # Where torch multiplies no fp8 by itself it converts, and the roof is that of what it converts to.
        dtype=DTYPE if DTYPE in setting.ceilings.flops else setting.profile.dtype,
        ours=KERNEL,
        budget_s=BUDGET_S[setting.device],
    )


def _check(calls: "dict[str, Callable[[], Tensor]]", wanted: "Tensor", tolerance: float) -> None:
    for name, call in calls.items():
        error = ((call().float() - wanted.float()).norm() / wanted.float().norm()).item()
        if not error <= tolerance:
            raise UserError(
                f"matmul-fp8: {name} differs from the reference by {error:.2g}, more than {tolerance:.2g}: "
                "its speed says nothing; run pytest -m gpu tests/test_kernels_fp8.py."
            )
