"""Calls captured as CUDA graphs, so that what is timed is the GPU and not the Python that launches it."""

from collections.abc import Callable


def captured(call: Callable[[], object], device: str) -> Callable[[], object]:
    """A replay of `call` on a GPU, after three runs of it; on a CPU `call` itself, which has no launches to save.

    What `call` reads and writes must stay where it is: a graph holds addresses.
    """
    if not device.startswith("cuda"):
        return call
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # compiles, tunes and allocates, which a capture may not
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
