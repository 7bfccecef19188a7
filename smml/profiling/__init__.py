"""PROFILING: a step under torch.profiler → a trace file → where its time went, and what is wrong with it."""

import os

from smml.profiling.account import by_operator, by_phase, gaps, host_syncs, idle, lanes, launches
from smml.profiling.diagnose import PYTHON, Diagnosis, diagnose
from smml.profiling.record import event_cost, side_by_side, trace
from smml.profiling.spans import BETWEEN, Span, Trace, read

# Else the profiler's library writes a line to stderr whenever it starts or stops; it reads this when it first does.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

__all__ = [
    "BETWEEN",
    "PYTHON",
    "Diagnosis",
    "Span",
    "Trace",
    "by_operator",
    "by_phase",
    "diagnose",
    "event_cost",
    "gaps",
    "host_syncs",
    "idle",
    "lanes",
    "launches",
    "read",
    "side_by_side",
    "trace",
]
