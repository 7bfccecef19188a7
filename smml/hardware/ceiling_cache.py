"""The ceilings of this machine, measured once and kept per fingerprint and torch version."""

import warnings
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from smml import atomic, paths
from smml.errors import UserError
from smml.hardware.ceiling import Ceilings
from smml.hardware.detect import detect
from smml.hardware.machine import Machine
from smml.hardware.reach import measure


def ceilings(machine: Machine | None = None, *, refresh: bool = False) -> Ceilings:
    """Ceilings of `machine` (default: this one): from the cache of its fingerprint and torch version, else measured.

    Measuring takes about ten seconds on a laptop; `refresh=True` measures anew and replaces the cached file.
    """
    machine = machine or detect()
    path = cache_path(machine)
    if not refresh and path.exists():
        try:
            return Ceilings.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError):
            warnings.warn(f"{path} is not a file of ceilings; measured anew.", stacklevel=2)
    measured = measure(machine)
    try:
        atomic.write_text(path, measured.model_dump_json(indent=1) + "\n")
    except UserError as error:
        warnings.warn(f"{error} These ceilings hold for this process only.", stacklevel=2)
    return measured


def cache_path(machine: Machine) -> Path:
    """Where the ceilings of a machine are cached."""
    return paths.cache() / "ceilings" / f"{machine.fingerprint}-torch-{version('torch')}.json"
