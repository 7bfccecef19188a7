"""The planner held against published runs: predicted, measured and error of every row. Reads CSV files, writes none."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from smml.errors import UserError
from smml.plan.amounts import GIB
from smml.plan.memory import activation_bytes, memory
from smml.plan.published import Published, read_row
from smml.plan.step import step

TIMES = (
    *("step_time", "tokens_per_s_per_gpu", "tokens_per_s", "samples_per_s"),
    *("tflops_per_gpu", "mfu", "hfu", "training_days"),
)
MEMORIES = ("activation_memory_per_gpu", "peak_memory")
_UNITS = {"s": 1, "ms": 1e-3, "GiB": GIB, "GB": 1e9, "%": 0.01, "TFLOP/s": 1e12, "": 1}


@dataclass(frozen=True)
class Error:
    """One quantity of one row. `error`: predicted ÷ measured − 1."""

    run: Published
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Predicted ÷ measured − 1."""
        return self.predicted / self.measured - 1

    @property
    def kind(self) -> str:
        """What it is summed up with: "step time" (throughput included), "activations" or "total memory"."""
        if self.run.metric in TIMES:
            return "step time"
        return "activations" if self.run.metric.startswith("activation") else "total memory"

    def __str__(self) -> str:
        run = self.run
        return (
            f"{run.job.shape.name:14s} {run.cluster.gpus:6d} {run.cluster.key:14s} {run.job.dtype} "
            f"{run.job.engine:8s} {run.layout.recompute:9s} {run.metric:25s} measured {self.measured:9.4g}, "
            f"predicted {self.predicted:9.4g} {run.unit:5s} {self.error:+6.1%}"
        )


def predict(run: Published) -> float:
    """The planner's figure for what a run measured, in the run's unit. Raises UserError naming metric or unit."""
    if run.unit and run.unit not in _UNITS and run.metric in ("step_time", *MEMORIES):
        raise UserError(
            f"unit is {run.unit!r}: {run.metric} is read in {', '.join(filter(None, _UNITS))}. Correct it."
        )
    scale = _UNITS.get(run.unit, 1)
    if run.metric == "activation_memory_per_gpu":
        return activation_bytes(run.job, run.layout) / scale
    if run.metric in ("peak_memory", "memory_per_gpu", "peak_memory_per_gpu"):
        return memory(run.job, run.layout).total / scale
    done = step(run.cluster, run.job, run.layout)
    if run.metric == "step_time":
        return done.seconds / scale
    if run.metric == "tokens_per_s_per_gpu":
        return done.tokens_per_s_per_gpu
    if run.metric == "tokens_per_s":
        return done.tokens_per_s
    if run.metric == "samples_per_s":
        return run.job.global_batch_size / done.seconds
    if run.metric in ("tflops_per_gpu", "tflop_per_s_per_gpu"):
        return done.flops_per_s_per_gpu(run.convention) / 1e12
    if run.metric in ("mfu", "hfu"):
        share = done.utilization(run.convention)
        return share / (0.01 if run.unit == "%" or run.value > 1 else 1)
    if run.metric == "training_days" and run.tokens:
        return run.tokens / done.tokens_per_s / 86_400
    known = ", ".join((*TIMES, *MEMORIES))
    raise UserError(
        f"metric is {run.metric!r}: the planner predicts {known} (training_days with column tokens). Correct it."
    )


def compare(runs: Iterable[Published]) -> list[Error]:
    """Predicted beside measured for each run, in order."""
    return [Error(run, run.value, predict(run)) for run in runs]


def read_text(text: str, where: str) -> list[Published]:
    """All runs of a CSV text. Raises UserError naming file, line and column."""
    found = []
    for line, cells in enumerate(csv.DictReader(text.splitlines()), start=2):
        try:
            found += read_row(cells, f"{where}, line {line}")
        except UserError as error:
            said = str(error)
            raise UserError(said if where in said else f"{where}, line {line}: {said}") from error
    return found


# Packaged folders: the rows of calibration, and other runs. Terms were developed on half of those (column `half`) and the
# other half was not wholly blind (results/LOG.md): how far off the planner is on them is no untouched test.
FITTED, OTHERS = "calibration", "published_runs"


def read_folder(folder: Path | str = FITTED) -> list[Published]:
    """All runs of the *.csv files of a folder; `FITTED` and `OTHERS` are those of the package.

    Raises UserError for a folder without any, and naming file, line and column.
    """
    if folder in (FITTED, OTHERS):
        files = list(resources.files("smml.data").joinpath(str(folder)).iterdir())
    else:
        files = list(Path(folder).glob("*.csv"))
    files = sorted((f for f in files if f.name.endswith(".csv")), key=lambda f: f.name)
    if not files:
        raise UserError(f"folder is {str(folder)!r}: it holds no *.csv. Give a folder with runs.")
    found = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {file}: {error}. Give another folder.") from error
        found += read_text(text, file.name)
    return found


def summary(errors: Iterable[Error]) -> dict[str, tuple[float, float, int]]:
    """Mean and largest absolute error and number of rows, by kind."""
    groups: dict[str, list[float]] = {}
    for entry in errors:
        groups.setdefault(entry.kind, []).append(abs(entry.error))
    return {kind: (sum(g) / len(g), max(g), len(g)) for kind, g in groups.items()}


def errors_text(folder: Path | str = FITTED) -> str:
    """Predicted beside measured for every row of a folder, and their sums: what `smml plan --errors` prints.

    Raises UserError for rows that cannot be read.
    """
    rows = compare(read_folder(folder))
    lines = [
        f"{kind}: mean error {mean:.1%}, largest {worst:.1%}, {count} rows"
        for kind, (mean, worst, count) in summary(rows).items()
    ]
    return "\n".join([*map(str, rows), *lines])
