"""Requests, a queue and servers, played through: servers that stay on, or one for every request as functions run.

Times in s. Requests are served in the order of arrival. Servers that come and go are in `scaled_fleet`.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace

import numpy as np
from numpy.typing import NDArray

from smml.errors import UserError

Times = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What a simulation found, served requests in order of arrival: [N] times in s, and what was paid.

    `server_s` sums every server's time from launch to departure; `busy_s` what of it was service. `capacity` are
    (time, servers paid) pairs, one a change. `cold_starts` counts launches after the beginning.
    """

    arrival_s: Times
    wait_s: Times
    service_s: Times
    rejected: int
    server_s: float
    cold_starts: int
    capacity: tuple[tuple[float, int], ...]

    @property
    def response_s(self) -> Times:
        """Wait and service of each served request."""
        return self.wait_s + self.service_s

    @property
    def busy_s(self) -> float:
        """Seconds of service of all requests."""
        return float(self.service_s.sum())

    @property
    def utilization(self) -> float:
        """Share of the paid time that was service; 0 where nothing was paid."""
        return self.busy_s / self.server_s if self.server_s else 0.0

    def quantile_s(self, share: float) -> float:
        """Wait and service that `share` of the served requests did not exceed."""
        if not len(self.arrival_s):
            raise UserError("no request was served, so there is no quantile; give a longer trace.")
        return float(np.quantile(self.response_s, share))

    def usd(self, usd_per_hour: float) -> float:
        """What the servers cost at that price each."""
        if not usd_per_hour >= 0:
            raise UserError(f"usd_per_hour is {usd_per_hour!r}; give 0 or more.")
        return self.server_s / 3600 * usd_per_hour


def fixed(
    arrival_s: Times,
    service_s: Times,
    servers: int,
    *,
    queue_limit: int | None = None,
    until_s: float | None = None,
) -> Outcome:
    """`servers` that stay on until `until_s` (default: the last departure); at most `queue_limit` requests wait.

    arrival_s, service_s: [N], sorted arrivals. Raises UserError for what is no trace, or no server.
    """
    arrivals, services = trace(arrival_s, service_s)
    if not servers >= 1:
        raise UserError(f"servers is {servers!r}; give 1 or more.")
    if servers == 1 and queue_limit is None:
        waits, kept = _lindley(arrival_s, service_s), np.arange(len(arrivals))
    else:
        waits, kept = _earliest_free(arrivals, services, servers, queue_limit)
    arrived, served = np.asarray(arrival_s)[kept], np.asarray(service_s)[kept]
    last = float((arrived + waits + served).max(initial=0.0))
    end = last if until_s is None else max(until_s, last)
    return Outcome(
        arrived,
        waits,
        served,
        len(arrivals) - len(kept),
        servers * end,
        0,
        ((0.0, servers), (end, 0)),
    )


def per_request(
    arrival_s: Times,
    service_s: Times,
    cold_start_s: float,
    keep_warm_s: float,
    concurrency: int | None = None,
) -> Outcome:
    """A server for every request, as functions run: a warm one if there is, else a new one after a cold start.

    A server that waited `keep_warm_s` for work is gone. Only cold starts and service are paid. Requests beyond
    `concurrency` at once are rejected.
    """
    arrivals, services = trace(arrival_s, service_s)
    waits, kept, started = [], [], 0
    busy: list[float] = []
    idle: list[float] = []  # when each became idle; the last one longest ago least
    for number, (now, service) in enumerate(zip(arrivals, services, strict=True)):
        while busy and busy[0] <= now:
            idle.append(heappop(busy))
        if idle and now - idle[-1] > keep_warm_s:
            idle.clear()  # the one that was used last has gone, so have all others
        if concurrency is not None and len(busy) >= concurrency:
            continue
        wait = 0.0
        if idle:
            idle.pop()
        else:
            wait, started = cold_start_s, started + 1
        heappush(busy, now + wait + service)
        waits.append(wait)
        kept.append(number)
    waits = np.array(waits, dtype=float)
    arrived, served = np.asarray(arrival_s)[kept], np.asarray(service_s)[kept]
    paid = float(waits.sum() + served.sum())
    rejected = len(arrivals) - len(kept)
    return Outcome(arrived, waits, served, rejected, paid, started, ())


def _lindley(arrival_s: Times, service_s: Times) -> Times:
    """Waits at one server, all at once: W(n+1) = max(0, W(n) + S(n) − T(n)) is a running sum less its running minimum."""
    steps = np.concatenate(([0.0], service_s[:-1] - np.diff(arrival_s)))[: len(arrival_s)]
    total = np.cumsum(steps)
    return total - np.minimum(0.0, np.minimum.accumulate(total)) if len(total) else total


def _earliest_free(
    arrivals: Sequence[float], services: Sequence[float], servers: int, limit: int | None
) -> tuple[Times, NDArray[np.int64]]:
    """Waits where each request takes the server that is free first; and which requests were let in."""
    free = [0.0] * servers
    heapify(free)
    waits, kept = [], []
    starts: deque[float] = deque()  # of those that wait, in order
    for number, (now, service) in enumerate(zip(arrivals, services, strict=True)):
        begin = free[0] if free[0] > now else now
        if limit is not None and begin > now:
            while starts and starts[0] <= now:
                starts.popleft()
            if len(starts) >= limit:
                continue
            starts.append(begin)
        heapreplace(free, begin + service)
        waits.append(begin - now)
        kept.append(number)
    return np.array(waits, dtype=float), np.array(kept, dtype=np.int64)


def trace(arrival_s: Times, service_s: Times) -> tuple[list[float], list[float]]:
    """Both as lists, which Python reads faster one by one. Raises UserError for what is no trace."""
    arrival_s, service_s = np.asarray(arrival_s, float), np.asarray(service_s, float)
    if arrival_s.shape != service_s.shape or arrival_s.ndim != 1:
        raise UserError(
            f"arrival_s has shape {arrival_s.shape} and service_s {service_s.shape}; give one service time a request."
        )
    if len(arrival_s) and not (
        arrival_s[0] >= 0 and np.all(np.diff(arrival_s) >= 0) and np.all(service_s > 0)
    ):
        raise UserError(
            "arrival_s must be sorted and not negative, and every service_s above 0; sort the trace, or correct it."
        )
    return arrival_s.tolist(), service_s.tolist()
