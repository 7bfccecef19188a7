"""A queue before servers that a scaler starts and stops: cold starts, draining, scale to zero, played through by event.

A server is paid from its launch on, and serves only after its cold start; one that is told to leave finishes its request.
"""

import math
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

import numpy as np

from smml.cost.scaling.queue_simulator import Outcome, Times, trace
from smml.errors import UserError

_READY, _FREE = 0, 1
# Periods without a server for requests that wait, after which nothing will come any more.
_PATIENCE = 1000


@dataclass(frozen=True)
class Observed:
    """What a monitor reports of the last period: the state at its end, and means over it.

    `running` servers are ready, `utilization` is their busy share, None where none ran.
    """

    time_s: float
    running: int
    queue_depth: int
    arrived: int
    utilization: float | None


class Scaler(Protocol):
    """What decides how many servers there shall be."""

    def desired(self, observed: Observed) -> int:
        """Servers wanted from now on."""


def scaled(
    arrival_s: Times,
    service_s: Times,
    scaler: Scaler,
    *,
    servers: int = 1,
    cold_start_s: float = 0.0,
    period_s: float = 60.0,
    queue_limit: int | None = None,
    minimum_bill_s: float = 0.0,
    until_s: float | None = None,
) -> Outcome:
    """`servers` at first, then as many as `scaler` wants after each `period_s`, new ones ready after `cold_start_s`.

    arrival_s, service_s: [N], sorted arrivals. At most `queue_limit` requests wait, others are rejected. Each server is
    billed for `minimum_bill_s` at least. Ends at `until_s` or with the last departure, whichever is later. Raises
    UserError for what is no trace, and where the scaler leaves requests waiting for ever.
    """
    if not period_s > 0:
        raise UserError(f"period_s is {period_s!r}; give a number above 0.")
    for name, value in (("cold_start_s", cold_start_s), ("servers", servers)):
        if not value >= 0:
            raise UserError(f"{name} is {value!r}; give 0 or more.")
    trace(arrival_s, service_s)
    fleet = _Fleet(arrival_s, service_s, servers, cold_start_s, queue_limit)
    end = fleet.run(scaler, period_s, until_s)
    return fleet.outcome(end, minimum_bill_s)


class _Fleet:
    """Servers by number; what happens next stands in one heap of (time, what, server)."""

    def __init__(
        self,
        arrival_s: Times,
        service_s: Times,
        servers: int,
        cold_start_s: float,
        queue_limit: int | None,
    ) -> None:
        self.arrival_s, self.service_s = np.asarray(arrival_s, float), np.asarray(service_s, float)
        self.services = self.service_s.tolist()
        self.cold_start_s = cold_start_s
        self.limit = math.inf if queue_limit is None else queue_limit
        self.events: list[tuple[float, int, int]] = []
        self.queue: deque[int] = deque()
        self.idle = list(range(servers))
        self.starting: list[int] = []
        self.busy: list[int] = []
        self.leaving: set[int] = set()
        self.launched = [0.0] * servers
        self.gone: dict[int, float] = {}
        self.start_s: list[float] = [math.nan] * len(self.services)
        self.capacity = [(0.0, servers)]
        self.cold_starts = 0

    def run(self, scaler: Scaler, period_s: float, until_s: float | None) -> float:
        """Play all events; the end in s."""
        arrivals = self.arrival_s.tolist()
        number, count, tick = 0, len(arrivals), period_s
        now = busy_area = running_area = 0.0
        arrived = starved = 0
        while number < count or self.queue or self.busy or self.leaving or now < (until_s or 0.0):
            event = self.events[0][0] if self.events else math.inf
            arrival = arrivals[number] if number < count else math.inf
            time = min(event, arrival, tick)
            passed, now = time - now, time
            busy_area += len(self.busy) * passed
            running_area += (len(self.busy) + len(self.idle)) * passed
            if event <= time:
                _, what, server = heappop(self.events)
                if what == _READY:
                    self._ready(now, server)
                else:
                    self._free(now, server)
            elif arrival <= time:
                if self.idle:
                    self._serve(now, number, self.idle.pop())
                elif len(self.queue) < self.limit:
                    self.queue.append(number)
                number, arrived = number + 1, arrived + 1
            else:
                share = busy_area / running_area if running_area else None
                running = len(self.busy) + len(self.idle)
                seen = Observed(now, running, len(self.queue), arrived, share)
                self._resize(now, scaler.desired(seen))
                busy_area = running_area = 0.0
                arrived, tick = 0, tick + period_s
                helpless = self.queue and not (self.busy or self.starting or self.idle)
                starved = starved + 1 if helpless else 0
                if starved > _PATIENCE:
                    raise UserError(
                        f"{len(self.queue)} requests wait and the scaler has wanted no server for {_PATIENCE} periods: "
                        "add a step scaling policy on the waiting requests, or a minimum capacity of 1."
                    )
        return now

    def outcome(self, end: float, minimum_bill_s: float) -> Outcome:
        """What was found, once `run` is through at `end`."""
        starts = np.array(self.start_s, dtype=float)
        served = ~np.isnan(starts)
        lives = (self.gone.get(n, end) - at for n, at in enumerate(self.launched))
        return Outcome(
            self.arrival_s[served],
            starts[served] - self.arrival_s[served],
            self.service_s[served],
            int((~served).sum()),
            sum(max(life, minimum_bill_s) for life in lives),
            self.cold_starts,
            (*self.capacity, (end, 0)),
        )

    def _serve(self, now: float, request: int, server: int) -> None:
        self.start_s[request] = now
        self.busy.append(server)
        heappush(self.events, (now + self.services[request], _FREE, server))

    def _free(self, now: float, server: int) -> None:
        if server in self.leaving:
            self.leaving.remove(server)
            self._depart(now, server)
            return
        self.busy.remove(server)
        self._next(now, server)

    def _ready(self, now: float, server: int) -> None:
        if server not in self.gone:
            self.starting.remove(server)
            self._next(now, server)

    def _next(self, now: float, server: int) -> None:
        if self.queue:
            self._serve(now, self.queue.popleft(), server)
        else:
            self.idle.append(server)

    def _resize(self, now: float, wanted: int) -> None:
        present = len(self.starting) + len(self.idle) + len(self.busy)
        for _ in range(wanted - present):
            server = len(self.launched)
            self.launched.append(now)
            self.starting.append(server)
            self.cold_starts += 1
            heappush(self.events, (now + self.cold_start_s, _READY, server))
            self.capacity.append((now, self.capacity[-1][1] + 1))
        # First those that serve nobody yet, then the idle, then the busy, which finish what they do.
        for _ in range(present - wanted):
            if self.starting or self.idle:
                self._depart(now, (self.starting or self.idle).pop())
            else:
                self.leaving.add(self.busy.pop())

    def _depart(self, now: float, server: int) -> None:
        self.gone[server] = now
        self.capacity.append((now, self.capacity[-1][1] - 1))
