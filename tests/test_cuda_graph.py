"""What benches do on a GPU alone, without one: replays of captured calls, with a stand-in for CUDA, and refusing peers."""

import gc
import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from smml.bench import attention
from smml.bench.cuda_graph import captured, captured_after


class Graph:
    """A graph whose replay is counted."""

    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1


@pytest.fixture
def cuda(monkeypatch):
    """torch.cuda's streams and graphs without a GPU."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda stream: nullcontext(),
        "graph": lambda graph, stream: nullcontext(),
        "CUDAGraph": Graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)


def test_what_a_graph_reads_lives_as_long_as_its_replay(cuda):
    def made(x: torch.Tensor):
        return captured_after(lambda: lambda: x + 1, "cuda")

    x = torch.zeros(2)
    read, replay = weakref.ref(x), made(x)
    del x
    gc.collect()
    assert read() is not None
    assert replay().tolist() == [1, 1]
    assert replay.graph.replays == 1
    del replay
    gc.collect()
    assert read() is None


def test_a_call_runs_three_times_before_it_is_captured_and_not_when_it_is_replayed(cuda):
    runs = []
    replay = captured(lambda: runs.append(1), "cuda")
    assert len(runs) == 3 + 1
    replay()
    assert len(runs) == 4


def test_on_a_cpu_a_call_is_itself():
    def call() -> None: ...

    assert captured(call, "cpu") is call


def refusing(message: str):
    def call(*_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(message)

    return call


@pytest.mark.parametrize(
    "message",
    ["No available kernel. Aborting.", "[cudnn_frontend] Error: No execution plans support the graph."],
)  # fmt: skip
def test_a_backend_that_refuses_is_no_peer(message):
    assert not attention._takes(refusing(message), ())


def test_any_other_failure_of_a_backend_is_one():
    with pytest.raises(RuntimeError, match="illegal memory access"):
        attention._takes(refusing("an illegal memory access was encountered"), ())
