"""The house: a file imports from its own floor or below; files are small, named for one idea, and stub-free."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "smml"
# From the cellar up. MEASURING stands below MACHINE, since ceilings are measured with its timer.
FLOORS = [
    {"errors", "paths", "atomic", "triton_mode"},
    {"data"},
    {"measure"},
    {"hardware"},
    {"roofline"},
    {"plot", "plot_timeline", "doctor"},
    {"llama"},
    {"kernels"},
    {"parallel"},
    {"train"},
    {"plan"},
    {"aws"},
    {"cost"},
    {"profiling"},
    {"bench"},
    {"course"},
    {"cli"},
]
LEVEL = {name: level for level, floor in enumerate(FLOORS) for name in floor}
FILES = sorted(PACKAGE.rglob("*.py"))


def floor(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
    if path == PACKAGE / "__init__.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "smml":
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name.split(".")[1] for a in node.names if a.name.startswith("smml.")]
        for name in set(names) - {"__version__"}:
            assert LEVEL[name] <= LEVEL[floor(path)], (
                f"{floor(path)} imports {name}, which is above it"
            )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_holds_one_idea(path):
    text = path.read_text()
    assert text.count("\n") <= 320, "split it: one idea a file"
    assert path.stem not in ("utils", "helpers", "common", "misc")
    assert ast.get_docstring(ast.parse(text)), "the first line says what the file holds"
    assert not re.search(r"raise NotImplementedError|\b(TODO|FIXME|XXX)\b", text)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_public_functions_are_documented_and_typed(path):
    for node in ast.parse(path.read_text()).body:
        public_class = isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        if public_class and any("Protocol" in ast.unparse(base) for base in node.bases):
            continue  # its methods are the shape of somebody else's
        inner = node.body if public_class else [node]
        for item in inner:
            if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
                assert ast.get_docstring(item), f"{item.name} has no docstring"
                if any("jit" in ast.unparse(mark) for mark in item.decorator_list):
                    continue  # a kernel's arguments are typed by what it is launched with
                untyped = [
                    a.arg
                    for a in item.args.args
                    if a.annotation is None and a.arg not in ("self", "cls")
                ]
                assert not untyped, f"{item.name}: {untyped} have no type"


def test_the_command_line_starts_without_torch():
    code = "import sys, smml.cli, smml.hardware, smml.measure, smml.course.run; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
