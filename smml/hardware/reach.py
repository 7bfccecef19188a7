"""Measure what this machine reaches: matrix products per dtype, memory and cache streams, a launch.

A ceiling is what torch itself reaches here with its best settings (threads, layout, size); a kernel is then
judged against it, and against the datasheet's peak where the catalogue holds one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from smml.hardware.ceiling import Ceiling, Ceilings
from smml.hardware.machine import Machine
from smml.measure import MIN_SAMPLES, Timing, time_call, time_interleaved


def measure(machine: Machine) -> Ceilings:
    """Measure every ceiling of `machine` now, on its first GPU, else on its CPU."""
    device = machine.torch_device
    threads = [0] if device == "cuda" else thread_candidates(machine)
    flops, unsupported = {}, {}
    for dtype in GPU_DTYPES if device == "cuda" else CPU_DTYPES:
        try:
            with float32_precision("high" if dtype == "tf32" else "highest"):
                flops[dtype] = gemm_ceiling(dtype, device, threads)
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            unsupported[dtype] = str(error).splitlines()[0]
    block = cache_bytes(machine) // 8
    size = memory_test_bytes(machine)
    bandwidth, write_allocate = bandwidth_ceiling(size, device, threads)
    cache_bandwidth, _ = bandwidth_ceiling(block, device, threads)
    return Ceilings(
        fingerprint=machine.fingerprint,
        device=machine.device_name,
        torch=version("torch"),
        date=datetime.now(UTC).replace(microsecond=0),
        flops=flops,
        unsupported=unsupported,
        bandwidth=bandwidth,
        cache_bandwidth=cache_bandwidth,
        cache_block_bytes=block,
        write_allocate=write_allocate,
        launch=launch_ceiling(device),
    )


CPU_DTYPES = ("float32", "bfloat16", "float16", "float64")
GPU_DTYPES = ("float32", "tf32", "bfloat16", "float16", "float8_e4m3fn", "int8")
LAYOUTS = ("nn", "nt")  # the second operand as stored, or transposed
LONGEST_CALL_S = (
    0.25  # sizes grow until one product takes this long: large enough to be at the ceiling
)


def thread_candidates(machine: Machine) -> list[int]:
    """Thread counts worth trying: one, the physical cores, all usable cores, and the powers of two between."""
    usable = machine.cpu.usable_cores
    physical = min(machine.cpu.physical_cores, usable)
    powers = {2**i for i in range(usable.bit_length()) if 2**i >= physical // 4}
    return sorted({1, physical, usable} | powers)


def cache_bytes(machine: Machine) -> int:
    """Bytes of the cache nearest to memory: a CPU's last level, a GPU's L2; 8 MiB where the machine does not say."""
    if machine.torch_device == "cuda":
        import torch

        return torch.cuda.get_device_properties(0).L2_cache_size
    return machine.cpu.l3_bytes or machine.cpu.l2_bytes or 8 * 2**20


def memory_test_bytes(machine: Machine) -> int:
    """Size of an array that cannot stay in cache: 8 × the last cache, at least 64 MiB, at most 1/16 of memory."""
    on_gpu = machine.torch_device == "cuda"
    memory = (machine.gpus[0].memory_bytes if on_gpu else None) or machine.memory_bytes
    return int(min(max(8 * cache_bytes(machine), 64 * 2**20), memory // 16))


def gemm_ceiling(dtype: str, device: str, threads: list[int]) -> Ceiling:
    """Best FLOP/s of a square matrix product in `dtype` over threads, layouts and sizes."""
    sizes = (512, 1024, 2048) if device == "cpu" else (4096, 8192, 16384)
    size = sizes[0] // 2
    with thread_count(threads[0]):
        for candidate in sizes:
            call = matmul(candidate // 2, dtype, device, "nn")
            # The fastest of a few: a busy moment must not make the sizes too small to reach the ceiling.
            once = time_call(call, device=device, budget_s=0.0, max_samples=MIN_SAMPLES).quantile(0)
            if 8 * once > LONGEST_CALL_S:
                break
            size = candidate
            if 64 * once > 2 * LONGEST_CALL_S:  # the next size is out of reach: not even its trial
                break
    trials = {}
    for count in threads:
        with thread_count(count):
            calls = {k: matmul(max(size // 2, 256), dtype, device, k) for k in LAYOUTS}
            timings = time_interleaved(calls, device=device, budget_s=0.1)
            trials |= {(timing.p50, count): layout for layout, timing in timings.items()}
    count = min(trials)[1]
    with thread_count(count):
        finals = {
            (n, layout): matmul(n, dtype, device, layout)
            for n in {size, size * 3 // 4, max(size // 2, 256)}
            for layout in LAYOUTS
        }
        timings = time_interleaved(finals, device=device, budget_s=0.2)
    (n, layout), timing = max(timings.items(), key=lambda item: item[0][0] ** 3 / item[1].p50)
    settings = {"threads": count, "layout": layout, "n": n} if count else {"layout": layout, "n": n}
    return _rate(timing, 2 * n**3, "FLOP/s", settings)


def matmul(n: int, dtype: str, device: str, layout: str):
    """A call that multiplies two random-normal [n, n] matrices; layout "nt" takes the second one transposed."""
    import torch

    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(n, n, generator=generator, device=device) for _ in range(2))
    if dtype == "float8_e4m3fn":
        one = torch.ones((), device=device)
        a8, b8 = (
            a.to(torch.float8_e4m3fn),
            b.to(torch.float8_e4m3fn).t(),
        )  # the hardware wants B column-major
        return lambda: torch._scaled_mm(a8, b8, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    if dtype == "int8":
        a8, b8 = (x.clamp(-2, 2).mul(63).to(torch.int8) for x in (a, b))
        return lambda: torch._int_mm(a8, b8.t())
    kind = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
    a, b = a.to(kind), b.to(kind)
    out = torch.empty(n, n, dtype=kind, device=device)
    b = b.t() if layout == "nt" else b
    return lambda: torch.mm(a, b, out=out)


def bandwidth_ceiling(size_bytes: int, device: str, threads: list[int]) -> tuple[Ceiling, float]:
    """Best bytes/s over threads, and the write-allocate share, on arrays of `size_bytes`.

    In place (y = a·y) every line that is written was read: 2 bytes move for each byte of the array. A copy
    asks for 2 as well; what it takes longer than that is the fetch of the lines that it overwrites.
    """
    import torch

    x = torch.randn(size_bytes // 4, device=device)
    y = torch.randn_like(x)
    best: tuple[Ceiling, float] | None = None
    for count in threads:
        with thread_count(count):
            in_place = time_call(lambda: y.mul_(1.0), device=device, budget_s=0.3)
            copy = time_call(lambda: y.copy_(x), device=device, budget_s=0.3)
        extra = 0.0 if device == "cuda" else min(max(2 * copy.p50 / in_place.p50 - 2, 0.0), 1.0)
        pattern, timing, moved = "in place", in_place, 2.0
        if (2 + extra) / copy.p50 > 2 / in_place.p50:
            pattern, timing, moved = "copy", copy, 2 + extra
        settings = {"pattern": pattern, "array_bytes": size_bytes} | (
            {"threads": count} if count else {}
        )
        ceiling = _rate(timing, moved * size_bytes, "B/s", settings)
        if best is None or ceiling.value > best[0].value:
            best = ceiling, extra
    return best


def drift(then: Ceilings, dtype: str, device: str) -> float:
    """How far the machine has moved since `then`: the larger of |1 − now / then| of its product and its stream.

    Both are measured again, for about half a second, with the settings of the ceilings.
    """
    import torch

    ceiling = then.flops[dtype]
    with thread_count(ceiling.settings.get("threads", 0)):
        n = ceiling.settings["n"]
        call = matmul(n, dtype, device, ceiling.settings["layout"])
        product = 2 * n**3 / time_call(call, device=device, budget_s=0.2).p50
    stream = then.bandwidth
    with thread_count(stream.settings.get("threads", 0)):
        size = stream.settings["array_bytes"]
        y = torch.ones(size // 4, device=device)
        moved = 2 * size / time_call(lambda: y.mul_(1.0), device=device, budget_s=0.2).p50
    return max(abs(1 - product / ceiling.value), abs(1 - moved / stream.value))


def launch_ceiling(device: str) -> Ceiling:
    """Seconds that one operation on a single element takes, back to back."""
    import torch

    x = torch.zeros(1, device=device)
    timing = time_call(lambda: x.add_(1.0), device=device, budget_s=0.3)
    return Ceiling(value=timing.p50, p20=timing.p20, p80=timing.p80, n=timing.n, unit="s")


@contextmanager
def thread_count(count: int) -> Iterator[None]:
    """torch with `count` CPU threads inside the block; 0 leaves them alone."""
    import torch

    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def float32_precision(mode: str) -> Iterator[None]:
    """float32 products in full precision ("highest") or as TF32 ("high") inside the block."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(mode)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _rate(timing: Timing, amount: float, unit: str, settings: dict[str, Any]) -> Ceiling:
    return Ceiling(
        value=amount / timing.p50,
        p20=amount / timing.p80,
        p80=amount / timing.p20,
        n=timing.n,
        unit=unit,
        settings=settings,
    )
