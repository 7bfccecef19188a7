"""A course of a few small notebooks in a temporary checkout, for tests of the runner."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = 'profile = "auto"\nmy_guess = None\nseed = 0'


def add_notebook(
    root: Path, name: str, *code: str, parameters: bool = True, measures: bool = False
) -> Path:
    """Write root/00_module/NAME.ipynb with a parameters cell (unless told not to) and the given code cells."""
    cells = [new_markdown_cell(f"# {name}?")]
    if parameters:
        cells.append(new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}))
    cells += [new_code_cell(source) for source in code]
    node = new_notebook(cells=cells, metadata={"smml": {"measures": measures}})
    path = root / "00_module" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(node, path)
    return path
