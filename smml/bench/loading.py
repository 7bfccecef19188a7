"""From a file to a model in memory: how fast its bytes come from the disk or the file cache, and how fast the model."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from smml import paths
from smml.bench.bench_model import ON_CPU
from smml.bench.setting import Setting
from smml.hardware.reach import thread_count
from smml.llama.config import CONFIGS, LlamaConfig
from smml.measure import MIN_SAMPLES, Record, Timing, record

BLOCK_BYTES = 16 * 2**20
# Without posix_fadvise (macOS) a file cannot be put out of the file cache: only the second state is measured there.
STATES = ("disk", "file cache") if hasattr(os, "posix_fadvise") else ("file cache",)
MODELS = {"cpu": replace(ON_CPU, layers=2), "cuda": CONFIGS["llama-3.2-1b"]}


def run(setting: Setting) -> Iterator[Record]:
    """Loading a model in the profile's dtype, from each state."""
    folder = model_folder(setting, setting.profile.dtype)
    rates, fixed_s = read_rates(setting, folder), fixed_seconds(setting)
    yield from load(setting, folder, rates, fixed_s)[0]


def model_folder(setting: Setting, dtype: str) -> Path:
    """A Hugging Face folder with random weights under the build folder; written where it is not there yet."""
    return _random_model(setting, MODELS[setting.device], f"random-{setting.device}-{dtype}", dtype)


def fixed_seconds(setting: Setting) -> float:
    """Seconds to load a model of hardly any bytes, the tiny one, from the file cache: what no rate explains; median."""
    path, call = _tiny(setting)
    # A load takes milliseconds: only many of them are longer than one busy moment of a neighbour.
    samples = [s[0] for _ in range(4) for s in _samples(setting, path, "file cache", call)]
    return median(samples)


def read_rates(setting: Setting, folder: Path) -> dict[str, float]:
    """Bytes/s by state at which the folder's weights, not looked at, come into new memory of the device; medians."""
    path = _weights_file(folder)
    read = _read(setting, path)
    return {
        state: path.stat().st_size / median(s[0] for s in _samples(setting, path, state, read))
        for state in STATES
    }


def load(
    setting: Setting, folder: Path, rates: dict[str, float], fixed_s: float
) -> tuple[list[Record], float]:
    """Load the folder's model from each state; predicted: `fixed_s`, and its bytes over the state's rate.

    Returns the records, and how far their predictions have moved (0.1 = 10 %): both terms are measured again, in
    turns with the loading.
    """
    from smml.llama import weights

    path = _weights_file(folder)
    size, read = path.stat().st_size, _read(setting, path)
    records, drift = [], 0.0
    for state, rate in rates.items():
        predicted_s = fixed_s + size / rate
        calls = read, _tiny(setting)[1], partial(weights.load, folder, device=setting.device)
        raw_s, tiny_s, loading_s = zip(*_samples(setting, path, state, *calls), strict=True)
        drift = max(drift, abs(1 - predicted_s / (median(tiny_s) + median(raw_s))))
        records.append(
            record(
                f"load/{folder.name}/{state.replace(' ', '-')}",
                Timing(loading_s),
                machine=setting.machine_id,
                source=setting.source,
                unit="B/s",
                amount=size,
                predicted_s=predicted_s,
                measured_ceiling=rate,
                inputs={"bound": state, "folder": folder.name, "profile": setting.profile.name},
                bytes=size,
                environment=setting.machine.environment(),
            )
        )
    return records, drift


def _tiny(setting: Setting) -> tuple[Path, Callable[[], object]]:
    """The weights' file of a tiny model, and a call that loads it."""
    from smml.llama import weights

    name = f"random-{setting.device}-tiny"
    folder = _random_model(setting, CONFIGS["tiny"], name, setting.profile.dtype)
    return _weights_file(folder), partial(weights.load, folder, device=setting.device)


def _random_model(setting: Setting, config: LlamaConfig, name: str, dtype: str) -> Path:
    """A folder of that name with random weights under the build folder; written where it is not there yet."""
    import torch

    from smml.llama import weights
    from smml.llama.folder import load_config
    from smml.llama.model import Llama

    folder = paths.build() / "models" / name
    if not folder.exists() or load_config(folder) != config:
        model = Llama(config, device=setting.device, dtype=getattr(torch, dtype))
        weights.save(model, folder, overwrite=True)
    return folder


def _read(setting: Setting, path: Path) -> Callable[[], object]:
    """A call that brings the file's bytes into new memory of the device, block by block."""
    import torch

    size, on_cpu = path.stat().st_size, setting.device == "cpu"
    pinned = None if on_cpu else torch.empty(BLOCK_BYTES, dtype=torch.uint8, pin_memory=True)

    def read() -> None:
        blocks, filled = [], 0
        with path.open("rb", buffering=0) as file:
            while filled < size:
                count = min(BLOCK_BYTES, size - filled)
                blocks.append(torch.empty(count, dtype=torch.uint8, device=setting.device))
                host = blocks[-1] if pinned is None else pinned[:count]
                filled += file.readinto(memoryview(host.numpy()))
                if host is not blocks[-1]:
                    blocks[-1].copy_(host)

    return read


def _samples(
    setting: Setting, path: Path, state: str, *calls: Callable[[], object]
) -> list[tuple[float, ...]]:
    """Seconds of each call, in turns, the file put into `state` before each one: the timer cannot do that between.

    One thread: loading is many small copies, and two threads that wait for each other after every one of them are
    slower on a busy machine and little faster on a quiet one.
    """
    samples = []
    with thread_count(1 if setting.device == "cpu" else 0):
        for _ in range(MIN_SAMPLES + 1):
            samples.append(tuple(_seconds(setting, path, state, call) for call in calls))
    return samples[1:]  # the first one imports, allocates, and fills the file cache


def _seconds(setting: Setting, path: Path, state: str, call: Callable[[], object]) -> float:
    """Seconds of one call with the file in `state`; of as many as the setting's slowdown says."""
    import torch

    spent = 0.0
    for _ in range(setting.slowdown):
        if state == "disk":
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        call()
        if setting.device != "cpu":
            torch.cuda.synchronize()
        spent += time.perf_counter() - start
    return spent


def _weights_file(folder: Path) -> Path:
    return folder / "model.safetensors"
