"""One rank: `python -m smml.parallel.worker` under torchrun joins the group, then takes tasks until nobody asks.

A task is named module:function and called with keyword arguments; what it returns goes back as data. torch is
imported once, so that a task costs what it does and not what it takes to begin.
"""

import faulthandler
import importlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from smml.errors import UserError
from smml.parallel.channel import ADDRESS, Channel

OUTPUT = "SMML_WORKERS_OUTPUT"  # folder that gets a file of output for each rank
BACKEND = "SMML_WORKERS_BACKEND"  # nccl or gloo
GROUP_TIMEOUT_S = "SMML_WORKERS_TIMEOUT_S"


def main() -> None:
    """Join the process group of torchrun's environment and serve tasks."""
    rank = int(os.environ["RANK"])
    _write_output_to(os.path.join(os.environ[OUTPUT], f"rank-{rank}.log"))
    # What every rank is doing when one hangs: the launcher asks with this signal.
    faulthandler.register(signal.SIGUSR1, all_threads=False)
    channel = Channel.connect(os.environ[ADDRESS], {"rank": rank, "pid": os.getpid()})
    tasks: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read, args=(channel, tasks), daemon=True).start()
    join(float(os.environ[GROUP_TIMEOUT_S]))
    channel.send({"rank": rank, "ready": True})
    while True:
        task = tasks.get()
        try:
            channel.send({"rank": rank} | _answer(task))
        except UserError as error:  # what came back is no data
            channel.send({"rank": rank} | _failed(str(error), mend=True))


def join(timeout_s: float) -> None:
    """Initialise torch.distributed on NCCL where every rank has a GPU of its own, else on gloo."""
    import torch
    from torch import distributed

    backend = os.environ[BACKEND]
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group(backend, timeout=timedelta(seconds=timeout_s))


def _read(channel: Channel, tasks: "queue.Queue[dict[str, Any]]") -> None:
    """Pass tasks on. A launcher that is gone ends this process, also out of a collective that nobody will join."""
    while (message := channel.receive()) is not None:
        tasks.put(message)
    os._exit(0)


def _answer(task: dict[str, Any]) -> dict[str, Any]:
    sys.stdout.flush()
    try:
        value = resolve(task["target"])(**task["arguments"])
    except UserError as error:
        return _failed(str(error), mend=True)
    except Exception:  # noqa: BLE001 (whatever a task raises is the notebook's to see)
        return _failed(traceback.format_exc(), mend=False)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return {"value": value}


def _failed(error: str, *, mend: bool) -> dict[str, Any]:
    return {"error": error, "mend": mend, "at": time.time()}


def resolve(target: str) -> Callable[..., Any]:
    """The function that `module:function` names. Raises UserError where there is none."""
    module, _, name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise UserError(
            f"task {target!r}: {error}; name it as module:function of an importable module."
        ) from error
    if not callable(found):
        raise UserError(
            f"task {target!r}: module {module} has no function {name!r}; name it as module:function."
        )
    return found


def _write_output_to(path: str) -> None:
    """Standard output and error of this process and of what its libraries print, from now on."""
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(target, stream.fileno())
    os.close(target)


if __name__ == "__main__":
    main()
