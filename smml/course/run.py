"""Run notebooks: those that measure alone, the others side by side; resumable; a failure never stops the rest."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import psutil

from smml import atomic, paths
from smml.course.notebook import Notebook
from smml.course.progress import Progress
from smml.course.state import Outcome, RunState, digest, load, now
from smml.errors import UserError
from smml.hardware import detect, select
from smml.measure.record import slug

FREE_BYTES_NEEDED = 50 * 2**20
# What the message of an assertion on a time ends with: neighbours can break it, and a second look tells.
TOO_BUSY, ATTEMPTS = "run again", 3


@dataclass(frozen=True)
class Options:
    """How to run: `jobs` notebooks side by side, at most `timeout_s` for each, from the beginning if `fresh`."""

    profile: str = "auto"
    timeout_s: float = 600.0
    jobs: int = 2
    fresh: bool = False


def run(notebooks: list[Notebook], options: Options) -> RunState:
    """Execute notebooks into build/notebooks; the state says how each fared.

    Raises UserError before anything runs for an unknown profile or an unwritable or full build folder, and
    KeyboardInterrupt (children ended, state saved) on Ctrl-C or SIGTERM.
    """
    machine = detect()
    profile = select(options.profile, machine).name
    _require_space(paths.build())
    names = [n.name for n in notebooks]
    previous = load()
    done = previous.passed_before(names, profile) if previous and not options.fresh else set()
    state = RunState(profile, machine.fingerprint, machine.device_name, now(), selected=names)
    if previous:
        state.notebooks = previous.notebooks
        if done:
            state.started = previous.started
    todo, broken, expected = [], [], {}
    for notebook in notebooks:
        known = state.notebooks.get(notebook.name, Outcome())
        try:
            notebook.require_parameters()
            if notebook.name in done and known.digest == digest(notebook.text, profile):
                continue
        except UserError as error:
            state.notebooks[notebook.name] = Outcome("failed", 0.0, str(error), ended=now())
            broken.append(notebook.name)
            continue
        todo.append(notebook)
        expected[notebook.name] = known.seconds or 0.0
        state.notebooks[notebook.name] = Outcome()
    state.save()
    progress = Progress(expected, kept=len(notebooks) - len(todo) - len(broken))
    for name in broken:
        progress.refused(name, state.notebooks[name])
    _Run(state, options, profile, progress).all(todo)
    state.finished = now()
    state.save()
    return state


class _Run:
    """One run in progress: its state file, its children, its progress bar."""

    def __init__(self, state: RunState, options: Options, profile: str, progress: Progress) -> None:
        self.state, self.options, self.profile, self.progress = state, options, profile, progress
        self.children: set[subprocess.Popen] = set()
        self.stopping = False

    def all(self, todo: list[Notebook]) -> None:
        """Measuring notebooks one by one in order, then the others `jobs` at a time."""
        before = signal.signal(signal.SIGTERM, _interrupt) if _in_main_thread() else None
        try:
            with self.progress, ThreadPoolExecutor(max(1, self.options.jobs)) as pool:
                try:
                    for notebook in (n for n in todo if n.measures):
                        self._wait([pool.submit(self._one, notebook)])
                    self._wait([pool.submit(self._one, n) for n in todo if not n.measures])
                except BaseException:
                    self._stop()
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
        finally:
            if before is not None:
                signal.signal(signal.SIGTERM, before)

    def _wait(self, futures: list[Future]) -> None:
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                name, outcome = future.result()
                self.state.notebooks[name] = outcome
                self.state.save()
                self.progress.done(name, outcome)

    def _one(self, notebook: Notebook) -> tuple[str, Outcome]:
        """One notebook, executed again where a time was out of its band: a busy machine passes later, a slow one never."""
        name, outcome = self._attempt(notebook)
        for number in range(2, ATTEMPTS + 1):
            if outcome.status != "failed" or TOO_BUSY not in (outcome.error or "").lower():
                break
            self.progress.again(name, outcome, number)
            name, outcome = self._attempt(notebook)
        return name, outcome

    def _attempt(self, notebook: Notebook) -> tuple[str, Outcome]:
        """Execute one notebook in a child process; its copy, traceback and outcome are in place on return."""
        started = time.perf_counter()
        began = time.time()
        stamp = digest(notebook.text, self.profile)
        self.progress.start(notebook.name)
        target = executed(notebook.name)
        partial = target.with_name(f".{target.name}.partial.ipynb")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            status, error, traceback = self._child(notebook, partial)
        except UserError as problem:
            status, error, traceback = "failed", str(problem), ""
        except OSError as problem:
            status, error, traceback = "failed", str(atomic.cannot_write(target, problem)), ""
        trace_file = target.with_suffix(".traceback.txt")
        if status == "interrupted":
            partial.unlink(missing_ok=True)
        else:
            # The executed copy of a failed notebook is the evidence: it replaces the older one as well.
            if partial.exists():
                os.replace(partial, target)
            trace_file.unlink(missing_ok=True)
            if traceback:
                atomic.write_text(trace_file, traceback + "\n")
            if status == "passed":
                _drop_stale_records(notebook.name, began)
        return notebook.name, Outcome(
            status, round(time.perf_counter() - started, 2), error, stamp, now()
        )

    def _child(self, notebook: Notebook, partial: Path) -> tuple[str, str | None, str]:
        # Nothing is injected for "auto": the notebook then runs exactly as it is stored.
        parameters = {} if self.options.profile == "auto" else {"profile": self.options.profile}
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "smml.course.worker",
                notebook.path,
                partial,
                json.dumps(parameters),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the runner alone, which then ends its children in order
        )
        self.children.add(child)
        try:
            if self.stopping:
                _end_tree(child.pid)
            out, err = child.communicate(timeout=self.options.timeout_s)
        except subprocess.TimeoutExpired:
            _end_tree(child.pid)
            child.communicate()
            return (
                "timeout",
                f"took longer than {self.options.timeout_s:g} s and was ended; raise --timeout.",
                "",
            )
        finally:
            self.children.discard(child)
        if self.stopping:
            return "interrupted", "interrupted before its end", ""
        last = out.strip().splitlines()[-1] if out.strip() else ""
        try:
            outcome = json.loads(last)
        except ValueError:
            return (
                "failed",
                f"its process ended with code {child.returncode} and no result",
                (out + err).strip(),
            )
        return (
            "passed" if outcome["error"] is None else "failed",
            outcome["error"],
            outcome.get("traceback") or "",
        )

    def _stop(self) -> None:
        """End all children; save what was passed, mark the rest as interrupted or still pending."""
        self.stopping = True
        for child in list(self.children):
            _end_tree(child.pid)
        for name in list(self.progress.running):
            self.state.notebooks[name].status = "interrupted"
        self.state.save()


def executed(name: str) -> Path:
    """Where the executed copy of a notebook is kept."""
    return paths.build() / "notebooks" / f"{name}.ipynb"


def _drop_stale_records(name: str, began: float) -> None:
    """Remove records that an earlier run of this notebook left and this one did not write again."""
    for path in (paths.records() / slug(name)).rglob("*.json"):
        if path.stat().st_mtime < began - 1:
            path.unlink()


def _end_tree(pid: int) -> None:
    """Terminate a process and all it started, kernels and their workers included; kill what stays."""
    try:
        root = psutil.Process(pid)
        family = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    for process in family:
        _signal(process, psutil.Process.terminate)
    _, alive = psutil.wait_procs(family, timeout=3)
    for process in alive:
        _signal(process, psutil.Process.kill)
    psutil.wait_procs(alive, timeout=3)


def _signal(process: psutil.Process, send) -> None:
    try:
        send(process)
    except psutil.NoSuchProcess:
        return  # it ended by itself between the listing and the signal


def _require_space(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise atomic.cannot_write(folder, error) from error
    if free < FREE_BYTES_NEEDED:
        raise UserError(
            f"{folder} has {free / 2**20:.0f} MiB free, {FREE_BYTES_NEEDED / 2**20:.0f} MiB are needed: "
            "free space, or set SMML_BUILD to a folder on another disk."
        )


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
