"""One row through a linear layer whose weights are stored in 32, 16, 8 or 4 bits: what is read, and how long it takes.

On a GPU the 8- and 4-bit products are `smml.kernels`; on a CPU they are PyTorch's own, which take a bfloat16 row.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from smml.bench.read_stream import reading
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.hardware.reach import cache_bytes, thread_count
from smml.measure import Record, Timing, time_interleaved
from smml.roofline import Prediction, Work, gemm

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

Format = tuple[Callable[[], "Tensor"], "Tensor", Work]  # product, the weights it stands for, work
WIDTH = {"cpu": 4096, "cuda": 8192}
IN_CACHE = 512
BUDGET_S = 0.3  # for each call
GROUP = 128
# ‖difference‖ ÷ ‖result‖ of a bfloat16 row and result, against the stored weights multiplied exactly.
TOLERANCE = 2e-2


def run(setting: Setting) -> Iterator[Record]:
    """Bytes per second of a square layer in each format, out of cold caches, all timed in turn, with a prediction.

    Predicted is the larger of two terms: the bytes from memory, and the weights unpacked and multiplied at the speed
    of a layer that stays in the cache. Raises UserError where a product is not that of its weights as they are stored.
    """
    setting, width = reading(setting), WIDTH[setting.device]
    in_cache = _timed(setting, _checked(setting, IN_CACHE), 0)
    layer = _checked(setting, width)
    timings = _timed(setting, layer, 2 * cache_bytes(setting.machine))
    for name, (_, _, work) in layer.items():
        unpacked = in_cache[name].p50 * (width / IN_CACHE) ** 2
        # A GPU is not filled by a layer that fits into its cache: its unpacking stands beside the bytes, hidden.
        compute_s = unpacked if setting.device == "cpu" else 0.0
        predicted = Prediction(compute_s, setting.roof().predict(work).memory_s)
        inputs = {"format": name, "width": width, "rows": 1}
        yield setting.record(f"weight-format/{name}", timings[name], work, predicted, inputs, "B/s")


def _timed(setting: Setting, formats: "dict[str, Format]", flush_bytes: int) -> dict[str, Timing]:
    with thread_count(setting.threads("memory")):
        return time_interleaved(
            {name: call for name, (call, _, _) in formats.items()},
            device=setting.device,
            budget_s=BUDGET_S,
            target_spread=0.0,
            flush_bytes=flush_bytes,
        )


def _checked(setting: Setting, width: int) -> "dict[str, Format]":
    """All formats of a square layer of random-normal weights, their products compared with the exact ones."""
    import torch

    generator = torch.Generator(setting.device).manual_seed(0)
    weight, x = (
        torch.randn(rows, width, generator=generator, device=setting.device) for rows in (width, 1)
    )
    found = _formats(weight, x, setting.device)
    for name, (call, stored, _) in found.items():
        wanted = x.double() @ stored.double().T
        off = float((call().double() - wanted).norm() / wanted.norm())
        if not off <= TOLERANCE:
            raise UserError(f"{name}: the product differs from that of its weights by {off:.1e}.")
    return found


def _formats(weight: "Tensor", x: "Tensor", device: str) -> "dict[str, Format]":
    """Each format of `weight` [N, K], multiplied with x [1, K]."""
    import torch
    from torch.nn import functional

    from smml.kernels import int4, int8

    width = weight.shape[0]
    half, row = weight.bfloat16(), x.bfloat16()
    eight, four = int8.quantize_int8(half), int4.quantize_int4(half, GROUP)
    of_eight, of_four = int8.dequantize(eight), int4.dequantize(four)
    if device == "cuda":
        in_eight, in_four = (
            lambda: int8.linear_int8(row, eight),
            lambda: int4.linear_int4(row, four),
        )
    else:
        integers = (of_eight / eight.scale[:, None]).round().to(torch.int8)
        scale = eight.scale.bfloat16()
        steps = four.scale.T.repeat_interleave(GROUP, 1)
        nibbles = (of_four / steps).round().int() - int4.LEAST
        blocked = torch.ops.aten._convert_weight_to_int4pack_for_cpu(nibbles, 1)
        # Scale and zero point, side by side.
        pairs = torch.stack((four.scale, torch.zeros_like(four.scale)), -1).bfloat16()
        in_eight, in_four = (
            lambda: torch._weight_int8pack_mm(row, integers, scale),
            lambda: torch.ops.aten._weight_int4pack_mm_for_cpu(row, blocked, GROUP, pairs),
        )
    return {
        "float32": (lambda: functional.linear(x, weight), weight, gemm(1, width, width, 4)),
        "bfloat16": (lambda: functional.linear(row, half), half, gemm(1, width, width, 2)),
        "int8": (in_eight, of_eight, int8.work(1, width, width, 2)),
        "int4": (in_four, of_four, int4.work(1, width, width, 2, GROUP)),
    }
