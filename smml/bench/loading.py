"""From a file to a model in memory: how fast bytes come from the disk or the system's file cache, and how fast weights."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from smml import paths
from smml.bench.bench_model import config as bench_config
from smml.bench.setting import Setting
from smml.measure import MIN_SAMPLES, MachineId, Record, Timing, record

BLOCK_BYTES = 16 * 2**20
# Without posix_fadvise (macOS) a file cannot be put out of the file cache: then only the second state is measured.
STATES = ("disk", "file cache") if hasattr(os, "posix_fadvise") else ("file cache",)


def run(setting: Setting) -> Iterator[Record]:
    """Loading the bench's model in the profile's dtype, from each state."""
    folder = model_folder(setting, setting.profile.dtype)
    return load(setting, folder, rates(setting, folder))


def model_folder(setting: Setting, dtype: str) -> Path:
    """A Hugging Face folder in the build folder with random weights of the bench's model; written where it is not."""
    import torch

    from smml.llama import weights
    from smml.llama.folder import load_config
    from smml.llama.model import Llama

    config = bench_config(setting)
    folder = paths.build() / "models" / f"random-{setting.device}-{dtype}"
    if not folder.exists() or load_config(folder) != config:
        model = Llama(config, device=setting.device, dtype=getattr(torch, dtype))
        weights.save(model, folder, overwrite=True)
    return folder


def rates(setting: Setting, folder: Path) -> dict[str, float]:
    """Bytes/s by state at which the file's bytes, not looked at, come into the device's memory; median of some reads."""
    import torch

    path = weights_file(folder)
    block = torch.empty(BLOCK_BYTES, dtype=torch.uint8, pin_memory=setting.device != "cpu")
    view = memoryview(block.numpy())

    def read() -> None:
        target, filled = torch.empty(path.stat().st_size, dtype=torch.uint8, device=setting.device), 0
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(view):
                target[filled : filled + count].copy_(block[:count])
                filled += count

    return {
        state: path.stat().st_size / _time(setting, path, state, read).p50 for state in STATES
    }


def load(setting: Setting, folder: Path, known: dict[str, float]) -> Iterator[Record]:
    """Load the model from each state of `known` rates; predicted: the file's bytes over the rate."""
    from smml.llama import weights

    path = weights_file(folder)
    size = path.stat().st_size
    for state, rate in known.items():
        timing = _time(setting, path, state, lambda: weights.load(folder, device=setting.device))
        yield record(
            f"load/{folder.name}/{state.replace(' ', '-')}",
            timing,
            machine=MachineId(
                fingerprint=setting.machine.fingerprint, device=setting.machine.device_name
            ),
            source=setting.source,
            unit="B/s",
            amount=size,
            predicted_s=size / rate,
            measured_ceiling=rate,
            inputs={"bound": state, "folder": folder.name, "profile": setting.profile.name},
            bytes=size,
            environment=setting.machine.environment(),
        )


def weights_file(folder: Path) -> Path:
    """The safetensors file of a folder that has one."""
    return folder / "model.safetensors"


def _time(setting: Setting, path: Path, state: str, call: Callable[[], object]) -> Timing:
    """Seconds of `call`, the file put into `state` before each: the timer's own repeats cannot do that."""
    import torch

    samples = []
    for number in range(MIN_SAMPLES + 1):
        if state == "disk":
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        elif number == 0:
            path.read_bytes()
        start = time.perf_counter()
        for _ in range(setting.slowdown):
            call()
        if setting.device != "cpu":
            torch.cuda.synchronize()
        samples.append(time.perf_counter() - start)
    return Timing(tuple(samples[1:]))  # the first one imports, allocates and wakes the disk
