"""Attention over lengths: three operations with all scores in memory, and PyTorch's flash attention, in time and bytes.

Two ceilings beside the roof's say what binds the fused one: products as narrow as a head, and exponentials a second.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from smml.bench.setting import Setting
from smml.bench.softmax import exponential_rate
from smml.bench.step_memory import peak_bytes
from smml.hardware.reach import cache_bytes, thread_count
from smml.kernels import flash_attention
from smml.measure import Record, record, slowed, time_call
from smml.roofline import Prediction

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

HEADS = {"cpu": 4, "cuda": 16}
HEAD_DIM = 64
LENGTHS = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192)}
THREE, FLASH = "three-operations", "flash"
TILE = (256, 512)  # queries × keys that PyTorch's CPU kernel multiplies at a time
PATIENCE_S = 0.3


def run(setting: Setting) -> Iterator[Record]:
    """Both ceilings, then FLOP/s of either way at every length of this device, with predictions."""
    ceilings = measured_ceilings(setting)
    yield from ceilings
    for tokens in LENGTHS[setting.device]:
        for way in (THREE, FLASH):
            yield measure(setting, ceilings, tokens, way)


def measured_ceilings(setting: Setting) -> tuple[Record, Record]:
    """FLOP/s of products of one tile of each head, and exponentials a second."""
    return _product_rate(setting), exponential_rate(setting)


def moved(setting: Setting, ceilings: tuple[Record, Record]) -> float:
    """How far both ceilings and the roof's have moved since they were measured (0.1 = 10 %): a second of measuring."""
    pairs = zip(measured_ceilings(setting), ceilings, strict=True)
    ratios = [after.value / before.value for after, before in pairs]
    return max(setting.drift(), *(max(ratio, 1 / ratio) - 1 for ratio in ratios))


def measure(
    setting: Setting, ceilings: tuple[Record, Record], tokens: int, way: str, causal: bool = False
) -> Record:
    """FLOP/s of one way at one length, by the FLOPs of both products over the pairs that are visible."""
    sizes = _sizes(setting, tokens)
    work = flash_attention.work(**sizes, kv_heads=sizes["heads"], causal=causal)
    if way == THREE:
        work = flash_attention.unfused_work(**sizes)
    return setting.measure(
        f"attention-lengths/{tokens}/{way}{'-causal' if causal else ''}",
        call(setting, tokens, way, causal),
        work,
        inputs=sizes | {"way": way, "causal": causal},
        predicted=predict(setting, ceilings, tokens, way, causal),
    )


def predict(
    setting: Setting, ceilings: tuple[Record, Record], tokens: int, way: str, causal: bool = False
) -> Prediction:
    """Time of one way: products, exponentials and bytes.

    A core of a CPU does one after the other, so that their times add; a GPU hides the shorter behind the longer.
    """
    product, exponentials = (ceiling.value for ceiling in ceilings)
    sizes = _sizes(setting, tokens)
    work = flash_attention.work(**sizes, kv_heads=sizes["heads"], causal=causal)
    if way == THREE:
        work = flash_attention.unfused_work(**sizes)
    pairs = sizes["heads"] * flash_attention.visible_pairs(tokens, tokens, causal)
    roof = setting.roof()
    products_s, exp_s = 4 * pairs * HEAD_DIM / product, pairs / exponentials
    scores = 2 * pairs * sizes["itemsize"]
    if way == THREE and scores > cache_bytes(setting.machine):
        memory_s = roof.predict(work).memory_s
    else:
        memory_s = work.bytes / setting.ceilings.cache_bandwidth.value
    if setting.device == "cpu":
        return Prediction(products_s + exp_s + memory_s, memory_s)
    return Prediction(max(products_s, exp_s), memory_s, work.launches * roof.launch_s)


def extra_bytes(setting: Setting, tokens: int, way: str) -> tuple[int, int]:
    """Bytes beside operands and result at one length: (counted, measured from what PyTorch allocates)."""
    sizes = _sizes(setting, tokens)
    fused = way == FLASH
    counted = flash_attention.extra_bytes(
        **{name: size for name, size in sizes.items() if name != "head_dim"}, fused=fused
    )
    attend, kept = call(setting, tokens, way), []
    result = attend().nbytes
    held = _held(setting.device)
    peak = peak_bytes(lambda: kept.append(attend()), held, setting.device) - held
    # Three operations hold the most when scores and weights exist, before the result does.
    return counted, peak - result if fused else peak


def _held(device: str) -> int:
    if device == "cpu":
        return 0
    import torch

    return torch.cuda.memory_allocated()


def call(setting: Setting, tokens: int, way: str, causal: bool = False) -> "Callable[[], Tensor]":
    """A call of one way on random-normal q, k and v [1, H, T, d], without autograd."""
    import torch
    from torch.nn import functional
    from torch.nn.attention import SDPBackend, sdpa_kernel

    generator = torch.Generator(setting.device).manual_seed(0)
    shape = (1, HEADS[setting.device], tokens, HEAD_DIM)
    dtype = getattr(torch, setting.profile.dtype)
    q, k, v = (
        torch.randn(shape, generator=generator, device=setting.device).to(dtype) for _ in range(3)
    )

    def three_operations() -> "Tensor":
        return torch.softmax((q * HEAD_DIM**-0.5) @ k.mT, -1) @ v

    def flash() -> "Tensor":
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return three_operations if way == THREE else flash


def _product_rate(setting: Setting) -> Record:
    """FLOP/s of one tile of queries times one of keys of every head, as wide as a head and no wider."""
    import torch

    m, n = TILE
    heads = HEADS[setting.device]
    generator = torch.Generator(setting.device).manual_seed(0)
    dtype = getattr(torch, setting.profile.dtype)
    q, k = (
        torch.randn(heads, rows, HEAD_DIM, generator=generator, device=setting.device).to(dtype)
        for rows in TILE
    )
    out = torch.empty(heads, m, n, dtype=dtype, device=setting.device)
    product = slowed(lambda: torch.bmm(q, k.mT, out=out), setting.slowdown)
    with thread_count(setting.threads("compute")):
        timing = time_call(product, device=setting.device, budget_s=PATIENCE_S)
    return record(
        f"ceiling/product-{HEAD_DIM}/{setting.profile.dtype}",
        timing,
        machine=setting.machine_id,
        source=setting.source,
        unit="FLOP/s",
        amount=2 * heads * m * n * HEAD_DIM,
        inputs={"heads": heads, "m": m, "n": n, "k": HEAD_DIM, "dtype": setting.profile.dtype},
        environment=setting.machine.environment(),
    )


def _sizes(setting: Setting, tokens: int) -> dict[str, int]:
    import torch

    return {
        "batch": 1,
        "heads": HEADS[setting.device],
        "queries": tokens,
        "keys": tokens,
        "head_dim": HEAD_DIM,
        "itemsize": getattr(torch, setting.profile.dtype).itemsize,
    }
