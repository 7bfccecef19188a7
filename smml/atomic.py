"""Files that are written whole or not at all."""

import os
import tempfile
from pathlib import Path

from smml.errors import UserError


def write_text(path: Path, text: str) -> Path:
    """Write `text` (UTF-8) to `path` through a temporary file beside it; readers see the old file or the new.

    Raises UserError when the folder cannot be written or the disk is full; the old file is then untouched.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w",
            encoding="utf-8",
            dir=path.parent,
            prefix=f".{path.name}.",
            suffix=".partial",
            delete=False,
        ) as file:
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        # After a successful replace the name is gone; after any failure or Ctrl-C nothing half-written stays.
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def cannot_write(path: Path, error: OSError) -> UserError:
    """The one-line error for a write that failed: which file, why, what to do."""
    return UserError(
        f"cannot write {path}: {error.strerror or error}. "
        "Free space or make the folder writable, or choose another one with SMML_BUILD=/some/folder."
    )
