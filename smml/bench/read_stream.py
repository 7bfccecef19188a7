"""Bandwidth of a stream that only reads: what bounds a decode step, which reads all weights and writes next to nothing."""

from dataclasses import replace

from smml.bench.setting import Setting
from smml.hardware.ceiling import Ceiling
from smml.hardware.reach import thread_candidates, thread_count
from smml.measure import time_interleaved

WIDTH = 4096


def reading(setting: Setting) -> Setting:
    """The same setting with the bandwidth of reading in place of that of copying, measured now.

    A core reads over one path and writes over another, so that bytes/s counted over a copy can be twice those
    of a stream that only reads. Best of a sum and a matrix-vector product over thread counts; nothing is allocated
    on a write, since nothing is written.
    """
    import torch

    size = setting.ceilings.bandwidth.settings["array_bytes"]
    matrix = torch.ones(size // 4 // WIDTH, WIDTH, device=setting.device)
    vector = torch.ones(WIDTH, device=setting.device)
    calls = {"sum": matrix.sum, "matrix-vector": lambda: matrix.mv(vector)}
    best: Ceiling | None = None
    for threads in thread_candidates(setting.machine) if setting.device == "cpu" else [0]:
        with thread_count(threads):
            timings = time_interleaved(calls, device=setting.device, budget_s=0.3)
        for pattern, timing in timings.items():
            read = matrix.nbytes
            settings = {"pattern": pattern, "array_bytes": read, "threads": threads}
            found = Ceiling(
                value=read / timing.p50,
                p20=read / timing.p80,
                p80=read / timing.p20,
                n=timing.n,
                unit="B/s",
                settings=settings,
            )
            best = found if best is None or found.value > best.value else best
    update = {"bandwidth": best, "write_allocate": 0.0}
    return replace(setting, ceilings=setting.ceilings.model_copy(update=update))
