"""Is the GEMM ceiling the best that torch can do? The ceiling beside torch's own settings, tried in one run."""

from collections.abc import Iterator
from itertools import product

from smml.bench.setting import Setting
from smml.hardware.reach import LAYOUTS, matmul, thread_candidates, thread_count
from smml.measure import Record, time_interleaved
from smml.roofline import gemm

SIZES = (1024, 1536, 2048)
FINALISTS = 4


def run(setting: Setting) -> Iterator[Record]:
    """The ceilings; then the product's own setting and its peers (threads × layout × size × operator), interleaved.

    All peers are tried, and the best few run a final against the ceiling's setting: of many noisy medians
    the largest is too large. The last line printed is the figure: the ceiling's setting over its best peer.
    """
    yield from setting.ceiling_records()
    own = setting.ceilings.flops[setting.profile.dtype].settings
    threads = thread_candidates(setting.machine) if setting.device == "cpu" else [0]
    grid = [("ceiling", own.get("threads", 0), own["layout"], own["n"])]
    sizes = SIZES if setting.device == "cpu" else tuple(4 * size for size in SIZES)
    grid += [
        (op, count, layout, n)
        for op, count, layout, n in product(("mm", "linear", "addmm"), threads, LAYOUTS, sizes)
        if (op, count, layout, n) != ("mm", *grid[0][1:])
    ]
    calls = {trial: _call(setting, *trial) for trial in grid}
    trials = time_interleaved(calls, device=setting.device, budget_s=0.4, target_spread=0.0)
    best = sorted(grid[1:], key=lambda trial: trial[3] ** 3 / trials[trial].p50)[-FINALISTS:]
    calls = {trial: calls[trial] for trial in (grid[0], *best)}
    final = time_interleaved(calls, device=setting.device, budget_s=2.0, target_spread=0.0)
    itemsize = 4 if setting.profile.dtype == "float32" else 2
    for (op, count, layout, n), timing in (trials | final).items():
        work = gemm(n, n, n, itemsize)
        yield setting.record(
            f"gemm-setting/{op}/threads-{count}/{layout}/{n}",
            timing,
            work,
            setting.roof().predict(work),
            {"operator": op, "threads": count, "layout": layout, "n": n},
        )
    rates = {trial: trial[3] ** 3 / timing.p50 for trial, timing in final.items()}
    share = rates[grid[0]] / max(rates[trial] for trial in best)
    print(
        f"the ceiling's setting reaches {share:.1%} of the best of {len(grid) - 1} peers in this run"
    )


def _call(setting: Setting, op: str, threads: int, layout: str, n: int):
    import torch

    dtype, device = setting.profile.dtype, setting.device
    if op in ("ceiling", "mm"):
        inner = matmul(n, dtype, device, layout)
    else:
        generator = torch.Generator(device).manual_seed(0)
        x, w, c = (
            torch.randn(n, n, generator=generator, device=device).to(getattr(torch, dtype))
            for _ in range(3)
        )
        if op == "linear":
            weight = w if layout == "nt" else w.t()
            inner = lambda: torch.nn.functional.linear(x, weight)  # noqa: E731
        else:
            right = w.t() if layout == "nt" else w
            inner = lambda: torch.addmm(c, x, right)  # noqa: E731

    def call() -> None:
        with thread_count(threads):
            inner()

    return call
