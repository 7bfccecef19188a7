"""A Hugging Face model folder on disk: its configuration, and writing it whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smml.atomic import cannot_write
from smml.errors import UserError
from smml.llama.config import LlamaConfig


def load_config(folder: Path | str) -> LlamaConfig:
    """Configuration of a Hugging Face folder; end-of-sequence ids from generation_config.json where it has them.

    Raises UserError for a missing or unreadable file and for whatever LlamaConfig.from_hf refuses.
    """
    folder = Path(folder)
    if not folder.exists() and _previous(folder).exists():
        raise UserError(
            f"{folder} was being replaced when its writer died: rename {_previous(folder)} to it."
        )
    fields = read_json(folder / "config.json")
    if (folder / "generation_config.json").exists():
        eos = read_json(folder / "generation_config.json").get("eos_token_id")
        fields["eos_token_id"] = fields.get("eos_token_id") if eos is None else eos
    return LlamaConfig.from_hf(fields)


@contextmanager
def whole_folder(folder: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """A new folder beside `folder` to fill, which takes its place on leaving; on an exception or a kill it does not.

    Raises UserError when `folder` exists without `overwrite`, or when it cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise UserError(
            f"{folder} exists: choose another folder, or say overwrite=True to replace it."
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give the name of a folder.")
    previous = _previous(folder)
    partial = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(
            tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".partial")
        )
        partial.chmod(0o755)
        yield partial
        for path in partial.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            folder.rename(previous)
        partial.rename(folder)
        shutil.rmtree(previous, ignore_errors=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _previous(folder: Path) -> Path:
    """Where the old content stands for the moment between two renames."""
    return folder.with_name(f".{folder.name}.previous")


def read_json(path: Path) -> dict[str, Any]:
    """Object in a JSON file; UserError when the file is missing or holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path.parent} has no {path.name}: give a Hugging Face model folder."
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}): fetch it again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not an object: fetch it again.")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as JSON that a person can read."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
