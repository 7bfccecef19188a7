"""Benches one after the other, each in a process of its own, so that one that fails takes no other with it.

A kernel that reads where it may not ends every later call of its process; and memory that one bench cached is
not there for the next.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

LIMIT_S = 270.0  # for one bench: a suite of a lent machine must not hang on one of them
GRACE_S = 10  # between asking a bench to stop and ending it


@dataclass(frozen=True)
class Outcome:
    """How one bench ended: its exit code, None where it was stopped at its limit, and the seconds that it took."""

    name: str
    code: int | None
    seconds: float

    @property
    def verdict(self) -> str:
        """passed, failed or stopped, with the reason."""
        if self.code is None:
            return "stopped at its limit"
        return "passed" if self.code == 0 else f"failed with exit code {self.code}"


def run_apart(names: Sequence[str], options: Sequence[str], limit_s: float) -> list[Outcome]:
    """`smml bench NAME OPTIONS…` for each name, its output passed through; a bench over `limit_s` is stopped."""
    outcomes = []
    for name in names:
        start = time.perf_counter()
        command = [sys.executable, "-m", "smml.cli", "bench", name, *options]
        with subprocess.Popen(command) as process:
            try:
                code: int | None = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _stop(process)
        outcomes.append(Outcome(name, code, time.perf_counter() - start))
    return outcomes


def _stop(process: subprocess.Popen) -> None:
    """End the process if it still runs; also on Ctrl-C in this one."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
