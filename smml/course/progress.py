"""Progress of a run: a bar with the time left on a terminal, one line a notebook elsewhere."""

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress as Bar, SpinnerColumn, TextColumn

from smml.course.state import Outcome

SYMBOL = {"passed": "✔", "failed": "✘", "timeout": "✘", "interrupted": "◌"}
FIRST_GUESS_S = 30.0  # for a notebook that never ran here


class Progress:
    """Shows what runs, what passed, and the time left judged by how long each notebook took last time."""

    def __init__(self, expected_s: dict[str, float], kept: int = 0) -> None:
        self.expected = {name: seconds or FIRST_GUESS_S for name, seconds in expected_s.items()}
        self.total, self.finished, self.kept = len(expected_s), 0, kept
        self.running: dict[str, float] = {}
        self.lock = threading.Lock()
        self.console = Console(highlight=False, soft_wrap=True)
        self.bar = Bar(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f} · {task.description}"),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task("", total=self.total)

    def __enter__(self) -> "Progress":
        if self.kept:
            self.console.print(f"resuming: {self.kept} passed before the interruption and are kept")
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self.bar.stop()

    def refused(self, name: str, outcome: Outcome) -> None:
        """A notebook cannot even be started."""
        self.console.print(f"{SYMBOL[outcome.status]} {name} {outcome.status}", style="bold")
        self.console.print(f"    {outcome.error}", markup=False)

    def start(self, name: str) -> None:
        """A notebook begins."""
        with self.lock:
            self.running[name] = time.monotonic()
            self._describe()

    def again(self, name: str, outcome: Outcome, attempt: int) -> None:
        """A time was out of its band: the notebook is executed once more."""
        with self.lock:
            self.running[name] = time.monotonic()
            self.console.print(f"… {name}, attempt {attempt}, for a busy machine may have caused:")
            self.console.print(f"    {outcome.error}", markup=False)

    def done(self, name: str, outcome: Outcome) -> None:
        """A notebook ended."""
        with self.lock:
            self.running.pop(name, None)
            self.expected.pop(name, None)
            self.finished += 1
            self._describe()
            line = f"{SYMBOL[outcome.status]} [{self.finished}/{self.total}] {name} {outcome.status} in {outcome.seconds:.1f} s"
            if self.expected:
                line += f", about {clock(self.left_s())} left"
            self.console.print(line, style=None if outcome.status == "passed" else "bold")
            if outcome.error:
                self.console.print(f"    {outcome.error}", markup=False)

    def left_s(self) -> float:
        """Seconds left if every notebook takes as long as last time, one after the other."""
        now = time.monotonic()
        return sum(
            max(seconds - (now - self.running[name] if name in self.running else 0), 1.0)
            for name, seconds in self.expected.items()
        )

    def _describe(self) -> None:
        names = ", ".join(self.running) or "…"
        self.bar.update(
            self.task,
            completed=self.finished,
            description=f"{names} · about {clock(self.left_s())} left",
        )


def clock(seconds: float) -> str:
    """Seconds as m:ss."""
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
