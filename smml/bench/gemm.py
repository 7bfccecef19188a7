"""Matrix products: square ones over sizes, and a linear layer over batch sizes."""

from collections.abc import Iterator

from smml.bench.setting import Setting
from smml.measure import Record
from smml.roofline import gemm


def run(setting: Setting) -> Iterator[Record]:
    """Every product of the profile: [n,n]·[n,n] for its sizes, [batch,w]·[w,w] for its batches."""
    for n in setting.profile.gemm_sizes:
        yield product(setting, n, n, n)
    width = setting.profile.linear_width
    for batch in setting.profile.batches:
        yield product(setting, batch, width, width, "linear")


def product(setting: Setting, m: int, n: int, k: int, family: str = "gemm") -> Record:
    """Measure C[m,n] = A[m,k]·B[k,n] on random-normal data, out of cold caches, against the roof."""
    import torch

    dtype = getattr(torch, setting.profile.dtype)
    generator = torch.Generator(setting.device).manual_seed(0)
    a, b = (
        torch.randn(shape, generator=generator, device=setting.device).to(dtype)
        for shape in ((m, k), (k, n))
    )
    out = torch.empty(m, n, dtype=dtype, device=setting.device)
    return setting.measure(
        f"{family}/{m}x{n}x{k}",
        lambda: torch.mm(a, b, out=out),
        gemm(m, n, k, dtype.itemsize),
        inputs={"m": m, "n": n, "k": k},
        flush=True,
    )
