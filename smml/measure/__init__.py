"""MEASURING: time a call, write the record, hold it against a baseline."""

from smml.measure.compare import Comparison, compare, regressions
from smml.measure.record import MachineId, Record, load_folder, record
from smml.measure.timer import MIN_SAMPLES, Timing, slowed, time_call, time_interleaved

__all__ = [
    "MIN_SAMPLES",
    "Comparison",
    "MachineId",
    "Record",
    "Timing",
    "compare",
    "load_folder",
    "record",
    "regressions",
    "slowed",
    "time_call",
    "time_interleaved",
]
