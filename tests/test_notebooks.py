"""Every notebook of the course, executed: as it stands, and with its solutions in place of the stubs."""

import ast
import contextlib
import io
import linecache
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from smml import paths
from smml.course import notebook as files
from smml.course.run import Options, executed, run
from smml.measure import load_folder
from smml.measure.record import slug

COURSE = files.find()
# Those that measure run alone, after all other tests; the others may run beside them.
AS_THEY_STAND = [
    pytest.param(n, marks=pytest.mark.notebook if n.measures else (), id=n.name) for n in COURSE
]


@pytest.fixture(scope="module")
def machine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build folder and ceilings of all notebooks of this file, which share them as in one `make run`."""
    return tmp_path_factory.mktemp("machine")


@pytest.fixture(autouse=True)
def as_in_one_run(folders: Path, machine_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMML_BUILD", str(machine_folder / "build"))
    monkeypatch.setenv("SMML_RECORDS", str(machine_folder / "build" / "records"))
    monkeypatch.setenv("SMML_CACHE", str(machine_folder / "cache"))


def output_of(node: nbformat.NotebookNode) -> str:
    """What the code cells print when they run one after the other, in this process."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()) as written:
        for number, cell in enumerate(c for c in node.cells if c.cell_type == "code"):
            name = f"<cell {number}>"
            # Kernels are compiled from their source, which inspect looks up here.
            linecache.cache[name] = (0, None, cell.source.splitlines(keepends=True), name)
            exec(compile(cell.source, name, "exec"), namespace)
    return written.getvalue()


def exercises_alone(node: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Title, parameters, every import, then the exercises with their checks: they need no more of a notebook."""
    code = [cell for cell in node.cells if cell.cell_type == "code"]
    setup = [cell for cell in code if "parameters" in files.tags(cell)]
    imports = [
        ast.unparse(statement)
        for cell in code
        for statement in ast.parse(cell.source).body
        if isinstance(statement, ast.Import | ast.ImportFrom)
    ]
    needed = [
        cell
        for before, cell in pairwise(code)
        if "exercise" in files.tags(cell) or "exercise" in files.tags(before)
    ]
    together = nbformat.v4.new_code_cell("\n".join(imports))
    node.cells = [node.cells[0], *setup, together, *needed]
    node.metadata["smml"] = {"measures": False}
    return node


def output_text(name: str) -> str:
    node = nbformat.read(executed(name), as_version=4)
    return "".join(
        o.get("text", "") for c in node.cells if c.cell_type == "code" for o in c.outputs
    )


@pytest.mark.parametrize("notebook", AS_THEY_STAND)
def test_a_notebook_runs_as_it_stands_and_leaves_records(notebook):
    outcome = run([notebook], Options(timeout_s=300)).notebooks[notebook.name]
    assert outcome.status == "passed", outcome.error
    text = output_text(notebook.name)
    assert text.count("not attempted") == len(files.solutions(notebook.node))
    records = load_folder(paths.records() / slug(notebook.name))
    assert records, "a notebook that measures leaves records"
    assert {r.source for r in records} == {notebook.name}
    kernels = [r for r in records if not r.name.startswith("ceiling/") and r.unit != "×"]
    assert all(r.predicted for r in kernels), "predicted before it was measured"
    node = nbformat.read(executed(notebook.name), as_version=4)
    errors = [
        o
        for c in node.cells
        if c.cell_type == "code"
        for o in c.outputs
        if o.output_type == "error"
    ]
    assert errors == []
    warned = [
        o.text
        for c in node.cells
        if c.cell_type == "code"
        for o in c.outputs
        if o.get("name") == "stderr"
    ]
    assert warned == [], "a reader would wonder"


@pytest.mark.parametrize("notebook", COURSE, ids=lambda n: n.name)
def test_a_notebooks_solutions_pass_their_checks(notebook):
    text = output_of(exercises_alone(files.solved(notebook.node)))
    assert "not attempted" not in text
    assert text.count("✔") == len(files.solutions(notebook.node))


@pytest.mark.notebook
def test_a_wrong_answer_stops_the_notebook_with_its_hint(tmp_path):
    name = "00_getting_started/01_your_machine"
    (notebook,) = files.select([name])
    node = files.solved(notebook.node)
    exercise = next(
        c for c in node.cells if "def copy_seconds" in c.source and c.cell_type == "code"
    )
    exercise.source = exercise.source.replace("(2 + write_allocate)", "1")
    setup = [c for c in node.cells if "parameters" in files.tags(c)]
    imports = nbformat.v4.new_code_cell("from smml.course import check")
    index = node.cells.index(exercise)
    node.cells = [node.cells[0], *setup, imports, *node.cells[index : index + 2]]
    path = tmp_path / "00_x" / "01_x.ipynb"
    path.parent.mkdir()
    nbformat.write(node, path)
    (wrong,) = files.find(tmp_path)
    outcome = run([wrong], Options()).notebooks["00_x/01_x"]
    assert outcome.status == "failed"
    assert "A copy reads every byte once and writes it once" in outcome.error


@pytest.mark.notebook
def test_an_injected_slowdown_fails_the_comparison(smml, folders):
    """The whole chain: two real runs of a bench on this machine, one with every call done twice."""
    fast, slow = folders / "fast", folders / "slow"
    first = smml("bench", "elementwise", "--out", str(fast))
    assert first.returncode == 0, first.stderr
    second = smml("bench", "elementwise", "--out", str(slow), "--inject-slowdown", "2")
    assert second.returncode == 0, second.stderr
    assert smml("compare", str(fast), "--accept").returncode == 0
    same = smml("compare", str(fast))
    assert same.returncode == 0, same.stdout
    judged = smml("compare", str(slow))
    assert judged.returncode == 1, judged.stdout
    assert "slower" in judged.stdout
