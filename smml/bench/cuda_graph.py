"""Calls captured as CUDA graphs, so that what is timed is the GPU and not the Python that launches it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds to import
    import torch


@dataclass(frozen=True)
class Replay:
    """A graph to be called: returns what the captured call returned, which every replay writes anew.

    A graph holds addresses alone: `call` is kept so that all that it reads stays where it is.
    """

    graph: "torch.cuda.CUDAGraph"
    call: Callable[[], object]
    result: object

    def __call__(self) -> object:
        """Replay the graph; does not wait for the GPU."""
        self.graph.replay()
        return self.result


def captured(call: Callable[[], object], device: str) -> Callable[[], object]:
    """A replay of `call` on a GPU, after three runs of it; on a CPU `call` itself, which has no launches to save."""
    return captured_after(lambda: call, device)


def captured_after(
    prepare: Callable[[], Callable[[], object]], device: str
) -> Callable[[], object]:
    """As `captured`, of the call that `prepare` returns, and both on one stream.

    For a backward pass, which autograd runs on the stream of the forward pass that `prepare` does: a capture sees
    one stream.
    """
    if not device.startswith("cuda"):
        return prepare()
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call = prepare()
        for _ in range(3):  # compiles, tunes and allocates, which a capture may not
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        result = call()
    return Replay(graph, call, result)
