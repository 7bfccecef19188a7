"""What a message costs: α seconds to begin, β seconds a byte. Messages and bytes of every collective, and their bandwidths.

A rank's messages that follow one upon the other, and the bytes in them, give its time: messages · α + bytes · β
(R. W. Hockney, *The communication challenge for MPP*, 1994). algbw and busbw are those of nccl-tests: payload over
time, and the same times the share of it that must cross the busiest link.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from smml.errors import UserError


@dataclass(frozen=True)
class Sent:
    """One after the other on the slowest rank: messages, and the bytes in them."""

    messages: int
    bytes: float


@dataclass(frozen=True)
class Link:
    """α in seconds a message, β in seconds a byte."""

    latency_s: float
    seconds_per_byte: float

    @property
    def bandwidth_bytes_per_s(self) -> float:
        """1 / β; infinite where a byte costs nothing that could be measured."""
        return 1 / self.seconds_per_byte if self.seconds_per_byte else math.inf

    def seconds(self, sent: Sent) -> float:
        """messages · α + bytes · β."""
        return sent.messages * self.latency_s + sent.bytes * self.seconds_per_byte


def sent(collective: str, ranks: int, payload: float) -> Sent:
    """Messages and bytes of one of COLLECTIVES over `ranks` ranks, as this package writes it.

    `payload` is bytes as nccl-tests counts them: the vector of a broadcast, a reduce or an all-reduce; all ranks'
    parts together of the others. Raises UserError for another name or fewer than one rank.
    """
    if collective not in COLLECTIVES or ranks < 1:
        raise UserError(
            f"{collective!r} over {ranks} ranks: name one of {', '.join(COLLECTIVES)} and at least 1 rank."
        )
    tree, part = math.ceil(math.log2(ranks)), payload / ranks
    power = 1 << (ranks.bit_length() - 1)
    folds = 2 * (power < ranks)  # to a partner and back, where p is no power of two
    log = int(math.log2(power))
    return {
        "broadcast": Sent(tree, tree * payload),
        "reduce": Sent(tree, tree * payload),
        "all-gather": Sent(ranks - 1, (ranks - 1) * part),
        "reduce-scatter": Sent(ranks - 1, (ranks - 1) * part),
        "all-to-all": Sent(ranks - 1, (ranks - 1) * part),
        "gather": Sent(ranks - 1, (ranks - 1) * part),
        "scatter": Sent(ranks - 1, (ranks - 1) * part),
        "all-reduce/ring": Sent(2 * (ranks - 1), 2 * (ranks - 1) * part),
        "all-reduce/doubling": Sent(log + folds, (log + folds) * payload),
        "all-reduce/halving": Sent(
            2 * log + folds, 2 * payload * (power - 1) / power + folds * payload
        ),
    }[collective]


COLLECTIVES = (
    "broadcast",
    "reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "gather",
    "scatter",
    "all-reduce/ring",
    "all-reduce/doubling",
    "all-reduce/halving",
)


def bus_factor(collective: str, ranks: int) -> float:
    """busbw ÷ algbw (nccl-tests, doc/PERFORMANCE.md). Raises UserError for an unknown collective."""
    name = collective.split("/")[0]
    if name in ("broadcast", "reduce"):
        return 1.0
    share = (ranks - 1) / ranks
    if name == "all-reduce":
        return 2 * share
    if name in ("all-gather", "reduce-scatter", "all-to-all", "gather", "scatter"):
        return share
    raise UserError(f"{collective!r}: name one of {', '.join(COLLECTIVES)}.")


def bandwidths(collective: str, ranks: int, payload: float, seconds: float) -> tuple[float, float]:
    """algbw and busbw in bytes a second."""
    algorithm = payload / seconds
    return algorithm, algorithm * bus_factor(collective, ranks)


def fit(measured: Iterable[tuple[Sent, float]]) -> Link:
    """The α and β, neither below 0, whose times are least off in proportion; `measured` holds (sent, seconds).

    Raises UserError where fewer than two different sizes are given: they cannot tell the two apart.
    """
    import numpy as np

    points = list(measured)
    if len({(s.messages, s.bytes) for s, _ in points}) < 2:
        raise UserError(
            f"{len(points)} points of one size cannot tell latency from bandwidth: add sizes."
        )
    rows = np.array([[s.messages / t, s.bytes / t] for s, t in points])
    both, *_ = np.linalg.lstsq(rows, np.ones(len(points)), rcond=None)
    if (both >= 0).all():
        return Link(*map(float, both))
    alone = [float(column.sum() / (column @ column)) for column in rows.T]  # one term, the other 0
    candidates = [Link(alone[0], 0.0), Link(0.0, alone[1])]
    return min(candidates, key=lambda link: sum((link.seconds(s) / t - 1) ** 2 for s, t in points))


def switch_bytes(link: Link, ranks: int, small: str, large: str) -> float:
    """The payload from which on `large` takes less time than `small`; infinite where it never does, 0 where always."""
    a, b = sent(small, ranks, 1.0), sent(large, ranks, 1.0)
    dearer = (b.messages - a.messages) * link.latency_s
    cheaper = (a.bytes - b.bytes) * link.seconds_per_byte
    if dearer <= 0 and cheaper >= 0:
        return 0.0
    return dearer / cheaper if cheaper > 0 else math.inf
