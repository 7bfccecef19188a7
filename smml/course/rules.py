"""The rules of a notebook that a program can check: order, sizes, tags, solutions, forbidden calls, typed figures."""

import ast
import re
from collections.abc import Iterator

from smml.course import checking
from smml.course.notebook import Notebook, canonical, solutions, tags
from smml.errors import UserError

SECTIONS = (
    "What you will be able to do",
    "This machine",
    "Count",
    "Predict",
    "Build and verify",
    "Measure",
    "Compare",
    "Change one thing",
    "Exercises",
    "Takeaways",
)
CODE_CELLS = range(10, 21)
LINES_PER_CELL = 18
LINE_LENGTH = 100  # what the site and a laptop show without scrolling sideways
WORDS = 1200
HEADER_WORDS = ("laptop", "GPU", "AWS", "Read before")
CLOSING_WORDS = ("Limits", "Sources", "Next")
FORBIDDEN_CALLS = {
    "os.chdir": "workers and the reader lose their folder",
    "importlib.reload": "restart the kernel instead",
    "torch.cuda.is_available": "profiles decide, not notebooks",
    "os.system": "call smml, or subprocess inside it",
    "get_ipython": "no shell escapes and no magics",
}
# A number with a unit of hardware or money is a measurement or a fact: both come from records and smml/data.
TYPED_FIGURE = re.compile(
    r"\$\s?\d|\b\d[\d.,]*\s?[kMGTP]?(FLOPS|FLOPs?/s|i?B/s|bit/s|[Tt]okens?/s|tok/s|tokens per second|USD)\b"
)
SHELL = re.compile(r"^\s*[!%]", re.MULTILINE)


def problems(notebook: Notebook) -> list[str]:
    """Every broken rule of one notebook as "name: what, and what to do"; empty when it keeps them all."""
    try:
        found = [
            *_stored(notebook),
            *_order(notebook),
            *_sizes(notebook),
            *_code(notebook),
            *_exercises(notebook),
        ]
    except UserError as error:
        found = [str(error)]
    return [f"{notebook.name}: {problem}" for problem in found]


def _stored(notebook: Notebook) -> Iterator[str]:
    if notebook.text != canonical(notebook.node):
        yield "is not in its stored form (outputs, counts, metadata or layout differ): run make format"
    if any(cell.cell_type == "code" and cell.outputs for cell in notebook.node.cells):
        yield "is stored with outputs: run make format"


def _order(notebook: Notebook) -> Iterator[str]:
    cells = notebook.node.cells
    head = cells[0].source if cells and cells[0].cell_type == "markdown" else ""
    lines = [line for line in head.splitlines() if line.strip()]
    if not (lines and lines[0].startswith("# ") and lines[0].endswith("?")):
        yield "the first cell must be a markdown title that asks a question (# …?)"
    missing = [word for word in HEADER_WORDS if word not in head]
    if missing:
        yield f"the line under the title does not say {', '.join(missing)}"
    headings = [
        line[3:].strip()
        for cell in cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    # A heading may go on after its name: "## Count: FLOPs and bytes".
    order = [next((s for s in SECTIONS if h == s or h.startswith(s + ":")), h) for h in headings]
    if order != list(SECTIONS):
        yield f"sections are {order}, they must be {list(SECTIONS)}"
    code = [c for c in cells if c.cell_type == "code"]
    try:
        notebook.require_parameters()
    except UserError as error:
        yield str(error)
    else:
        if "parameters" not in tags(code[0]):
            yield "the parameters cell must be the first code cell"
        names = _assigned(code[0].source)
        if names.get("profile") != "auto" or not isinstance(names.get("seed"), int):
            yield 'the parameters cell must set profile = "auto" and an integer seed'
        if not any(name.startswith("my_") and value is None for name, value in names.items()):
            yield "the parameters cell must hold the reader's predictions (my_… = None)"
    closing = "\n".join(c.source for c in _section(cells, "Takeaways") if c.cell_type == "markdown")
    missing = [word for word in CLOSING_WORDS if f"**{word}" not in closing]
    if missing:
        yield f"the takeaways lack {', '.join(f'**{word}**' for word in missing)}"
    if not any(c.cell_type == "code" for c in _section(cells, "Takeaways")):
        yield "the takeaways must render their numbers from records in a code cell"
    if not any("assert" in c.source for c in _section(cells, "Compare") if c.cell_type == "code"):
        yield "the section Compare asserts nothing"


def _sizes(notebook: Notebook) -> Iterator[str]:
    cells = notebook.node.cells
    code = [c for c in cells if c.cell_type == "code"]
    if len(code) not in CODE_CELLS:
        yield f"{len(code)} code cells; {CODE_CELLS.start} to {CODE_CELLS.stop - 1} are allowed"
    for number, cell in enumerate(code):
        lines = len(cell.source.splitlines())
        if lines > LINES_PER_CELL:
            yield f"code cell {number} has {lines} lines; at most {LINES_PER_CELL}: move what is reused into smml"
        longest = max((len(line) for line in cell.source.splitlines()), default=0)
        if longest > LINE_LENGTH:
            yield f"code cell {number} has a line of {longest} characters; at most {LINE_LENGTH}"
    words = sum(len(c.source.split()) for c in cells if c.cell_type == "markdown")
    if words > WORDS:
        yield f"{words} words of prose; at most {WORDS}"


def _code(notebook: Notebook) -> Iterator[str]:
    for number, cell in enumerate(notebook.node.cells):
        if figure := TYPED_FIGURE.search(cell.source):
            yield f"cell {number} types the figure {figure.group(0)!r}: take it from a record or from smml.data"
        if cell.cell_type == "markdown":
            if "you should see" in cell.source.lower():
                yield f"cell {number} says 'you should see': assert it, or say nothing"
            continue
        if SHELL.search(cell.source):
            yield f"cell {number} has a shell escape or magic: call smml instead"
            continue
        try:
            tree = ast.parse(cell.source)
        except SyntaxError as error:
            yield f"cell {number} is not Python: {error.msg} in line {error.lineno}"
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            ):
                yield f"cell {number} swallows every error: name the one that you expect"
            if isinstance(node, ast.Attribute | ast.Name) and (
                why := FORBIDDEN_CALLS.get(ast.unparse(node))
            ):
                yield f"cell {number} uses {ast.unparse(node)}: {why}"


def _exercises(notebook: Notebook) -> Iterator[str]:
    cells = notebook.node.cells
    pairs = solutions(notebook.node)
    if len(pairs) < 2:
        yield f"{len(pairs)} exercises; at least 2 are needed"
    for index, code in pairs:
        following = cells[index + 1].source if index + 1 < len(cells) else ""
        names = re.findall(r"check\(\s*\"([\w.]+)\"", following)
        if len(names) != 1:
            yield f'exercise in cell {index} must be followed by a cell with one check("topic.name", answer)'
        elif names[0] not in checking.every():
            yield f"exercise in cell {index} is judged by {names[0]}, which smml.course.exercises does not hold"
        if code.strip() == cells[index].source.strip():
            yield f"the solution of the exercise in cell {index} is the stub itself"
    for index, cell in enumerate(cells):
        if "solution" in tags(cell) and not (
            cell.cell_type == "markdown"
            and cell.source.startswith("<details>")
            and "</details>" in cell.source
        ):
            yield f"the solution in cell {index} must be a markdown cell folded in <details>"


def _section(cells: list, name: str) -> list:
    """Cells from the one that holds the heading of section `name` up to the next section's."""
    inside, found = False, []
    for cell in cells:
        headings = (
            re.findall(r"^## (.*)", cell.source, re.MULTILINE)
            if cell.cell_type == "markdown"
            else []
        )
        begins = any(heading.startswith(name) for heading in headings)
        if begins or (inside and not headings):
            found.append(cell)
        inside = headings[-1].startswith(name) if headings else inside
    return found


def _assigned(source: str) -> dict[str, object]:
    """Names and literal values that a cell assigns at its top level."""
    values: dict[str, object] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            values |= {t.id: node.value.value for t in node.targets if isinstance(t, ast.Name)}
    return values
