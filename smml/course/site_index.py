"""The index of the site and the page of a module, as Markdown. Pure: data → text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from smml.course import wording
from smml.course.state import Outcome, RunState

_FIRST_SECTION = re.compile(
    r"\A(?:#\s+(?P<title>[^\n]+)\n)?(?P<intro>.*?)(?=^##\s|\Z)(?P<rest>.*)", re.S | re.M
)

TITLE = "Self-managed machine learning, measured"
INTRO = """Notebooks that each answer one question about running large models on your own hardware or on AWS:
count first, predict, then measure, and explain the difference. Every figure on these pages was rendered from
a run."""

AGAIN = """
## Run it again

```sh
make run    # every notebook on what this machine has, then these pages
make lab    # JupyterLab: open one, predict, change one thing, run it again
```
"""


@dataclass(frozen=True)
class Entry:
    """One notebook of a module: file stem, title as Markdown, how its last run ended."""

    name: str
    title: str
    outcome: Outcome


@dataclass(frozen=True)
class Module:
    """One folder of notebooks; `readme` is its README as Markdown, empty where there is none."""

    folder: str
    readme: str
    entries: Sequence[Entry]

    @property
    def title(self) -> str:
        """The README's title, else the folder's name as words; led by the module's number."""
        number, words = self.folder.split("_", 1)
        own = _FIRST_SECTION.match(self.readme)["title"] or words.replace("_", " ").capitalize()
        return own if own.startswith(number) else f"{number} · {own}"


def index(modules: Sequence[Module], run: RunState | None, readme: str) -> str:
    """The first page: what this is, the last run in one line, the map of all modules, how to run again."""
    first = _FIRST_SECTION.match(readme)
    parts = [
        f"# {first['title'] or TITLE}",
        first["intro"].strip() or INTRO,
        run_line(run, modules),
    ]
    for module in modules:
        parts.append(f"## [{module.title}]({module.folder}/README.md)")
        parts.append(_table(module, f"{module.folder}/"))
    pages = "\n".join(f"{module.folder}/README" for module in modules)
    more = "Report <report>" + ("\nREADME <README>" if readme else "")
    return "\n\n".join([*parts, AGAIN, _toctree("Modules", pages), _toctree("More", more)]) + "\n"


def module_page(module: Module) -> str:
    """The page of a module: its README, with the table of its notebooks after the introduction."""
    parts = _FIRST_SECTION.match(module.readme)
    body = [f"# {module.title}", parts["intro"].strip(), _table(module, ""), parts["rest"].strip()]
    pages = "\n".join(entry.name for entry in module.entries)
    return "\n\n".join([*filter(None, body), _toctree(None, pages)]) + "\n"


def run_line(run: RunState | None, modules: Sequence[Module]) -> str:
    """The last run in one line: how many passed, failed, did not run; device, profile, date, link to the report."""
    if run is None:
        return (
            '<p class="run-line"><span>○ No notebook has been run on this machine yet.</span></p>'
        )
    counts: dict[str, int] = {}
    for module in modules:
        for entry in module.entries:
            counts[entry.outcome.status] = counts.get(entry.outcome.status, 0) + 1
    parts = []
    for name, (symbol, words) in wording.STATUS_WORDS.items():
        if counts.get(name):
            parts.append(f'<span class="status {name}">{symbol} {counts[name]} {words}</span>')
    parts += [
        f"<span>{escape(text)}</span>"
        for text in (run.device, f"profile {run.profile}", wording.day(run.started))
    ]
    if run.finished is None:
        parts.append("<span>the run is not finished</span>")
    else:
        parts.append(
            f"<span>{wording.duration((run.finished - run.started).total_seconds())}</span>"
        )
    return f'<p class="run-line">{"".join(parts)}<a href="report.html">Report</a></p>'


def _table(module: Module, prefix: str) -> str:
    rows = ["| | Question | Last run | Time |", "|---|---|---|--:|"]
    for entry in module.entries:
        number = entry.name.split("_", 1)[0]
        link = f"[{entry.title.replace('|', chr(92) + '|')}]({prefix}{entry.name}.ipynb)"
        rows.append(
            f"| {number} | {link} | {wording.status(entry.outcome.status)} | {wording.duration(entry.outcome.seconds)} |"
        )
    return "\n".join(["```{container} map", "", *rows, "```"]) if module.entries else ""


def _toctree(caption: str | None, pages: str) -> str:
    options = ":hidden:" + (f"\n:caption: {caption}" if caption else "")
    return f"```{{toctree}}\n{options}\n\n{pages}\n```"
