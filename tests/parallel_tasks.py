"""Tasks for the workers of the tests: what goes right, and every way to go wrong."""

import os
import signal
import time
from datetime import UTC, datetime

from smml.measure import MachineId, Record


def process_id() -> int:
    return os.getpid()


def fail(rank: int) -> None:
    from torch import distributed

    if distributed.get_rank() == rank:
        raise ValueError("no such layer")
    distributed.barrier()


def end(rank: int) -> None:
    from torch import distributed

    if distributed.get_rank() == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.barrier()


def hang(rank: int) -> None:
    from torch import distributed

    if distributed.get_rank() == rank:
        time.sleep(600)
    distributed.barrier()


def disagree() -> None:
    import torch
    from torch import distributed

    if distributed.get_rank() == 0:
        distributed.recv(torch.zeros(4), 1)
    else:
        distributed.all_reduce(torch.zeros(4))


def a_tensor() -> object:
    import torch

    return torch.zeros(2)


def a_record() -> Record:
    from torch import distributed

    return Record(
        name=f"rank/{distributed.get_rank()}",
        unit="B",
        better="lower",
        value=1.0,
        p20=1.0,
        p80=1.0,
        n=5,
        machine=MachineId(fingerprint="test", device="test"),
        date=datetime(2026, 1, 2, tzinfo=UTC),
        source="test",
    )
