"""Notebooks as files: find them, read them, their tags, their canonical text, their solutions put in place."""

import copy
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smml import paths
from smml.errors import UserError

if (
    TYPE_CHECKING
):  # importing nbformat takes longer than reading a notebook: the runner does without
    from nbformat import NotebookNode

FENCE = re.compile(r"^```python\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Notebook:
    """One notebook of the checkout; `name` is "module_folder/file_stem"."""

    path: Path
    name: str

    @cached_property
    def text(self) -> str:
        """The file's text; UserError when it cannot be read."""
        try:
            return self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {self.path}: {error}.") from error

    @cached_property
    def raw(self) -> dict[str, Any]:
        """The notebook as plain JSON; UserError when it is none."""
        try:
            raw = json.loads(self.text)
            if not all("cell_type" in cell and "source" in cell for cell in raw["cells"]):
                raise ValueError("a cell lacks its type or its source")
        except (ValueError, KeyError, TypeError) as error:
            raise self._not_a_notebook(error) from error
        return raw

    @cached_property
    def node(self) -> "NotebookNode":
        """The notebook as nbformat reads and validates it; UserError when it is not a valid one."""
        import nbformat

        try:
            node = nbformat.reads(self.text, as_version=4)
            nbformat.validate(node)
        except (nbformat.ValidationError, nbformat.reader.NotJSONError, KeyError) as error:
            raise self._not_a_notebook(error) from error
        return node

    @property
    def measures(self) -> bool:
        """Whether it times anything, so that it must run alone (metadata `smml.measures`, default true)."""
        return bool(self.raw.get("metadata", {}).get("smml", {}).get("measures", True))

    def require_parameters(self) -> None:
        """UserError unless exactly one code cell carries papermill's tag `parameters`."""
        tagged = [
            cell
            for cell in self.raw["cells"]
            if cell["cell_type"] == "code"
            and "parameters" in cell.get("metadata", {}).get("tags", [])
        ]
        if len(tagged) != 1:
            raise UserError(
                f"{self.name} has {len(tagged)} code cells tagged `parameters`, one is needed: tag the cell "
                'that sets profile = "auto" (JupyterLab: property inspector, Cell Tags).'
            )

    def _not_a_notebook(self, error: Exception) -> UserError:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return UserError(f"{self.path} is not a notebook: {reason}. Restore it with git checkout.")


def find(root: Path | None = None) -> list[Notebook]:
    """Every notebook NN_module/NN_name.ipynb of the checkout, in the order of the curriculum."""
    root = root or paths.checkout()
    found = sorted(root.glob("[0-9][0-9]_*/[0-9][0-9]_*.ipynb"))
    return [Notebook(path, f"{path.parent.name}/{path.stem}") for path in found]


def select(wanted: list[str], root: Path | None = None) -> list[Notebook]:
    """Notebooks by name, path, module folder or part of a name; all for an empty list.

    UserError names what matched nothing and what there is.
    """
    notebooks = find(root)
    if not notebooks:
        raise UserError(
            f"no notebooks under {root or paths.checkout()}: run smml from a checkout, or set SMML_ROOT."
        )
    chosen: list[Notebook] = []
    for item in wanted:
        key = item.removesuffix(".ipynb").strip("/").removeprefix("./")
        matches = [n for n in notebooks if key in n.name or key.endswith("/" + n.name)]
        if not key or not matches:
            raise UserError(
                f"no notebook matches {item!r}; there are: {', '.join(n.name for n in notebooks)}."
            )
        chosen += [n for n in matches if n not in chosen]
    return sorted(chosen, key=lambda n: n.name) if wanted else notebooks


def tags(cell: "NotebookNode") -> list[str]:
    """Tags of a cell."""
    return list(cell.metadata.get("tags", []))


def canonical(node: "NotebookNode") -> str:
    """The stored form: no outputs or counts, only the metadata that the course uses, fixed key order and indent."""
    import nbformat

    node = copy.deepcopy(node)
    node.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "smml": dict(node.metadata.get("smml", {"measures": True})),
        }
    )
    for number, cell in enumerate(node.cells):
        kept = tags(cell)
        cell.metadata = nbformat.from_dict({"tags": kept} if kept else {})
        cell.id = f"cell-{number:02d}"
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    node.nbformat, node.nbformat_minor = 4, 5
    return json.dumps(_split_sources(node), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def solutions(node: "NotebookNode") -> list[tuple[int, str]]:
    """(index of the exercise cell, code of its solution) in order; UserError when they do not pair up."""
    found: list[tuple[int, str]] = []
    exercise = None
    for index, cell in enumerate(node.cells):
        if "exercise" in tags(cell):
            if exercise is not None:
                raise UserError(
                    f"exercise in cell {exercise} has no solution before the next one (cell {index})."
                )
            exercise = index
        elif "solution" in tags(cell):
            blocks = FENCE.findall(cell.source)
            if exercise is None or len(blocks) != 1:
                raise UserError(
                    f"solution in cell {index} must follow an exercise and hold one ```python block."
                )
            found.append((exercise, blocks[0]))
            exercise = None
    if exercise is not None:
        raise UserError(f"exercise in cell {exercise} has no solution.")
    return found


def solved(node: "NotebookNode") -> "NotebookNode":
    """A copy with every exercise stub replaced by its solution."""
    node = copy.deepcopy(node)
    for index, code in solutions(node):
        node.cells[index].source = code.rstrip("\n")
    return node


def _split_sources(node: "NotebookNode") -> dict:
    plain = json.loads(json.dumps(node))
    for cell in plain["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
    return plain
