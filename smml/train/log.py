"""The record of a run while it runs: a JSON line a step, and the same curves for TensorBoard."""

import json
from pathlib import Path
from typing import Any

from smml import atomic

FILE = "log.jsonl"


class RunLog:
    """Appends to `out`/log.jsonl and `out`/tensorboard; lines after step `start`, of a run that is resumed, go."""

    def __init__(self, out: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        kept = [line for line in read(out) if line["step"] <= start] if start else []
        atomic.write_text(out / FILE, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = (out / FILE).open("a", encoding="utf-8")
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._board.close()

    def line(self, step: int, group: str, values: dict[str, Any]) -> None:
        """One line {"step", group: values}; numbers among them are drawn as group/name."""
        self._file.write(json.dumps({"step": step, group: values}) + "\n")
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{group}/{name}", value, step)

    def flush(self) -> None:
        """Let other processes see what was written."""
        self._file.flush()
        self._board.flush()


def read(out: Path) -> list[dict[str, Any]]:
    """Lines of a run's log, oldest first; a last line that a kill cut short is left out."""
    path = out / FILE
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return [
        json.loads(line) for line in lines[:-1]
    ]  # what follows the last newline is no whole line


def curve(out: Path, group: str = "train", name: str = "loss") -> dict[int, float]:
    """One quantity of a run's log by step, such as train/loss or held_out/loss."""
    return {line["step"]: line[group][name] for line in read(out) if name in line.get(group, {})}
