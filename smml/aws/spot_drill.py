"""The two-minute notice, drilled: a real training is interrupted, killed and resumed, and billed at spot prices.

A tiny training runs as `python -m smml.train`. Beside it stands what an instance would have: a metadata service, and a
watcher that polls it and passes the notice on as SIGTERM, upon which the training checkpoints. The instance goes with
SIGKILL, the next one resumes. An uninterrupted run of the same configuration proves the loss curve.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from smml import atomic, paths
from smml.aws.instance_metadata import InstanceMetadata, SpotNotice
from smml.data.limits import limit
from smml.data.prices import price
from smml.data.schema import Quantity
from smml.data.spot_history import spot_history
from smml.errors import UserError
from smml.train import log, topics

How = Literal["notice", "kill"]
TEXT_CHARACTERS = 40_000
POLL_S = 0.02  # AWS recommends 5 s; a drill of seconds polls oftener
LONGEST_S = 300.0  # starting takes a minute where everything else runs too
TRAINER = (sys.executable, "-m", "smml.train")
CONFIGURATION = {
    **{"steps": 40, "warmup-steps": 2, "sequence-length": 32, "batch-size": 2},
    **{"checkpoint-every": 8, "log-every": 1, "evaluate-every": 1_000_000},
    **{"learning-rate": 3e-4, "held-out-share": 0, "dtype": "float32", "device": "cpu"},
}


@dataclass(frozen=True)
class Stop:
    """One interruption: `how`, the last step that was done, the newest checkpoint, seconds.

    to_checkpoint_s     from the notice until the checkpoint was whole; None for a kill without notice
    recover_s           from the kill to the first step that had not been done before: start, load, steps again
    """

    how: How
    at_step: int
    checkpoint_step: int
    to_checkpoint_s: float | None
    recover_s: float

    @property
    def steps_lost(self) -> int:
        """Steps that had to be done again."""
        return self.at_step - self.checkpoint_step


@dataclass(frozen=True)
class Drill:
    """What happened: interruptions, both loss curves by step, and seconds that instances ran for the interrupted run."""

    stops: tuple[Stop, ...]
    curve: dict[int, float]
    uninterrupted: dict[int, float]
    instance_s: tuple[float, ...]

    @property
    def identical(self) -> bool:
        """Whether the interrupted run has the loss of the uninterrupted one at every step, bit for bit."""
        return self.curve == self.uninterrupted

    @property
    def total_s(self) -> float:
        """Seconds of all instances, one after the other."""
        return sum(self.instance_s)

    @property
    def recovery_s(self) -> float:
        """Seconds of it that an uninterrupted run would not have needed."""
        return sum(stop.recover_s for stop in self.stops)


@dataclass(frozen=True)
class Bill:
    """A drill at prices of one instance type: spot with everything done twice, on demand without any interruption.

    `charged_usd` leaves out instances that EC2 takes back within their first hour, for which it does not charge.
    """

    instance_type: str
    spot: Quantity
    on_demand: Quantity
    spot_usd: float
    charged_usd: float
    on_demand_usd: float

    @property
    def saved(self) -> float:
        """Share of the on-demand bill that the interrupted spot run saves; negative where it costs more."""
        return 1 - self.spot_usd / self.on_demand_usd


def drill(
    out: Path,
    stops: Sequence[tuple[How, int]] = (("notice", 12),),
    *,
    instance_type: str = "g5.xlarge",
    availability_zone: str = "us-east-1a",
) -> Drill:
    """Run the training in `out` (replaced) with an interruption after each (how, step), and once without any.

    Raises UserError for steps that are not in order within the run, and with the last words of a training that failed.
    """
    steps = CONFIGURATION["steps"]
    marks = [step for _, step in stops]
    if not marks or marks != sorted(set(marks)) or not 0 < marks[0] <= marks[-1] < steps:
        raise UserError(
            f"stops are at steps {marks}: give growing steps between 1 and {steps - 1}."
        )
    if unknown := {how for how, _ in stops} - {"notice", "kill"}:
        raise UserError(
            f"stops name {sorted(unknown)}: allowed are notice and kill; give one of these."
        )
    shutil.rmtree(out, ignore_errors=True)
    text = "\n".join(topics.documents()[0])[:TEXT_CHARACTERS]
    atomic.write_text(out / "text.txt", text)
    reference = _Training(out, "uninterrupted")
    try:
        done, instance_s = _interrupted(out, stops, instance_type, availability_zone)
        reference.finish()
    finally:
        reference.kill()
    curves = [log.curve(out / name) for name in ("interrupted", "uninterrupted")]
    return Drill(tuple(done), *curves, tuple(instance_s))


def bill(run: Drill, instance_type: str, region: str = "us-east-1") -> Bill:
    """Both bills, by the second, as of a run so long that the minimum of a minute does not matter.

    Raises UserError where a price of the type in the region is not known.
    """
    spot = spot_price(instance_type, region)
    on_demand = price(instance_type, region)
    hour = 3600.0
    *taken_back_s, last_s = run.instance_s
    charged_s = last_s + sum(seconds for seconds in taken_back_s if seconds >= hour)
    return Bill(
        instance_type,
        spot,
        on_demand,
        spot_usd=run.total_s * spot.value / hour,
        charged_usd=charged_s * spot.value / hour,
        on_demand_usd=(run.total_s - run.recovery_s) * on_demand.value / hour,
    )


def spot_price(instance_type: str, region: str) -> Quantity:
    """The newest recorded spot price in the cheapest zone; raises UserError where none is recorded."""
    newest = {
        row.zone_id: row.price for row in spot_history(instance_type, region)
    }  # ordered by time
    if not newest:
        raise UserError(
            f"no spot price of {instance_type} in {region} is recorded: give another region, or run `smml prices refresh`."
        )
    return min(newest.values(), key=lambda entry: entry.value)


def _interrupted(
    out: Path, stops: Sequence[tuple[How, int]], *instance: str
) -> tuple[list[Stop], list[float]]:
    found: list[Stop] = []
    instance_s: list[float] = []
    training = _Training(out, "interrupted")
    try:
        for how, step in stops:
            training.reach(step)
            to_checkpoint_s = _notice(training, *instance) if how == "notice" else None
            training.kill()
            killed = time.perf_counter()
            instance_s.append(training.seconds)
            at, kept = training.step, training.checkpoint
            training = _Training(out, "interrupted")
            training.reach(at + 1)
            found.append(Stop(how, at, kept, to_checkpoint_s, time.perf_counter() - killed))
        training.finish()
        instance_s.append(training.seconds)
    finally:
        training.kill()
    return found, instance_s


def _notice(training: "_Training", *instance: str) -> float:
    """Post the notice, pass it on as the watcher of an instance does, wait for the checkpoint; seconds that it took."""
    with InstanceMetadata(*instance) as metadata:
        metadata.interrupt("terminate")
        began = time.perf_counter()
        SpotNotice(metadata.endpoint).wait(lambda: training.alive, POLL_S)
        training.process.terminate()
        training.wait(lambda: not training.alive, limit("spot_notice").value)
    taken = time.perf_counter() - began
    training.expect(128 + signal.SIGTERM)
    return taken


class _Training:
    """One process of `python -m smml.train` on one imagined instance; its own threads must not change the arithmetic."""

    def __init__(self, out: Path, name: str) -> None:
        self.folder = out / name
        options = [
            part for key, value in CONFIGURATION.items() for part in (f"--{key}", str(value))
        ]
        command = [*TRAINER, "--init", str(paths.models() / "tiny")]
        command += [
            "--data",
            str(out / "text.txt"),
            "--out",
            str(self.folder),
            "--resume",
            *options,
        ]
        self._output = out / f"{name}.txt"
        self._began = time.perf_counter()
        self._ended: float | None = None
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    @property
    def step(self) -> int:
        """The last step that stands in the log."""
        return max(log.curve(self.folder), default=0)

    @property
    def checkpoint(self) -> int:
        """The step of the newest checkpoint, 0 without one."""
        found = [path.name for path in (self.folder / "checkpoints").glob("step-*")]
        return max((int(name.removeprefix("step-")) for name in found), default=0)

    @property
    def seconds(self) -> float:
        """How long the instance ran."""
        return (self._ended or time.perf_counter()) - self._began

    def wait(self, until: Callable[[], bool], longest_s: float = LONGEST_S) -> None:
        """Poll until it holds; UserError with the process's last words when it ended before, or takes too long."""
        deadline = time.perf_counter() + longest_s
        while not until():
            if not self.alive and not until():
                raise UserError(f"the training ended early: {self._last_words()}")
            if time.perf_counter() > deadline:
                raise UserError(
                    f"the training did not come on in {longest_s:g} s: {self._last_words()}"
                )
            time.sleep(POLL_S)

    def reach(self, step: int) -> None:
        """Wait until that step stands in the log; UserError as `wait`."""
        self.wait(lambda: self.step >= step)

    def finish(self) -> None:
        """Wait for the end; UserError with the process's last words when it failed."""
        self.wait(lambda: not self.alive)
        self._ended = time.perf_counter()
        self.expect(0)

    def expect(self, code: int) -> None:
        """UserError with the process's last words unless it ended with that exit code."""
        if self.process.returncode != code:
            raise UserError(
                f"the training ended with exit code {self.process.returncode}, not {code}: {self._last_words()}"
            )

    def kill(self) -> None:
        """SIGKILL, as when the instance goes; nothing where it has ended."""
        self.process.kill()
        self.process.wait()
        self._ended = self._ended or time.perf_counter()

    def _last_words(self) -> str:
        lines = self._output.read_text(encoding="utf-8", errors="replace").split("\n")
        return " ".join(line for line in lines[-4:] if line) or f"exit code {self.process.poll()}"
