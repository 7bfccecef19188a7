"""What the latest run did, notebook by notebook, in build/run.json: read by the site, and to resume."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from smml import atomic, paths
from smml.course.notebook import Notebook
from smml.errors import UserError

Status = Literal["pending", "passed", "failed", "timeout", "interrupted"]


@dataclass
class Outcome:
    """How one notebook fared. `digest` identifies notebook, package and profile, so that a changed one runs again."""

    status: Status = "pending"
    seconds: float = 0.0
    error: str | None = None
    digest: str = ""
    finished: str | None = None


@dataclass
class RunState:
    """The latest run; `finished` is None while it runs and after it was interrupted."""

    profile: str
    machine: str
    device: str
    started: str
    finished: str | None = None
    selected: list[str] = field(default_factory=list)
    notebooks: dict[str, Outcome] = field(default_factory=dict)

    def save(self) -> None:
        """Write build/run.json atomically; UserError when it cannot be written."""
        atomic.write_text(path(), json.dumps(asdict(self), indent=1) + "\n")

    def to_resume(self, selected: list[str], profile: str) -> list[str]:
        """Names that this interrupted run has passed and that need not run again; empty if it was finished."""
        if self.finished is not None or self.selected != selected or self.profile != profile:
            return []
        return [
            name
            for name in selected
            if (o := self.notebooks.get(name)) and o.status == "passed" and (o.finished or "") >= self.started
        ]


def path() -> Path:
    """Where the state is kept."""
    return paths.build() / "run.json"


def load() -> RunState | None:
    """The latest run's state; None before the first; UserError when the file is damaged."""
    try:
        raw = json.loads(path().read_text(encoding="utf-8"))
        outcomes = {name: Outcome(**outcome) for name, outcome in raw.pop("notebooks").items()}
        return RunState(**raw, notebooks=outcomes)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path()} is damaged ({error}): delete it and run again.") from error


def now() -> str:
    """UTC time to the microsecond, ISO 8601 (sorts as text)."""
    return datetime.now(UTC).isoformat()


def digest(notebook: Notebook, profile: str) -> str:
    """Hash of all that decides what a notebook does here: its text, the package's files, the profile."""
    return hashlib.sha256(f"{notebook.text}\0{package_digest()}\0{profile}".encode()).hexdigest()[:16]


def package_digest() -> str:
    """Hash of every file of the package that can change a result."""
    total = hashlib.sha256()
    folder = Path(__file__).resolve().parent.parent
    for file in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".toml", ".json")):
        total.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return total.hexdigest()
