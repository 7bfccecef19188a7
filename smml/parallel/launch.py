"""Workers that torchrun starts once and a notebook uses many times.

    with Workers(4) as workers:
        sums = workers.run("smml.parallel.examples:sum_of_ranks", times=3)   # one value a rank

A rank that fails ends the others at once: they would wait for it in a collective for ever. The next `run` starts
anew. A hang ends at its time limit and names the ranks that did not answer and where each of them stood.
"""

import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

from smml import paths
from smml.errors import UserError
from smml.parallel import worker
from smml.parallel.channel import ADDRESS, Channel, Listener, encoded

START_S = 120.0  # for all ranks to import torch and find each other
TASK_S = 120.0
GRACE_S = 1.0  # for the rank that failed first to be heard: its peers may notice before we do
# In the stack of a rank that waits for others, and what it waits in.
WAITING = re.compile(r"(?:distributed_c10d|point_to_point)\.py\", line \d+ in (\w+)")
LAST_LINES = 30  # of a rank's output in an error message


class WorkerError(UserError):
    """A rank failed, ended or hung; `rank` is the first, `details` its traceback or the ranks' stacks."""

    def __init__(self, message: str, rank: int | None = None, details: str = "") -> None:
        super().__init__(message + (f"\n{details}" if details else ""))
        self.rank = rank
        self.details = details


class Workers:
    """`ranks` processes in one group of torch.distributed on this machine; started by the first `run`.

    The backend is NCCL where every rank has a GPU of its own, else gloo on the CPU, whose cores the ranks share:
    `threads` for each, by default an equal part of them.
    Raises UserError where `ranks` is less than one.
    """

    def __init__(self, ranks: int, *, threads: int | None = None, start_s: float = START_S) -> None:
        if ranks < 1:
            raise UserError(f"{ranks} ranks: give at least 1.")
        self.ranks = ranks
        self.threads = threads
        self.start_s = start_s
        self.folder: Path | None = None
        self._agent: subprocess.Popen[bytes] | None = None
        self._channels: dict[int, Channel] = {}
        self._pids: dict[int, int] = {}
        self._inbox: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        self._read_from: dict[int, int] = {}
        self._all_answered = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def backend(self) -> str:
        """nccl or gloo."""
        import torch

        return "nccl" if 0 < self.ranks <= torch.cuda.device_count() else "gloo"

    @property
    def threads_of_a_rank(self) -> int:
        """Threads that torch takes on a rank's CPU."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) // self.ranks)

    def run(self, target: str, *, timeout_s: float = TASK_S, **arguments: Any) -> list[Any]:
        """Call `module:function` with `arguments` on every rank; returns what each returned, by rank.

        Raises WorkerError with the traceback of the rank that failed first, or the names of those that hang;
        UserError for a task that does not exist. Unless every rank answered, all are ended then and the next call
        starts new ones.
        """
        task = {"target": target, "arguments": arguments}
        encoded(task)  # one that cannot be sent must not reach half of the ranks
        self._all_answered = False
        try:
            if self._agent is None:
                self._start()
            self._read_from = {rank: len(self._whole_output(rank)) for rank in self._channels}
            for rank in list(self._channels):
                self._send(rank, task)
            answers = self._collect(target, timeout_s)
        except BaseException:  # also Ctrl-C
            if not self._all_answered:
                self.close()
            raise
        return [answers[rank] for rank in range(self.ranks)]

    def output(self, rank: int) -> str:
        """What a rank wrote during the last task, both streams."""
        return self._whole_output(rank)[self._read_from.get(rank, 0) :]

    def close(self) -> None:
        """End every rank at once. Their output stays in `folder`."""
        agent, self._agent = self._agent, None
        for pid in self._pids.values():
            _kill(pid)
        for channel in self._channels.values():
            channel.close()
        if agent is not None:
            agent.terminate()
            try:
                agent.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()
        self._channels, self._pids, self._inbox = {}, {}, queue.Queue()

    def _start(self) -> None:
        root = paths.build() / "workers"
        root.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=time.strftime("%H%M%S-"), dir=root))
        listener = Listener()
        environment = {
            "OMP_NUM_THREADS": str(self.threads_of_a_rank),
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            ADDRESS: listener.address,
            worker.OUTPUT: str(self.folder),
            worker.BACKEND: self.backend,
            worker.GROUP_TIMEOUT_S: str(max(TASK_S, self.start_s)),
        }
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={self.ranks}", "-m", worker.__name__]
        with (self.folder / "torchrun.log").open("wb") as log:
            self._agent = subprocess.Popen(
                command, env=os.environ | environment, stdout=log, stderr=log
            )
        try:
            self._welcome(listener)
        finally:
            listener.close()

    def _welcome(self, listener: Listener) -> None:
        """Wait until every rank has connected and is in the group."""
        deadline = time.monotonic() + self.start_s
        while len(self._channels) < self.ranks:
            left = deadline - time.monotonic()
            if left < 0 or self._agent.poll() is not None:
                missing = sorted(set(range(self.ranks)) - set(self._channels))
                raise WorkerError(
                    f"ranks {_names(missing)} of {self.ranks} did not start within {self.start_s:g} s: "
                    f"see {self.folder}.",
                    missing[0],
                    _tail((self.folder / "torchrun.log").read_text(errors="replace")),
                )
            if (met := listener.accept(min(left, 0.2))) is None:
                continue
            channel, hello = met
            rank = hello["rank"]
            self._channels[rank], self._pids[rank] = channel, hello["pid"]
            threading.Thread(target=_listen, args=(rank, channel, self._inbox), daemon=True).start()
        self._collect("joining the group", deadline - time.monotonic())

    def _send(self, rank: int, task: dict[str, Any]) -> None:
        try:
            self._channels[rank].send(task)
        except OSError:  # it has ended; `_collect` hears of it and says so
            return

    def _collect(self, what: str, timeout_s: float) -> dict[int, Any]:
        """Every rank's next answer. None is left of an earlier task: unless all answered, the ranks were ended."""
        answers: dict[int, Any] = {}
        deadline = time.monotonic() + timeout_s
        while len(answers) < self.ranks:
            try:
                rank, message = self._inbox.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise self._hung(what, timeout_s, answers) from None
            if message is None or "error" in message:
                raise self._failed(what, [(rank, message)], len(answers))
            answers[rank] = message.get("value")
        return answers

    def _failed(
        self, what: str, heard: list[tuple[int, dict[str, Any] | None]], fine: int
    ) -> UserError:
        """The error of the rank that failed first: one that ended without a word before those that missed it."""
        deadline = time.monotonic() + GRACE_S
        while len(heard) + fine < self.ranks and (left := deadline - time.monotonic()) > 0:
            try:
                rank, message = self._inbox.get(timeout=left)
            except queue.Empty:
                break
            if message is None or "error" in message:
                heard.append((rank, message))
            else:
                fine += 1
        ended = [rank for rank, message in heard if message is None]
        if ended:
            rank = ended[0]
            return WorkerError(
                f"rank {rank} of {self.ranks} ended during {what} without an answer (killed, or out of memory): "
                f"see {self.folder}.",
                rank,
                _tail(self._whole_output(rank)),
            )
        self._all_answered = len(heard) + fine == self.ranks
        rank, first = min(heard, key=lambda pair: pair[1]["at"])
        if first["mend"]:
            return UserError(f"rank {rank}: {first['error']}")
        return WorkerError(
            f"rank {rank} of {self.ranks} failed in {what}"
            + ("." if self._all_answered else "; the others were ended."),
            rank,
            first["error"].rstrip(),
        )

    def _hung(self, what: str, timeout_s: float, answers: dict[int, Any]) -> WorkerError:
        missing = sorted(set(range(self.ranks)) - set(answers))
        before = {rank: len(self._whole_output(rank)) for rank in missing}
        for rank in missing:
            os.kill(self._pids[rank], signal.SIGUSR1)  # each writes its stacks to its output
        time.sleep(GRACE_S / 2)
        stacks = {rank: _tail(self._whole_output(rank)[before[rank] :]) for rank in missing}
        waits_in: dict[str, list[int]] = {}
        elsewhere = []
        for rank, stack in stacks.items():
            if found := WAITING.search(stack):
                waits_in.setdefault(found[1], []).append(rank)
            else:
                elsewhere.append(rank)
        places = [f"ranks {_names(ranks)} wait in {call}" for call, ranks in waits_in.items()]
        if elsewhere:
            places.append(f"ranks {_names(elsewhere)} are in no collective")
        return WorkerError(
            f"ranks {_names(missing)} of {self.ranks} did not answer {what} within {timeout_s:g} s: {'; '.join(places)}. "
            "All were ended: give timeout_s, or look where they stood.",
            (elsewhere or missing)[0],
            "\n".join(f"rank {rank}:\n{stack}" for rank, stack in stacks.items()),
        )

    def _whole_output(self, rank: int) -> str:
        path = (self.folder or Path()) / f"rank-{rank}.log"
        return path.read_text(errors="replace") if self.folder and path.exists() else ""


def _listen(
    rank: int, channel: Channel, inbox: "queue.Queue[tuple[int, dict[str, Any] | None]]"
) -> None:
    message: dict[str, Any] | None = {}
    while message is not None:
        message = channel.receive()
        inbox.put((rank, message))


def _kill(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)  # torchrun gives each rank a session of its own
    except ProcessLookupError:  # it has ended by itself
        return


def _names(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))


def _tail(text: str) -> str:
    return "\n".join(text.rstrip().splitlines()[-LAST_LINES:])


def ranks_here(without_gpus: int = 4) -> int:
    """One rank a GPU where there are several; else `without_gpus` processes, which show everything but speed."""
    import torch

    gpus = torch.cuda.device_count()
    return gpus if gpus > 1 else without_gpus
