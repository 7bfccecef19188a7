"""The last run of the notebooks: what build/run.json says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

from smml.errors import UserError

Status = Literal["passed", "failed", "timeout", "interrupted", "pending"]


@dataclass(frozen=True)
class Outcome:
    """How one notebook ended: status, wall-clock seconds, its error as one line."""

    status: Status
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class LastRun:
    """One run of the notebooks on one machine; `notebooks` is keyed "<module>/<name>"."""

    profile: str
    machine: str
    device: str
    started: datetime
    finished: datetime | None = None
    notebooks: Mapping[str, Outcome] = field(default_factory=dict)

    def count(self, *statuses: str) -> int:
        """Number of notebooks that ended in one of `statuses`."""
        return sum(outcome.status in statuses for outcome in self.notebooks.values())


def load(path: Path) -> LastRun | None:
    """The run recorded in `path`; None where nothing has run yet. UserError when it is not a run's record."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        notebooks = {
            name: Outcome(outcome["status"], outcome["seconds"] or None, outcome["error"])
            for name, outcome in data["notebooks"].items()
        }
        unknown = {outcome.status for outcome in notebooks.values()} - set(get_args(Status))
        if unknown:
            raise ValueError(f"status {', '.join(sorted(unknown))} is none of {', '.join(get_args(Status))}")
        return LastRun(
            profile=data["profile"],
            machine=data["machine"],
            device=data["device"],
            started=datetime.fromisoformat(data["started"]),
            finished=datetime.fromisoformat(data["finished"]) if data.get("finished") else None,
            notebooks=notebooks,
        )
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is not the record of a run: {type(error).__name__} {error}. Delete it and run make run again."
        ) from error
