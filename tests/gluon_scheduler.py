"""Threads of which one at a time has the baton, and the barriers they wait at.

A seeded generator chooses who goes on, so that every order of events can be had, and had again.
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass


class Fault(Exception):
    """What would hang, race or trap on the GPU."""


class Scheduler:
    """Hands the baton to one runnable thread at a time, or lets a copy land; raises where nothing can move."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.changed = threading.Condition()
        self.conditions: dict[int, Callable[[], bool]] = {}  # by partition: what it waits for
        self.running: int | None = None
        self.landing: list[Callable[[], None]] = []
        self.fault: BaseException | None = None
        self.mine = threading.local()

    def run(self, jobs: list[Callable[[], None]]) -> None:
        """Run all jobs to their end, interleaved."""
        threads = [threading.Thread(target=self._job, args=item) for item in enumerate(jobs)]
        self.conditions = dict.fromkeys(range(len(jobs)), lambda: True)
        for thread in threads:
            thread.start()
        with self.changed:
            self._choose()
        for thread in threads:
            thread.join()
        if self.fault:
            raise self.fault
        for land in self.landing:
            land()

    def pause(self, until: Callable[[], bool] = lambda: True) -> None:
        """Give the baton away; come back once `until` holds and it is this partition's turn."""
        me = self.mine.number
        with self.changed:
            self.conditions[me] = until
            self._choose()
            self.changed.wait_for(lambda: self.running == me or self.fault)
            if self.fault:
                raise SystemExit

    def _job(self, number: int, job: Callable[[], None]) -> None:
        self.mine.number = number
        with self.changed:
            self.changed.wait_for(lambda: self.running == number or self.fault)
        try:
            if not self.fault:
                job()
        except BaseException as error:  # noqa: BLE001 (carried to the thread that called run)
            if not isinstance(error, SystemExit):
                self.fault = self.fault or error
        with self.changed:
            self.conditions.pop(number, None)
            self._choose()

    def _choose(self) -> None:
        """The next to run; called with `changed` held."""
        while self.conditions and not self.fault:
            ready = [n for n, condition in self.conditions.items() if condition()]
            turn = self.random.randrange(len(ready) + len(self.landing) or 1)
            if not ready and not self.landing:
                self.fault = Fault(f"deadlock: partitions {sorted(self.conditions)} wait for ever")
            elif turn < len(ready):
                self.running = ready[turn]
                break
            else:
                try:
                    self.landing.pop(turn - len(ready))()
                except Fault as fault:
                    self.fault = fault
        self.changed.notify_all()


@dataclass
class Barrier:
    """An mbarrier: a phase completes when all arrivals and all bytes of it have come."""

    count: int = 0
    pending: int = 0
    bytes: int = 0
    phases: int = 0

    def settle(self) -> None:
        if self.pending < 0:
            raise Fault("more arrivals than the barrier expects in a phase")
        if not self.pending and not self.bytes:
            self.phases += 1
            self.pending = self.count

    def completed(self, parity: int) -> bool:
        """Whether the phase of that parity is the last completed one, as `mbarrier.try_wait.parity` finds it."""
        return self.phases % 2 != parity
