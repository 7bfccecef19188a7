"""What a profile foretells, held against the clock: a step from its forward pass, a repaired one from the trace."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from smml.bench.bottlenecks import BATCH, SEQUENCE
from smml.bench.cuda_graph import captured
from smml.bench.llama_train import step_work
from smml.bench.setting import Setting
from smml.hardware import detect
from smml.hardware.reach import thread_count
from smml.llama import counts
from smml.llama.config import CONFIGS
from smml.measure import Record, Timing, time_interleaved
from smml.measure.record import git_commit
from smml.roofline import Prediction

if TYPE_CHECKING:
    from smml.bench.bottlenecks import Loop
    from smml.profiling import Launches

SHAPE = CONFIGS["tiny"]
# Products as small as this model's gain nothing from a second thread, and wait for it on a busy machine.
THREADS = 1


def timings(
    setting: Setting, calls: Mapping[str, Callable[[], object]], budget_s: float = 1.0
) -> dict[str, Timing]:
    """Seconds of each call without a profiler, in turns; a GPU's work included."""
    with thread_count(THREADS):
        return time_interleaved(
            calls, device=setting.device, budget_s=budget_s, max_samples=100, target_spread=0.0
        )


def matrix_products() -> int:
    """Products of a step: forward four linear layers a layer and the logits; backward two for each of them."""
    return 3 * (4 * SHAPE.layers + 1)


def predict_phases(setting: Setting, forward_s: float) -> dict[str, float]:
    """Seconds of forward (measured), backward (twice its FLOPs) and optimizer (its bytes at the memory's rate)."""
    work = step_work(SHAPE, BATCH, SEQUENCE)
    forward = counts.forward_flops(SHAPE, BATCH, SEQUENCE).total
    update_s = setting.roof().predict(work).memory_s
    return {
        "forward": forward_s,
        "backward": forward_s * (work.flops - forward) / forward,
        "optimizer": update_s,
    }


def step_record(setting: Setting, name: str, timing: Timing, predicted_s: float) -> Record:
    """A healthy or repaired step in FLOP/s, with the seconds that were foretold for it."""
    work = step_work(SHAPE, BATCH, SEQUENCE)
    return setting.record(
        f"profiling/{name}",
        timing,
        work,
        Prediction(predicted_s, 0.0),
        {"batch": BATCH, "sequence_length": SEQUENCE, "threads": THREADS},
    )


def ratio_record(
    setting: Setting,
    name: str,
    before: Timing,
    after: Timing,
    predicted: float | None,
    **inputs: Any,
) -> Record:
    """How many times as long `before` takes as `after`, round by round."""
    pairs = zip(before.samples_s, after.samples_s, strict=True)
    ratios = Timing(tuple(slow / fast for slow, fast in pairs))
    return Record(
        name=f"profiling/{name}",
        unit="×",
        better="higher",
        value=ratios.p50,
        p20=ratios.p20,
        p80=ratios.p80,
        n=ratios.n,
        predicted=predicted,
        inputs={"profile": setting.profile.name, "threads": THREADS} | inputs,
        machine=setting.machine_id,
        environment=detect(refresh=True).environment(),
        commit=git_commit(),
        date=datetime.now(UTC).replace(microsecond=0),
        source=setting.source,
    )


def graph_speedup(setting: Setting, loop: "Loop", found: "Launches") -> Record:
    """A forward pass beside its replay as a CUDA graph: 1 on a CPU, where there is nothing to capture.

    Foretold from a trace of it: a launch-bound pass comes down to its kernels, any other stays.
    """
    calls = {"eager": loop.forward, "graph": captured(loop.forward, setting.device)}
    on_gpu = setting.device != "cpu"
    gain = max(found.predicted_s / found.kernel_s, 1.0) if on_gpu else 1.0
    timing = timings(setting, calls, 0.3)
    name = f"graph/{setting.device}"
    return ratio_record(setting, name, timing["eager"], timing["graph"], gain)
