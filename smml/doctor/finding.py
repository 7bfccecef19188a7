"""One finding of `smml doctor`: what was looked at, how serious it is, what to do; and how findings are shown."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "block"]
MARKS = {"ok": "ok   ", "warn": "WARN ", "block": "BLOCK"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `fix` names what to do, and is empty where there is nothing to do."""

    level: Level
    subject: str
    found: str
    fix: str = ""


def exit_code(findings: list[Finding]) -> int:
    """1 where something blocks `make run`, else 0."""
    return int(any(finding.level == "block" for finding in findings))


def render(findings: list[Finding]) -> str:
    """The findings as plain lines, each with its fix, and one line that sums up."""
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.level]} {finding.subject}: {finding.found}")
        if finding.fix:
            lines.append(f"      {'fix' if finding.level != 'ok' else 'how'}: {finding.fix}")
    counts = {level: sum(finding.level == level for finding in findings) for level in MARKS}
    ready = "not ready for make run" if counts["block"] else "ready for make run"
    lines.append(
        f"doctor: {ready}: {counts['block']} blocking, {counts['warn']} warnings, {counts['ok']} fine."
    )
    return "\n".join(lines)
