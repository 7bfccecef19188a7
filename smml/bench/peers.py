"""Peers that do the same work, timed in turn in one run: a record of each, of their ratios, and of a ratio's mean."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from smml import triton_mode
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.hardware import detect
from smml.hardware.reach import cache_bytes
from smml.measure import Record, Timing, record, slowed, time_interleaved
from smml.measure.record import git_commit
from smml.roofline import Work

OURS = "smml"
# Our Triton kernel among its peers. Interpreted, it has a speed, but none that says anything of the kernel.
KERNEL = "interpreted" if triton_mode.INTERPRETED else OURS


def side_by_side(
    setting: Setting,
    name: str,
    calls: Mapping[str, Callable[[], object]],
    *,
    amount: float,
    unit: str,
    work: Work,
    inputs: dict[str, Any],
    dtype: str | None = None,
    ours: str = OURS,
    flush: bool = False,
    budget_s: float = 6.0,
) -> Iterator[Record]:
    """`amount` per second of each call, in `unit`, then how many times as fast `ours` is as each other call.

    Every call does `work` in `dtype` (default: the profile's). A ratio's spread is that of the single rounds, in
    which the peers ran one after the other. `flush` empties the caches before every sample. Raises UserError
    where `ours` is not among the calls.
    """
    if ours not in calls:
        raise UserError(f"{name}: {ours!r} is not among the calls {', '.join(calls)}: add it.")
    dtype = dtype or setting.profile.dtype
    own = slowed(calls[ours], setting.slowdown) if setting.slowdown > 1 else calls[ours]
    timings = time_interleaved(
        {**calls, ours: own},
        device=setting.device,
        budget_s=budget_s,
        target_spread=0.0,
        flush_bytes=2 * cache_bytes(setting.machine) if flush else 0,
    )
    environment = detect(refresh=True).environment()  # clocks and load of this moment
    roof, physical = setting.roof(dtype), setting.physical_roof(dtype)
    predicted = roof.predict(work)
    inputs = {"dtype": dtype, "profile": setting.profile.name} | inputs
    if triton_mode.INTERPRETED and ours != OURS:
        inputs["interpreted"] = True  # sizes of the interpreter: these records are no baselines
    for peer, timing in timings.items():
        yield record(
            f"{name}/{peer}/{dtype}",
            timing,
            machine=setting.machine_id,
            source=setting.source,
            unit=unit,
            amount=amount,
            predicted_s=predicted.seconds,
            measured_ceiling=amount / roof.least_seconds(work),
            physical_ceiling=amount / physical.least_seconds(work) if physical else None,
            inputs=inputs | {"bound": predicted.bound, "peer": peer},
            flops=work.flops,
            bytes=work.bytes,
            environment=environment,
        )
    for peer in calls:
        if peer != ours:
            pairs = zip(timings[peer].samples_s, timings[ours].samples_s, strict=True)
            ratios = Timing(tuple(theirs / mine for theirs, mine in pairs))
            spread = (ratios.p20, ratios.p50, ratios.p80)
            ratio = f"{name}/{ours}-to-{peer}/{dtype}"
            yield ratio_record(setting, ratio, spread, ratios.n, inputs, environment)


def geometric_mean(setting: Setting, name: str, ratios: Iterable[Record]) -> Record:
    """The geometric mean of ratio records over shapes, as one ratio; UserError where there are none."""
    found = list(ratios)
    if not found:
        raise UserError(f"{name}: no ratios to take the mean of: run the bench of their shapes.")
    p20, p50, p80 = (
        math.exp(sum(math.log(getattr(r, part)) for r in found) / len(found))
        for part in ("p20", "value", "p80")
    )
    inputs: dict[str, Any] = {"over": [r.name for r in found]}
    if any(r.inputs.get("interpreted") for r in found):
        inputs["interpreted"] = True
    environment = detect(refresh=True).environment()
    return ratio_record(
        setting, name, (p20, p50, p80), sum(r.n for r in found), inputs, environment
    )


def ratio_record(
    setting: Setting,
    name: str,
    spread: tuple[float, float, float],
    n: int,
    inputs: dict[str, Any],
    environment: dict[str, object],
) -> Record:
    """A record of a ratio whose p20, p50 and p80 are `spread`."""
    return Record(
        name=name,
        unit="×",
        better="higher",
        value=spread[1],
        p20=spread[0],
        p80=spread[2],
        n=n,
        inputs=inputs,
        machine=setting.machine_id,
        environment=environment,
        commit=git_commit(),
        date=datetime.now(UTC).replace(microsecond=0),
        source=setting.source,
    )
