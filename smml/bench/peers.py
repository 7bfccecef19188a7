"""Peers that do the same work, timed in turn in one run: a record of each and one of their ratio."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from smml.bench.setting import Setting
from smml.measure import Record, Timing, record, slowed, time_interleaved
from smml.measure.record import git_commit
from smml.roofline import Work

OURS = "smml"


def side_by_side(
    setting: Setting,
    name: str,
    calls: Mapping[str, Callable[[], object]],
    *,
    tokens: int,
    work: Work,
    inputs: dict[str, Any],
    budget_s: float = 6.0,
) -> Iterator[Record]:
    """Tokens per second of each call, of which one is `OURS`, then how many times as fast it is as each other.

    A ratio's spread is that of the single rounds, in which the peers ran one after the other.
    """
    ours = slowed(calls[OURS], setting.slowdown) if setting.slowdown > 1 else calls[OURS]
    timings = time_interleaved(
        {**calls, OURS: ours}, device=setting.device, budget_s=budget_s, target_spread=0.0
    )
    predicted = setting.roof().predict(work)
    physical = setting.physical_roof()
    inputs = {"dtype": setting.profile.dtype, "profile": setting.profile.name} | inputs
    machine = setting.machine_id
    for peer, timing in timings.items():
        yield record(
            f"{name}/{peer}/{setting.profile.dtype}",
            timing,
            machine=machine,
            source=setting.source,
            unit="tokens/s",
            amount=tokens,
            predicted_s=predicted.seconds,
            measured_ceiling=tokens / predicted.seconds,
            physical_ceiling=tokens / physical.predict(work).seconds if physical else None,
            inputs=inputs | {"bound": predicted.bound, "peer": peer},
            flops=work.flops,
            bytes=work.bytes,
            environment=setting.machine.environment(),
        )
    for peer in calls.keys() - {OURS}:
        pairs = zip(timings[peer].samples_s, timings[OURS].samples_s, strict=True)
        ratios = Timing(tuple(theirs / own for theirs, own in pairs))
        yield Record(
            name=f"{name}/{OURS}-to-{peer}/{setting.profile.dtype}",
            unit="×",
            better="higher",
            value=ratios.p50,
            p20=ratios.p20,
            p80=ratios.p80,
            n=ratios.n,
            inputs=inputs,
            machine=machine,
            environment=setting.machine.environment(),
            commit=git_commit(),
            date=datetime.now(UTC).replace(microsecond=0),
            source=setting.source,
        )
