"""The only two calls on which the collectives of this folder stand: send and receive, counted.

`traffic` counts what this rank sent since the last reset: messages and bytes. On gloo and on NCCL alike.
"""

from dataclasses import dataclass

from torch import Tensor, distributed


@dataclass
class Traffic:
    """Messages and bytes that this rank has sent."""

    messages: int = 0
    bytes: int = 0


traffic = Traffic()


def reset() -> None:
    """Count from zero."""
    traffic.messages = traffic.bytes = 0


def rank_and_size() -> tuple[int, int]:
    """This rank and the number of ranks."""
    return distributed.get_rank(), distributed.get_world_size()


def send(x: Tensor, to: int) -> None:
    """Send a contiguous tensor; returns when it may be written over."""
    _count(x)
    distributed.send(x, to)


def receive(into: Tensor, source: int) -> None:
    """Fill a contiguous tensor with what `source` sends."""
    distributed.recv(into, source)


def exchange(x: Tensor, to: int, into: Tensor, source: int) -> None:
    """Send `x` and receive `into` at the same time: two ranks that both send first would wait for ever."""
    if to == source == distributed.get_rank():
        into.copy_(x)  # no message: it stays in this memory
        return
    _count(x)
    works = distributed.batch_isend_irecv(
        [
            distributed.P2POp(distributed.isend, x, to),
            distributed.P2POp(distributed.irecv, into, source),
        ]
    )
    for work in works:
        work.wait()


def _count(x: Tensor) -> None:
    if not x.is_contiguous():
        raise ValueError("only contiguous tensors are sent: copy it first.")
    traffic.messages += 1
    traffic.bytes += x.nbytes
