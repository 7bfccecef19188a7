"""Records of figures that are computed or simulated: their samples come from seeds or cases, not from a clock."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from statistics import quantiles
from typing import Any

from smml.bench.setting import Setting
from smml.measure import Record
from smml.measure.record import git_commit


def record(
    setting: Setting,
    name: str,
    samples: Sequence[float],
    predicted: float | None,
    unit: str,
    inputs: Mapping[str, Any],
) -> Record:
    """A record of `samples`, such as one a seed, in `unit`, beside what was predicted; the lower the better."""
    fifths = quantiles(samples, n=10, method="inclusive")
    return Record(
        name=name,
        unit=unit,
        better="lower",
        value=fifths[4],
        p20=fifths[1],
        p80=fifths[7],
        n=len(samples),
        predicted=predicted,
        inputs=dict(inputs),
        machine=setting.machine_id,
        commit=git_commit(),
        date=datetime.now(UTC).replace(microsecond=0),
        source=setting.source,
    )
