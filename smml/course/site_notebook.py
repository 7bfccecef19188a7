"""One notebook as a page of the site: banner under its title, error first, solutions folded. Pure."""

import re
from html import escape
from typing import Any

from smml.course import wording
from smml.course.state import Outcome, RunState

_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_TITLE = re.compile(r"^#\s+(.+?)\s*#*$", re.MULTILINE)
# What only a live kernel can show: the plain-text form beside it is taken instead.
_LIVE_MIME_TYPES = ("application/vnd.jupyter.widget-view+json", "application/javascript")
# Cells that papermill adds to a notebook that failed; the banner says the same.
_RUNNER_TAG = "papermill-error-cell-tag"


def title(notebook: dict[str, Any], fallback: str) -> str:
    """The first level-1 heading, as Markdown; `fallback` where there is none."""
    for item in notebook["cells"]:
        match = item["cell_type"] == "markdown" and _TITLE.search(_text(item))
        if match:
            return match.group(1)
    return fallback


def page(
    notebook: dict[str, Any], name: str, outcome: Outcome, run: RunState | None
) -> dict[str, Any]:
    """The notebook for the site, as a new notebook; `name` is its file's stem.

    Outputs are kept as they are unless the notebook did not run, in which case there are none to keep.
    """
    executed = outcome.status != "pending"
    cells = [_cell(item, executed) for item in notebook["cells"] if _RUNNER_TAG not in _tags(item)]
    _describe_figures(cells)
    failing = next((i for i, item in enumerate(cells) if _error_of(item)), None)
    error = outcome.error or (_error_of(cells[failing]) if failing is not None else None)
    head = banner(outcome, run)
    if outcome.status in ("failed", "timeout"):
        head += "\n" + _error_box(outcome, error, linked=failing is not None)
    if failing is not None:
        cells.insert(failing, _markdown('<span id="failing-cell"></span>'))
    _insert_under_title(cells, head, name)
    language = {"name": "python", "pygments_lexer": "ipython3"}
    return {
        "cells": cells,
        "metadata": {"language_info": language},
        "nbformat": 4,
        "nbformat_minor": 4,
    }


def banner(outcome: Outcome, run: RunState | None) -> str:
    """One line of HTML: status, device, profile, date, seconds."""
    parts = [wording.status(outcome.status)]
    if run is not None and outcome.status != "pending":
        parts += [escape(run.device), f"profile {escape(run.profile)}", wording.day(run.started)]
        parts += [wording.duration(outcome.seconds)] if outcome.seconds is not None else []
    if outcome.status == "pending":
        parts.append("on this machine; shown without outputs")
    items = "".join(part if part.startswith("<span") else f"<span>{part}</span>" for part in parts)
    return f'<p class="run-line">{items}</p>\n'


def _error_box(outcome: Outcome, error: str | None, linked: bool) -> str:
    words = {"failed": "This notebook failed", "timeout": "This notebook ran out of time"}[
        outcome.status
    ]
    body = (
        f"<pre>{escape(' '.join(error.split()))}</pre>" if error else "<p>No message was left.</p>"
    )
    link = '<p><a href="#failing-cell">Go to the cell that failed</a></p>' if linked else ""
    return (
        f'<div class="admonition error"><p class="admonition-title">{words}</p>{body}{link}</div>\n'
    )


def _insert_under_title(cells: list[dict[str, Any]], head: str, name: str) -> None:
    for item in cells:
        match = item["cell_type"] == "markdown" and _TITLE.search(item["source"])
        if match:
            text = item["source"]
            item["source"] = f"{text[: match.end()]}\n\n{head}\n{text[match.end() :].lstrip()}"
            return
    cells.insert(0, _markdown(f"# {name}\n\n{head}"))


def _cell(item: dict[str, Any], executed: bool) -> dict[str, Any]:
    tags, text = _tags(item), _text(item)
    if item["cell_type"] != "code":
        if "solution" in tags:
            text = text.replace("<details>", '<details class="solution">')
        kept = {"attachments": item["attachments"]} if item.get("attachments") else {}
        return {"cell_type": item["cell_type"], "metadata": {"tags": tags}, "source": text, **kept}
    outputs = [_output(output) for output in item.get("outputs", [])] if executed else []
    return {
        "cell_type": "code",
        "metadata": {"tags": tags},
        "source": text,
        "execution_count": item.get("execution_count") if executed else None,
        "outputs": outputs,
    }


def _output(output: dict[str, Any]) -> dict[str, Any]:
    if "data" not in output:
        return output
    data = {kind: value for kind, value in output["data"].items() if kind not in _LIVE_MIME_TYPES}
    return {**output, "data": data, "metadata": {}}


def _describe_figures(cells: list[dict[str, Any]]) -> None:
    """Give every figure a text alternative: the heading that it stands under."""
    heading = "Figure"
    for item in cells:
        if item["cell_type"] == "markdown":
            found = _HEADING.findall(item["source"])
            heading = found[-1] if found else heading
        elif any(
            kind.startswith("image/") for o in item.get("outputs", []) for kind in o.get("data", {})
        ):
            item["metadata"]["mystnb"] = {"image": {"alt": f"Plot: {heading}"}}


def _error_of(item: dict[str, Any]) -> str | None:
    for output in item.get("outputs", []):
        if output["output_type"] == "error":
            return f"{output['ename']}: {output['evalue']}"
    return None


def _markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def _tags(item: dict[str, Any]) -> list[str]:
    return list(item.get("metadata", {}).get("tags", []))


def _text(item: dict[str, Any]) -> str:
    source = item["source"]
    return source if isinstance(source, str) else "".join(source)
