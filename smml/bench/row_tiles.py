"""What sharing a read saves, at a size that every machine shows: a product done in slabs of rows, each reading all of B."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from smml.bench.setting import Setting
from smml.kernels.matmul.traffic import asked
from smml.measure import Record
from smml.roofline import Prediction, Work, gemm

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

ROWS = 128
HEIGHTS = (1, 16, 128)  # rows a slab


def run(setting: Setting) -> Iterator[Record]:
    """FLOP/s of A [ROWS, width] · B [width, width] in slabs of each height; B is larger than the caches."""
    import torch

    width = setting.profile.linear_width
    generator = torch.Generator(setting.device).manual_seed(0)
    dtype = getattr(torch, setting.profile.dtype)
    a, b = (
        torch.randn(shape, generator=generator, device=setting.device).to(dtype)
        for shape in ((ROWS, width), (width, width))
    )
    out = torch.empty_like(a)
    for height in HEIGHTS:
        yield setting.measure(
            f"row-tiles/{height}x{width}",
            _call(a, b, out, height),
            work(width, a.itemsize, height),
            inputs={"rows": ROWS, "width": width, "height": height},
            predicted=predict(setting, width, a.itemsize, height),
        )


def slabs(a: "Tensor", b: "Tensor", out: "Tensor", height: int) -> "Tensor":
    """out [M, N] = a [M, K] · b [K, N], `height` rows at a time."""
    import torch

    for part, rows in zip(out.split(height), a.split(height), strict=True):
        torch.mm(rows, b, out=part)
    return out


def work(width: int, itemsize: int, height: int) -> Work:
    """What the slabs ask for together: B once for each of them."""
    return asked(ROWS, width, width, itemsize, (height, width))


def predict(setting: Setting, width: int, itemsize: int, height: int) -> Prediction:
    """The slabs one after the other, each as long as the roof says of a product of its height."""
    count = ROWS // height
    one = setting.roof().predict(gemm(height, width, width, itemsize))
    return Prediction(one.compute_s * count, one.memory_s * count, one.launch_s * count)


def _call(a: "Tensor", b: "Tensor", out: "Tensor", height: int) -> Callable[[], object]:
    return lambda: slabs(a, b, out, height)
