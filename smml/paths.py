"""Where things live: the checkout, its build folder, its recorded results, the per-user cache."""

import os
from pathlib import Path


def checkout() -> Path:
    """Root of the checkout that holds the notebooks: $SMML_ROOT, else the folder above the package."""
    return Path(os.environ.get("SMML_ROOT") or Path(__file__).resolve().parent.parent)


def build() -> Path:
    """Folder for everything that a run makes: $SMML_BUILD, else build/ in the checkout."""
    return Path(os.environ.get("SMML_BUILD") or checkout() / "build")


def records() -> Path:
    """Folder of the records of the latest run: $SMML_RECORDS, else records/ in the build folder."""
    return Path(os.environ.get("SMML_RECORDS") or build() / "records")


def results() -> Path:
    """Folder of records kept in the repository, one folder a machine: $SMML_RESULTS, else results/."""
    return Path(os.environ.get("SMML_RESULTS") or checkout() / "results")


def models() -> Path:
    """Folder of the models kept in the repository: $SMML_MODELS, else models/ in the checkout."""
    return Path(os.environ.get("SMML_MODELS") or checkout() / "models")


def cache() -> Path:
    """Per-user cache of measured ceilings: $SMML_CACHE, else $XDG_CACHE_HOME/smml, else ~/.cache/smml."""
    base = os.environ.get("SMML_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "smml"
