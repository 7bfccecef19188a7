"""What the course runner costs over plain papermill, on the same notebooks, one after the other in turns."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from smml import paths
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.measure import MIN_SAMPLES, Record, Timing, record

NOTEBOOKS = ("00_getting_started/01_your_machine",)
PLAIN = "import sys, papermill; papermill.execute_notebook(*sys.argv[1:3], cwd=sys.argv[3], progress_bar=False)"


def run(setting: Setting) -> Iterator[Record]:
    """Seconds of `smml run` and of plain papermill for one notebook, in turns; prints the overhead.

    The overhead is what the runner takes beyond the time that papermill itself reports, less what plain
    papermill takes beyond it, over the wall time of plain papermill: the notebook's own noise drops out.
    """
    walls: dict[str, list[float]] = {"runner": [], "papermill": []}
    beyond: dict[str, list[float]] = {"runner": [], "papermill": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(MIN_SAMPLES):
            for name, execute in (("runner", _with_runner), ("papermill", _plain)):
                build = Path(folder) / f"{name}-{turn}"
                start = time.perf_counter()
                copies = execute(build)
                walls[name].append(time.perf_counter() - start)
                beyond[name].append(walls[name][-1] - sum(map(_execution_seconds, copies)))
    notebook_s = sum(walls["papermill"]) / MIN_SAMPLES
    for name, seconds in walls.items():
        yield _record(setting, f"runner/wall/{name}", seconds, "s")
    for name, seconds in beyond.items():
        yield _record(setting, f"runner/beyond-execution/{name}", seconds, "s")
    shares = [
        (a - b) / notebook_s for a, b in zip(beyond["runner"], beyond["papermill"], strict=True)
    ]
    print(f"overhead of the runner over plain papermill: {sorted(shares)[len(shares) // 2]:.1%}")


def _with_runner(build: Path) -> list[Path]:
    environ = os.environ | {"SMML_BUILD": str(build), "SMML_RECORDS": str(build / "records")}
    command = [sys.executable, "-m", "smml.cli", "run", "--no-site", *NOTEBOOKS]
    _check(subprocess.run(command, env=environ, capture_output=True, text=True))
    return [build / "notebooks" / f"{name}.ipynb" for name in NOTEBOOKS]


def _plain(build: Path) -> list[Path]:
    copies = []
    environ = os.environ | {"SMML_RECORDS": str(build / "records")}
    for name in NOTEBOOKS:
        source = paths.checkout() / f"{name}.ipynb"
        copies.append(build / f"{name.replace('/', '-')}.ipynb")
        copies[-1].parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", PLAIN, str(source), str(copies[-1]), str(source.parent)]
        _check(subprocess.run(command, env=environ, capture_output=True, text=True))
    return copies


def _execution_seconds(copy: Path) -> float:
    """Seconds that papermill itself says the notebook took."""
    return json.loads(copy.read_text(encoding="utf-8"))["metadata"]["papermill"]["duration"]


def _check(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise UserError(
            f"a notebook failed under the bench: {(done.stdout + done.stderr).strip()[-300:]}"
        )


def _record(setting: Setting, name: str, seconds: list[float], unit: str) -> Record:
    return record(
        name,
        Timing(tuple(seconds)),
        machine=setting.machine_id,
        source=setting.source,
        unit=unit,
        inputs={"notebooks": list(NOTEBOOKS)},
        environment=setting.machine.environment(),
    )
