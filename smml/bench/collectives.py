"""Collectives over workers that stay up: times by size, and the link that they fit."""

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
    """Bus bandwidth of every all-reduce by hand and of torch's, predicted by the links that every second size fits."""
    with Workers(ranks_here()) as workers:
        link = fit(workers, sweep(workers, ALGORITHMS, SIZES[::2]))
        timings = sweep(workers, ALGORITHMS, SIZES[1::2])
        timings |= sweep(workers, ALGORITHMS[:1], SIZES[1::2], by=TORCH)
        yield from records(setting, workers, timings, link)


def sweep(
    workers: Workers, names: Iterable[str], sizes: Iterable[int] = SIZES, by: str = HAND
) -> dict[Point, Timing]:
    """Seconds of every collective at every size; a sample is the slowest rank's."""
    found = {}
    for size in sizes:
        for name in names:
            by_rank = workers.run(TASK, name=name, payload=size, by=by)
            found[Point(name, size, by)] = Timing(tuple(by_rank[0]))
    return found


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
