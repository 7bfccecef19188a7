"""Audit of a business case: claims as data, recomputed from each other, from prices, from services' limits and physics."""

from smml.cost.audit.case import Case, Claim, load_case, packaged_case, read_case
from smml.cost.audit.judge import VERDICTS, Finding, Judgement, audit
from smml.cost.audit.report import SIGNS, as_json, counts, markdown, text

__all__ = [
    "SIGNS",
    "VERDICTS",
    "Case",
    "Claim",
    "Finding",
    "Judgement",
    "as_json",
    "audit",
    "counts",
    "load_case",
    "markdown",
    "packaged_case",
    "read_case",
    "text",
]
