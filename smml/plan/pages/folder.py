"""The pages of a plan as a folder, which stands there whole or not at all."""

import io
import os
import shutil
import tempfile
from pathlib import Path

from smml.atomic import cannot_write
from smml.errors import UserError
from smml.plan import report
from smml.plan.pages.architecture import architecture
from smml.plan.pages.charter import charter
from smml.plan.pages.cost import cost
from smml.plan.pages.figures import memory_figure, step_figure
from smml.plan.pages.schedule import schedule
from smml.plan.planning import Plan

MARK = "<!-- written by smml plan --report -->"
PAGES = {
    "charter.md": charter,
    "architecture.md": architecture,
    "schedule.md": schedule,
    "cost.md": cost,
}
PICTURES = ("memory.svg", "step.svg")


def pages(plan: Plan) -> dict[str, str]:
    """Text of every file by name: index, the four pages, two pictures (SVG)."""
    made = {name: page(plan) for name, page in PAGES.items()}
    titles = {name: text.splitlines()[0].removeprefix("# ") for name, text in made.items()}
    links = "\n".join(f"- [{title}]({name})" for name, title in titles.items())
    made["index.md"] = (
        f"# Plan: {plan.step.job.shape.name} on {plan.step.cluster.gpus:,} × "
        f"{plan.step.cluster.accelerator.name}\n\n{links}\n\n```text\n{report.text(plan)}\n```"
    )
    made = {name: f"{MARK}\n\n{text}\n" for name, text in made.items()}
    held = memory_figure({str(plan.step.layout): plan.memory}, plan.limit_bytes)
    for name, figure in zip(PICTURES, (held, step_figure(plan.step)), strict=True):
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        made[name] = drawn.getvalue()
    return made


def write(plan: Plan, folder: Path) -> Path:
    """Write all pages into `folder`, made if need be, in one move; returns index.md.

    A folder that holds anything but an earlier report is left alone. Raises UserError that says what stands there, or
    why it cannot be written.
    """
    folder = Path(folder)
    refuse_foreign(folder)
    made = pages(plan)
    beside = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        new, old = beside / "new", beside / "old"
        new.mkdir()
        for name, text in made.items():
            (new / name).write_text(text, encoding="utf-8")
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(new, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)
            raise
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)
    return folder / "index.md"


def refuse_foreign(folder: Path) -> None:
    """Raise UserError where `folder` is no folder, or holds what no plan wrote."""
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise UserError(f"report is {str(folder)!r}: that is no folder. Give another name.")
    for path in sorted(folder.iterdir()):
        ours = path.name in PICTURES or (path.name in (*PAGES, "index.md") and _marked(path))
        if not ours:
            raise UserError(
                f"report is {str(folder)!r}: it holds {path.name}, which no plan wrote. Give an empty or another folder."
            )


def _marked(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8").startswith(MARK)
    except (OSError, UnicodeDecodeError):
        return False
