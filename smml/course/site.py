"""The site: executed notebooks, their map and the report of the run as HTML that opens from disk."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from smml.course import report, report_plot, site_index, site_notebook, state
from smml.course.site_index import Entry, Module
from smml.course.site_stage import Stage
from smml.course.state import Outcome, RunState
from smml.errors import UserError
from smml.measure.compare import Comparison, compare
from smml.measure.record import Record, load_folder, slug

_PAGES = Path(__file__).parent / "site_pages"
_MODULE = re.compile(r"\d\d_[a-z0-9_]+")
# A heading in Markdown, or in the JSON of a notebook. A comment in code is taken for one too, which does no harm.
_HEADING = re.compile(r"(?:^|\\n|\")#{1,6} (.+?)(?=\\n|\"|$)", re.MULTILINE)
# /…/site_source/01_module/02_name.ipynb:20003: WARNING: message [kind]
_WARNING = re.compile(
    r"(?:(?P<file>.+?)(?::\d+)?: )?(?:WARNING|ERROR|CRITICAL): (?P<message>.+?)(?: \[[\w.-]+\])?"
)


def build(root: Path, build: Path) -> Path:
    """Build the site of the checkout `root` from the run in `build`; returns build/site/index.html.

    Notebooks come from build/notebooks as they were executed, those that were not from the checkout. Only
    pages whose sources changed are built again. UserError names every broken link, image or source, one a
    line; the pages are there nevertheless.
    """
    run = state.load(build / "run.json")
    stage = Stage(root, build / "site_source")
    modules, problems = _stage_modules(stage, root, build, run)
    readme = _read(root / "README.md")
    if readme:
        stage.write("README.md", stage.linked(readme, ""))
    stage.write("index.md", site_index.index(modules, run, stage.linked(readme, "")))
    titles = {
        f"{module.folder}/{entry.name}": entry.title
        for module in modules
        for entry in module.entries
    }
    _stage_report(stage, root, build, run, titles)
    stage.finish()
    problems += _sphinx(stage.folder, build, _navigation(stage))
    index = build / "site" / "index.html"
    if problems:
        raise UserError(
            "\n".join(
                [f"the site has {len(problems)} problem(s); its pages are at {index}:", *problems]
            )
        )
    return index


def _stage_modules(
    stage: Stage, root: Path, build: Path, run: RunState | None
) -> tuple[list[Module], list[str]]:
    modules, problems = [], []
    for folder in sorted(
        path for path in root.iterdir() if path.is_dir() and _MODULE.fullmatch(path.name)
    ):
        entries = []
        for source in sorted(folder.glob("*.ipynb")):
            outcome = (run.notebooks if run else {}).get(
                f"{folder.name}/{source.stem}", Outcome("pending")
            )
            notebook = _notebook(source)
            if outcome.status != "pending":
                try:
                    notebook = _notebook(build / "notebooks" / folder.name / source.name)
                except UserError as error:
                    problems.append(str(error))
                    outcome = Outcome("pending")
            entries.append(Entry(source.stem, site_notebook.title(notebook, source.stem), outcome))
            page = site_notebook.page(notebook, source.stem, outcome, run)
            for cell in page["cells"]:
                if cell["cell_type"] == "markdown":
                    cell["source"] = stage.linked(cell["source"], folder.name)
            stage.write(f"{folder.name}/{source.name}", json.dumps(page, indent=1))
        if entries:
            module = Module(
                folder.name, stage.linked(_read(folder / "README.md"), folder.name), entries
            )
            stage.write(f"{folder.name}/README.md", site_index.module_page(module))
            modules.append(module)
    return modules, problems


def _stage_report(
    stage: Stage, root: Path, build: Path, run: RunState | None, titles: dict[str, str]
) -> None:
    records = load_folder(build / "records")
    # A folder of records may hold some that were brought from another machine.
    machine = (
        run.machine
        if run
        else max(records, key=lambda r: r.date).machine.fingerprint
        if records
        else ""
    )
    records = [record for record in records if record.machine.fingerprint == machine]
    plots = {}
    for unit, drawing in report_plot.drawings(records).items():
        plots[unit] = f"predictions/{slug(unit.replace('/', ' per '))}.svg"
        stage.write(plots[unit], drawing)
    comparisons = _comparisons(records, root / "results" / machine)
    stage.write("report.md", report.page(run, records, comparisons, titles, plots))


def _comparisons(records: list[Record], baselines: Path) -> list[Comparison]:
    return compare(records, load_folder(baselines)) if records else []


def _notebook(path: Path) -> dict:
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if notebook["nbformat"] != 4 or not isinstance(notebook["cells"], list):
            raise ValueError(f"nbformat {notebook['nbformat']} is not 4")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a readable notebook ({type(error).__name__}: {error}); run it again with make run"
        ) from error
    return notebook


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _navigation(stage: Stage) -> str:
    """A digest of what pages show of each other and link to in each other: names, headings, style.

    When it changes, Sphinx writes every page again and so looks at every link again.
    """
    digest = hashlib.sha256()
    for path in sorted(stage.folder.rglob("*")):
        if path.suffix in (".md", ".ipynb"):
            digest.update(str(path).encode())
            for heading in _HEADING.findall(path.read_text(encoding="utf-8")):
                digest.update(heading.encode())
    for path in (_PAGES / "conf.py", *sorted((_PAGES / "static").iterdir())):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _sphinx(source: Path, build: Path, navigation: str) -> list[str]:
    """Run Sphinx in a process of its own (it changes logging and locale); one line for each warning."""
    cache, site = build / "site_cache", build / "site"
    cache.mkdir(parents=True, exist_ok=True)
    warnings = cache / "warnings.txt"
    warnings.write_text("")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-b",
        "html",
        "-c",
        _PAGES,
        "-d",
        cache / "doctrees",
    ]
    command += ["-w", warnings, "-D", f"html_context.navigation={navigation}", source, site]
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
        check=False,
    )
    lines = warnings.read_text(encoding="utf-8").splitlines()
    problems = [_problem(line, source) for line in lines if _WARNING.fullmatch(line)]
    if problems:
        # Sphinx speaks of a page only when it reads it: without its cache it will, until the page is mended.
        (cache / "doctrees" / "environment.pickle").unlink(missing_ok=True)
    if done.returncode and not problems:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        problems.append(f"Sphinx ended with exit code {done.returncode}: {last[0]}")
    return problems


def _problem(line: str, source: Path) -> str:
    match = _WARNING.fullmatch(line)
    file = (
        (match["file"] or "the site")
        .removeprefix(f"{source.resolve()}/")
        .removeprefix(f"{source}/")
    )
    message = match["message"].replace("'myst' cross-reference target not found", "link to nothing")
    return f"{file}: {message.replace('image file not readable', 'no image at')}"
