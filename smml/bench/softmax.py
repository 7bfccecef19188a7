"""Softmax over rows: five operations of PyTorch, its own fused one, and the Triton kernel where it is compiled.

An exponential is no single FLOP. How many of them the device does a second is measured once, as a third ceiling
beside FLOP/s and bytes/s: on a GPU it is out of reach, on a CPU it can be what binds a softmax.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from smml import triton_mode
from smml.bench.setting import Setting
from smml.hardware.reach import cache_bytes, thread_count
from smml.measure import Record, record, slowed, time_call
from smml.roofline import Prediction, Work, elementwise

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

SIZES = {"cpu": (8192, 1024), "cuda": (65_536, 4096)}  # rows × columns, larger than the caches
EXP_PATIENCE_S = 0.3


def run(setting: Setting, exponentials: Record | None = None) -> Iterator[Record]:
    """Exponentials a second (measured unless given), then bytes a second of every implementation timed here."""
    exponentials = exponentials or exponential_rate(setting)
    yield exponentials
    rows, columns = SIZES[setting.device]
    for name, (call, work) in implementations(setting).items():
        yield setting.measure(
            f"softmax/{rows}x{columns}/{name}",
            call,
            work,
            inputs={"rows": rows, "columns": columns},
            unit="B/s",
            predicted=predict(setting, exponentials.value, rows, columns, fused=name != FIVE),
            flush=True,
        )


FIVE = "five-operations"


def exponential_rate(setting: Setting) -> Record:
    """Exponentials a second, as a ceiling: exp of a block that stays in the cache, over and over."""
    import torch

    size = cache_bytes(setting.machine) if setting.device != "cpu" else 2**18
    (x, out), _ = _operands(setting, 1, max(size // 8, 2**14))
    call = slowed(lambda: torch.exp(x, out=out), setting.slowdown)
    with thread_count(setting.threads("compute")):
        timing = time_call(call, device=setting.device, budget_s=EXP_PATIENCE_S)
    return record(
        f"ceiling/exp/{setting.profile.dtype}",
        timing,
        machine=setting.machine_id,
        source=setting.source,
        unit="exp/s",
        amount=x.numel(),
        inputs={"elements": x.numel(), "dtype": setting.profile.dtype},
        environment=setting.machine.environment(),
    )


def predict(
    setting: Setting, exponentials_per_s: float, rows: int, columns: int, *, fused: bool
) -> Prediction:
    """Time of a softmax of [rows, columns]: fused, the slower of memory and exponentials binds the one pass.

    Unfused, the five operations follow each other, so that their times add; only the third computes exponentials.
    """
    from smml.kernels import softmax

    roof, itemsize = setting.roof(), _itemsize(setting)
    exp_s = rows * columns / exponentials_per_s
    if fused:
        memory_s = roof.predict(softmax.work(rows, columns, itemsize)).memory_s
        return Prediction(exp_s, memory_s, roof.launch_s)
    memory_s = roof.predict(softmax.unfused_work(rows, columns, itemsize)).memory_s
    the_pass = roof.predict(elementwise(rows * columns, itemsize, in_place=True)).memory_s
    return Prediction(
        memory_s - the_pass + exp_s if exp_s > the_pass else 0.0, memory_s, 5 * roof.launch_s
    )


def implementations(setting: Setting) -> dict[str, tuple[Callable[[], object], Work]]:
    """Name → call and what it moves; an interpreted kernel is left out, since its time says nothing of the kernel."""
    import torch

    from smml.kernels import softmax

    rows, columns = SIZES[setting.device]
    (x, out), itemsize = _operands(setting, rows, columns)
    fused = softmax.work(rows, columns, itemsize)
    found: dict[str, tuple[Callable[[], object], Work]] = {
        FIVE: (lambda: softmax.unfused(x, out), softmax.unfused_work(rows, columns, itemsize)),
        "torch": (lambda: torch.softmax(x, -1, out=out), fused),
    }
    if not triton_mode.INTERPRETED:
        found["smml"] = (lambda: softmax.softmax(x), fused)
    return found


def _itemsize(setting: Setting) -> int:
    import torch

    return getattr(torch, setting.profile.dtype).itemsize


def _operands(setting: Setting, rows: int, columns: int) -> tuple[tuple["Tensor", "Tensor"], int]:
    """Random-normal numbers [rows, columns], memory for a result, and the bytes of an element."""
    import torch

    generator = torch.Generator(setting.device).manual_seed(0)
    x = torch.randn(rows, columns, generator=generator, device=setting.device)
    x = x.to(getattr(torch, setting.profile.dtype))
    return (x, torch.empty_like(x)), x.itemsize
