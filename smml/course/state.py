"""What the latest run did, notebook by notebook, in build/run.json: read by the site, and to resume."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from smml import atomic, paths
from smml.errors import UserError

Status = Literal["pending", "passed", "failed", "timeout", "interrupted"]


@dataclass
class Outcome:
    """How one notebook fared: wall-clock seconds, its error as one line, when it ended (None: not yet).

    `digest` identifies notebook, package and profile, so that a changed one runs again.
    """

    status: Status = "pending"
    seconds: float | None = None
    error: str | None = None
    digest: str = ""
    ended: datetime | None = None


@dataclass
class RunState:
    """The latest run on one machine; `finished` is None while it runs and after it was interrupted."""

    profile: str
    machine: str
    device: str
    started: datetime
    finished: datetime | None = None
    selected: list[str] = field(default_factory=list)
    notebooks: dict[str, Outcome] = field(default_factory=dict)

    def count(self, *statuses: Status) -> int:
        """Number of notebooks that ended in one of `statuses`."""
        return sum(outcome.status in statuses for outcome in self.notebooks.values())

    @property
    def seconds(self) -> float:
        """Sum of the notebooks' wall-clock seconds; more than the run took when some ran side by side."""
        return sum(outcome.seconds or 0.0 for outcome in self.notebooks.values())

    def save(self) -> None:
        """Write build/run.json atomically; UserError when it cannot be written."""
        atomic.write_text(
            path(), json.dumps(asdict(self), indent=1, default=datetime.isoformat) + "\n"
        )

    def passed_before(self, selected: Iterable[str], profile: str) -> set[str]:
        """Names that this interrupted run has passed; none if it was finished, or was a run of something else."""
        if self.finished is not None or self.selected != list(selected) or self.profile != profile:
            return set()
        return {
            name
            for name in self.selected
            if (o := self.notebooks.get(name))
            and o.status == "passed"
            and o.ended
            and o.ended >= self.started
        }


def path() -> Path:
    """Where the state of this build folder is kept."""
    return paths.build() / "run.json"


def load(file: Path | None = None) -> RunState | None:
    """The latest run's state (default: of this build folder); None before the first; UserError when damaged."""
    file = file or path()
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        outcomes = {name: _outcome(**outcome) for name, outcome in raw.pop("notebooks").items()}
        raw["started"], raw["finished"] = _time(raw["started"]), _time(raw.get("finished"))
        return RunState(**raw, notebooks=outcomes)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file} is damaged ({type(error).__name__}: {error}): delete it and run make run again."
        ) from error


def now() -> datetime:
    """The time, UTC."""
    return datetime.now(UTC)


def digest(text: str, profile: str) -> str:
    """Hash of all that decides what a notebook does here: its `text`, the package's files, the profile."""
    return hashlib.sha256(f"{text}\0{package_digest()}\0{profile}".encode()).hexdigest()[:16]


def package_digest() -> str:
    """Hash of every file of the package that can change a result."""
    total = hashlib.sha256()
    folder = Path(__file__).resolve().parent.parent
    for file in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".toml", ".json")):
        total.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


def _outcome(status: str, ended: str | None = None, **fields) -> Outcome:
    if status not in get_args(Status):
        raise ValueError(f"status {status!r} is none of {', '.join(get_args(Status))}")
    return Outcome(status, ended=_time(ended), **fields)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
