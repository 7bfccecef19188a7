"""Run a step under torch.profiler, write the trace file, read it back."""

import itertools
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from smml import paths
from smml.errors import UserError
from smml.profiling.spans import Trace, read

if TYPE_CHECKING:
    from torch.profiler import profile


def trace(
    call: Callable[[], object], *, name: str, steps: int = 3, warmup: int = 1, device: str = "cpu"
) -> Trace:
    """Trace `steps` calls of `call`, after `warmup` without and one with the profiler, which starts slowly.

    The file is traces/`name`.json in the build folder: ui.perfetto.dev and chrome://tracing open it. The host is always
    traced, kernels on `device` cuda. Raises UserError for no steps and for a folder that cannot be written.
    """
    if steps < 1:
        raise UserError(f"steps={steps}: at least one step must be traced.")
    path = paths.build() / "traces" / f"{name}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make {path.parent}: {error.strerror}. Choose another folder with SMML_BUILD=/some/folder."
        ) from error
    import torch
    from torch.profiler import ProfilerActivity, profile, schedule

    on_gpu = device.startswith("cuda")

    def ready(profiler: "profile") -> None:
        profiler.export_chrome_trace(str(path))

    for _ in range(warmup):
        call()
    with profile(
        activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])],
        schedule=schedule(wait=0, warmup=1, active=steps, repeat=1),
        on_trace_ready=ready,
        record_shapes=True,  # with the shapes come the number formats
    ) as profiler:
        for _ in range(steps + 1):
            call()
            if on_gpu:
                # A step's kernels end within it, as they do where the host reads the loss.
                torch.cuda.synchronize(device)
            profiler.step()
    return read(path)


def side_by_side(
    calls: Mapping[str, Callable[[], object]], *, name: str, steps: int = 3, device: str = "cpu"
) -> dict[str, Trace]:
    """One trace of several calls in turn, `steps` steps of each: a machine that changes its speed does so for all.

    Arguments and errors otherwise as in `trace`; the file holds the steps of all.
    """
    turns = itertools.cycle(calls.values())
    count = len(calls)
    whole = trace(
        lambda: next(turns)(),
        name=name,
        steps=steps * count,
        warmup=2 * count - 1,  # with the profiler's own one: each call twice
        device=device,
    )
    return {
        key: whole.only(range(number, steps * count, count)) for number, key in enumerate(calls)
    }


def event_cost(device: str = "cpu") -> float:
    """Seconds that the profiler adds to one operator: some hundred tiny ones with it and without, the fastest runs."""
    import torch

    x = torch.zeros((), device=device)

    def tiny() -> None:
        for _ in range(300):
            x.add_(1)

    samples = []
    for _ in range(5):
        began = time.perf_counter()
        tiny()
        samples.append(time.perf_counter() - began)
    traced = trace(tiny, name="event-cost", steps=3, device=device).fastest()
    return max(traced.step_s - min(samples), 0.0) / traced.events
