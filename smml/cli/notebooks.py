"""Commands on notebooks: run, site, format, lab."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from smml import paths
from smml.errors import UserError

Profile = Annotated[str, typer.Option(help="auto, cpu, gpu, multi_gpu or cluster.")]


def run(
    notebooks: Annotated[
        list[str] | None, typer.Argument(help="Names, paths or modules; all if none.")
    ] = None,
    profile: Profile = "auto",
    timeout: Annotated[float, typer.Option(help="Seconds that one notebook may take.")] = 600.0,
    jobs: Annotated[
        int, typer.Option(help="Notebooks side by side, of those that do not measure.")
    ] = 0,
    fresh: Annotated[
        bool, typer.Option(help="Start over even if the last run was interrupted.")
    ] = False,
    site: Annotated[bool, typer.Option(help="Build the site afterwards.")] = True,
) -> None:
    """Execute notebooks on this machine into build/, then build the site; goes on where it was interrupted."""
    from smml.course import notebook as files
    from smml.course.run import Options, run as execute

    chosen = files.select(notebooks or [])
    options = Options(profile, timeout, jobs or max(2, (os.cpu_count() or 2) // 2), fresh)
    try:
        state = execute(chosen, options)
    except KeyboardInterrupt:
        print(
            "interrupted: what passed is kept, the same command goes on from there", file=sys.stderr
        )
        raise typer.Exit(130) from None
    outcomes = [state.notebooks[n.name] for n in chosen]
    passed = sum(o.status == "passed" for o in outcomes)
    seconds = sum(o.seconds for o in outcomes)
    where = paths.build() / "notebooks"
    if site:
        from smml.course.site import build

        where = build(paths.checkout(), paths.build())
    print(
        f"{passed} passed, {len(chosen) - passed} failed in {seconds:.0f} s on {state.device}. Look at {where}"
    )
    raise typer.Exit(0 if passed == len(chosen) else 1)


def site() -> None:
    """Build build/site/index.html from the executed copies, without running anything."""
    from smml.course.site import build

    print(f"Open {build(paths.checkout(), paths.build())}")


def format_notebooks(
    check: Annotated[
        bool, typer.Option(help="Change nothing; exit 1 if a rule is broken.")
    ] = False,
) -> None:
    """Bring notebooks into their stored form (no outputs) and name every rule that they break."""
    from smml import atomic
    from smml.course import notebook as files
    from smml.course.rules import problems

    found = []
    for notebook in files.find():
        text = files.canonical(notebook.node)
        if not check and text != notebook.text:
            atomic.write_text(notebook.path, text)
            notebook = files.Notebook(notebook.path, notebook.name)
        found += problems(notebook)
    print("\n".join(found) if found else f"{len(files.find())} notebooks keep the rules")
    raise typer.Exit(1 if found else 0)


def lab(context: typer.Context) -> None:
    """Open JupyterLab on the notebooks; further options go to JupyterLab."""
    jupyter = shutil.which("jupyter", path=str(Path(sys.executable).parent)) or shutil.which(
        "jupyter"
    )
    if jupyter is None:
        raise UserError("jupyter is not installed here: run make lab, or pip install jupyterlab.")
    # Containers run as root, where JupyterLab refuses to start unless it is told that this is meant.
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    os.execv(jupyter, [jupyter, "lab", f"--notebook-dir={paths.checkout()}", *root, *context.args])
