"""The most memory that a call holds beside what was there before: torch's allocator watched, on a GPU or a CPU."""

import gc
import os
from collections.abc import Callable


def peak_memory_bytes(call: Callable[[], object], device: str = "cpu") -> int:
    """Bytes that torch's allocator holds at the worst moment of `call()`, less those held at its start.

    On a GPU the allocator keeps that figure. On a CPU its every allocation and release on this thread is recorded by
    the profiler, and they are summed in order; what libraries allocate by themselves is not seen on either.
    """
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault(
        "KINETO_LOG_LEVEL", "99"
    )  # else it announces each start and stop on stderr
    gc.collect()  # garbage of before, released meanwhile, would count as the call's
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        call()
    events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
