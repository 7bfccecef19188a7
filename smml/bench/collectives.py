"""Collectives over workers that stay up: times by size, and the link that they fit."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from smml.bench.setting import Setting
from smml.measure import Record, Timing, record
from smml.parallel import links
from smml.parallel.launch import Workers, ranks_here
from smml.parallel.links import Link

KiB = 1024
SIZES = tuple(4**k * KiB for k in range(8))  # 1 KiB … 16 MiB
ALGORITHMS = ("all-reduce/ring", "all-reduce/doubling", "all-reduce/halving")
TASK = "smml.parallel.collective_tasks:seconds"
HAND, TORCH = "hand", "torch"


@dataclass(frozen=True)
class Point:
    """One collective at one payload in bytes, written by hand or torch.distributed's."""

    name: str
    payload: int
    by: str


def run(setting: Setting) -> Iterator[Record]:
    """Bus bandwidth of every all-reduce by hand and of torch's at half of the sizes, predicted by the links that the other
    half fits; on as many ranks as there are cores, and on four.
    """
    cores = len(os.sched_getaffinity(0))
    for ranks in sorted({ranks_here(min(4, max(2, cores))), ranks_here(4)}):
        with Workers(ranks) as workers:
            timings = sweep(workers, ALGORITHMS, SIZES)
            fitted = {p: t for p, t in timings.items() if p.payload in SIZES[::2]}
            judged = {p: t for p, t in timings.items() if p not in fitted}
            judged |= sweep(workers, ALGORITHMS[:1], SIZES[1::2], by=TORCH)
            yield from records(setting, workers, judged, fit(workers, fitted))


def sweep(
    workers: Workers, names: Iterable[str], sizes: Iterable[int] = SIZES, by: str = HAND
) -> dict[Point, Timing]:
    """Seconds of every collective at every size, all in turns; a sample is the slowest rank's."""
    names, sizes = list(names), list(sizes)
    found = workers.run(TASK, names=names, payloads=sizes, by=by)[0]
    return {
        Point(name, size, by): Timing(tuple(samples))
        for name, by_size in zip(names, found, strict=True)
        for size, samples in zip(sizes, by_size, strict=True)
    }


def fit(workers: Workers, timings: Mapping[Point, Timing]) -> dict[str, Link]:
    """For each collective the link that its times fit."""
    return {
        name: links.fit(
            (links.sent(name, workers.ranks, point.payload), timing.p50)
            for point, timing in timings.items()
            if point.name == name
        )
        for name in dict.fromkeys(point.name for point in timings)
    }


def records(
    setting: Setting, workers: Workers, timings: Mapping[Point, Timing], by_name: Mapping[str, Link]
) -> Iterator[Record]:
    """Bus bandwidth of every point, predicted by the link of its collective where it has one."""
    for point, timing in timings.items():
        link = by_name.get(point.name)
        sent = links.sent(point.name, workers.ranks, point.payload)
        waits = link and sent.messages * link.latency_s > sent.bytes * link.seconds_per_byte
        yield record(
            f"collective/{point.name}/{point.by}/ranks-{workers.ranks}/bytes-{point.payload}",
            timing,
            machine=setting.machine_id,
            source=setting.source,
            unit="B/s",
            amount=point.payload * links.bus_factor(point.name, workers.ranks),
            predicted_s=link.seconds(sent) if link else None,
            bytes=sent.bytes,
            inputs={"profile": setting.profile.name, "backend": workers.backend}
            | {"ranks": workers.ranks, "payload": point.payload, "by": point.by}
            | {"bound": "latency" if waits else "bandwidth", "messages": sent.messages},
            environment=setting.machine.environment(),
        )
