"""The notebooks' format: each rule finds what breaks it, and every notebook of the course keeps them all."""

import copy

import pytest

from smml.course import notebook as files
from smml.course.notebook import Notebook, canonical, solutions, solved, tags
from smml.course.rules import problems
from smml.errors import UserError

COURSE = files.find()
(SPECIMEN,) = files.select(["01_leveraging_hardware/01_roofline"])


def test_the_course_has_notebooks():
    assert len(COURSE) >= 2


@pytest.mark.parametrize("notebook", COURSE, ids=lambda n: n.name)
def test_every_notebook_keeps_the_rules(notebook):
    assert problems(notebook) == []


@pytest.mark.parametrize("notebook", COURSE, ids=lambda n: n.name)
def test_the_stored_form_is_a_fixed_point(notebook):
    assert canonical(notebook.node) == notebook.text


def first(cells, wanted):
    return next(cell for cell in cells if wanted(cell))


def heading(cells, name):
    return first(cells, lambda c: c.source.startswith(f"## {name}"))


def edit_title(cells):
    cells[0].source = cells[0].source.replace("?", ".", 1)


def edit_header(cells):
    cells[0].source = cells[0].source.replace("laptop", "computer")


def drop_section(cells):
    heading(cells, "Count").source = "no heading"


def swap_sections(cells):
    heading(cells, "Predict").source = heading(cells, "Predict").source.replace(
        "## Predict", "## Verify"
    )


def untag_parameters(cells):
    first(cells, lambda c: "parameters" in tags(c)).metadata.tags = []


def type_a_profile(cells):
    cell = first(cells, lambda c: "parameters" in tags(c))
    cell.source = cell.source.replace('"auto"', '"gpu"')


def drop_predictions(cells):
    cell = first(cells, lambda c: "parameters" in tags(c))
    cell.source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("my_"))


def fill_solution_twice(cells):
    cell = first(cells, lambda c: "solution" in tags(c))
    cell.source += "\n```python\nx = 1\n```\n"


def unfold_solution(cells):
    cell = first(cells, lambda c: "solution" in tags(c))
    cell.source = cell.source.replace("<details>", "").replace("</details>", "")


def unknown_exercise(cells):
    cell = first(cells, lambda c: c.cell_type == "code" and "check(" in c.source)
    cell.source = 'check("roofline.no_such_exercise", None)'


def lose_assertions(cells):
    for cell in cells:
        if cell.cell_type == "code":
            cell.source = cell.source.replace("assert ", "_ = ")


def add_code(text):
    def edit(cells):
        first(cells, lambda c: c.cell_type == "code" and "parameters" not in tags(c)).source += (
            "\n" + text
        )

    return edit


def add_prose(text):
    def edit(cells):
        heading(cells, "Count").source += "\n\n" + text

    return edit


BREAKS = {
    "title": (edit_title, "asks a question"),
    "header": (edit_header, "laptop"),
    "missing section": (drop_section, "sections are"),
    "unknown section": (swap_sections, "sections are"),
    "no parameters": (untag_parameters, "`parameters`"),
    "profile typed in": (type_a_profile, 'profile = "auto"'),
    "no predictions": (drop_predictions, "predictions"),
    "two solutions": (fill_solution_twice, "one ```python block"),
    "unfolded solution": (unfold_solution, "<details>"),
    "unknown exercise": (unknown_exercise, "does not hold"),
    "nothing asserted": (lose_assertions, "asserts nothing"),
    "chdir": (add_code("import os\nos.chdir('/')"), "os.chdir"),
    "reload": (add_code("import importlib\nimportlib.reload(os)"), "importlib.reload"),
    "device question": (add_code("x = torch.cuda.is_available()"), "torch.cuda.is_available"),
    "bare except": (add_code("try:\n    x\nexcept:\n    y"), "swallows"),
    "broad except": (add_code("try:\n    x\nexcept Exception:\n    y"), "swallows"),
    "shell": (add_code("!pip install x"), "shell escape"),
    "magic": (add_code("%timeit x"), "shell escape"),
    "no Python": (add_code("def"), "not Python"),
    "long cell": (add_code("x = 1\n" * 30), "lines"),
    "long line": (add_code("x = '" + "y" * 120 + "'"), "characters"),
    "typed rate": (add_prose("An H200 does 989 TFLOP/s."), "types the figure"),
    "typed price": (add_prose("It costs $4 an hour."), "types the figure"),
    "promise": (add_prose("You should see a line."), "you should see"),
    "too many words": (add_prose("word " * 1200), "words of prose"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_rule_finds_what_breaks_it(name, tmp_path):
    edit, expected = BREAKS[name]
    node = copy.deepcopy(SPECIMEN.node)
    edit(node.cells)
    path = tmp_path / "01_x.ipynb"
    path.write_text(canonical(node))
    found = problems(Notebook(path, "00_module/01_x"))
    assert any(expected in problem for problem in found), found


def test_outputs_counts_and_foreign_metadata_break_the_stored_form(tmp_path):
    import nbformat

    node = copy.deepcopy(COURSE[0].node)
    code = [c for c in node.cells if c.cell_type == "code"]
    code[0].outputs = [nbformat.v4.new_output("stream", text="x")]
    code[1].metadata["collapsed"] = True
    path = tmp_path / "01_x.ipynb"
    nbformat.write(node, path)
    found = " ".join(problems(Notebook(path, "00_module/01_x")))
    assert "stored with outputs" in found
    assert "make format" in found
    assert canonical(node) == COURSE[0].text


def test_solutions_take_the_place_of_stubs_and_touch_nothing_else():
    node = SPECIMEN.node
    pairs = solutions(node)
    answered = solved(node)
    assert len(pairs) >= 2
    changed = [
        i
        for i, (a, b) in enumerate(zip(node.cells, answered.cells, strict=True))
        if a.source != b.source
    ]
    assert changed == [index for index, _ in pairs]
    assert all(answered.cells[index].source == code.rstrip("\n") for index, code in pairs)


def test_an_exercise_without_a_solution_is_named():
    node = copy.deepcopy(SPECIMEN.node)
    node.cells = [c for c in node.cells if "solution" not in tags(c)]
    with pytest.raises(UserError, match="no solution"):
        solutions(node)
