"""Pipeline schedules: in which order each rank does forward and backward of which micro-batch through which stage. Pure.

Stage s of all stages lies on rank s mod p, so that a rank with v stages meets every micro-batch v times. All of a rank's
forwards have one order and all of its backwards another; the three schedules differ in how many forwards come first, from
when on forwards and backwards take turns:

- gpipe: all forwards (Y. Huang et al., arXiv:1811.06965);
- 1f1b: as many as lie between the rank and the last one (D. Narayanan et al., arXiv:1806.03377);
- interleaved: v stages a rank, so twice that, and p for each of its stages but the last (arXiv:2104.04473).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from smml.errors import UserError

FORWARD, BACKWARD = "F", "B"
NAMES = ("gpipe", "1f1b", "interleaved")


class Action(NamedTuple):
    """Forward or backward of a micro-batch through a stage; also the name of what it makes for a neighbouring stage."""

    kind: str
    stage: int
    micro: int

    def __str__(self) -> str:
        return f"{self.kind}{self.micro} of stage {self.stage}"


@dataclass(frozen=True)
class Schedule:
    """What every rank does, in its order; `interleave` is v, the stages of a rank."""

    name: str
    ranks: int
    micro: int
    interleave: int
    actions: tuple[tuple[Action, ...], ...]

    @property
    def stages(self) -> int:
        """Of all ranks."""
        return self.ranks * self.interleave

    def rank_of(self, stage: int) -> int:
        """Who holds a stage."""
        return stage % self.ranks

    def stages_of(self, rank: int) -> range:
        """The stages that a rank holds."""
        return range(rank, self.stages, self.ranks)

    def needs(self, action: Action) -> Action | None:
        """What makes its input: the activation of the stage before, the gradient of the stage behind; None for a batch
        or a loss.
        """
        step = -1 if action.kind == FORWARD else 1
        stage = action.stage + step
        return action._replace(stage=stage) if 0 <= stage < self.stages else None

    def feeds(self, action: Action) -> Action | None:
        """What takes its output; None for a loss, and for a gradient of the batch."""
        step = 1 if action.kind == FORWARD else -1
        stage = action.stage + step
        return action._replace(stage=stage) if 0 <= stage < self.stages else None

    def sent_to(self, action: Action) -> int | None:
        """The rank that its output is sent to; None where it stays."""
        taker = self.feeds(action)
        if taker is None or self.rank_of(taker.stage) == self.rank_of(action.stage):
            return None
        return self.rank_of(taker.stage)


def warm_up(name: str, rank: int, ranks: int, micro: int, interleave: int) -> int:
    """Forwards of a rank before forwards and backwards take turns."""
    behind = ranks - 1 - rank
    first = {
        "gpipe": interleave * micro,
        "1f1b": behind,
        "interleaved": 2 * behind + (interleave - 1) * ranks,
    }
    return min(first[name], interleave * micro)


def schedule(name: str, ranks: int, micro: int, interleave: int = 1) -> Schedule:
    """The schedule of that name for `micro` micro-batches over `ranks` ranks.

    Raises UserError for an unknown name, numbers below 1, more than one stage a rank where it is not interleaved, one
    where it is, and interleaved micro-batches that are no multiple of the ranks.
    """
    if name not in NAMES:
        raise UserError(f"{name!r} is no schedule: name one of {', '.join(NAMES)}.")
    if min(ranks, micro, interleave) < 1:
        raise UserError(
            f"{ranks} ranks, {micro} micro-batches and {interleave} stages a rank: each must be at least 1."
        )
    if (interleave > 1) != (name == "interleaved"):
        raise UserError(
            f"{name} with interleave = {interleave} stages a rank: gpipe and 1f1b take 1, interleaved takes 2 or more."
        )
    if name == "interleaved" and micro % ranks:
        raise UserError(
            f"interleaved: {micro} micro-batches are no multiple of {ranks} ranks: choose {ranks * max(1, micro // ranks)}"
            f" or {ranks * (micro // ranks + 1)}."
        )
    actions = []
    for rank in range(ranks):
        forwards = _in_order(FORWARD, rank, ranks, micro, range(interleave))
        backwards = _in_order(BACKWARD, rank, ranks, micro, range(interleave)[::-1])
        first = warm_up(name, rank, ranks, micro, interleave)
        actions.append(_alternating(forwards, backwards, first))
    return Schedule(name, ranks, micro, interleave, tuple(actions))


def bubble(ranks: int, micro: int, interleave: int = 1) -> float:
    """Share of a step in which a rank idles, of any of the schedules, where every stage takes the same time and messages
    none: (p − 1) / (v·m + p − 1) (arXiv:2104.04473, section 2.2, which gives it over the time that it does not idle).
    """
    return (ranks - 1) / (interleave * micro + ranks - 1)


def in_flight(plan: Schedule) -> list[int]:
    """By rank, the most activations that it holds for backward: micro-batches, each counted for every stage it waits in."""
    most = []
    for actions in plan.actions:
        held = highest = 0
        for action in actions:
            held += 1 if action.kind == FORWARD else -1
            highest = max(highest, held)
        most.append(highest)
    return most


def _in_order(kind: str, rank: int, ranks: int, micro: int, chunks: Sequence[int]) -> list[Action]:
    """Rounds of as many micro-batches as ranks, each through all chunks: the first is back when its next stage begins."""
    return [
        Action(kind, chunk * ranks + rank, number)
        for first in range(0, micro, ranks)
        for chunk in chunks
        for number in range(first, min(first + ranks, micro))
    ]


def _alternating(
    forwards: Sequence[Action], backwards: Sequence[Action], first: int
) -> tuple[Action, ...]:
    turns = chain.from_iterable(zip(forwards[first:], backwards, strict=False))
    return (*forwards[:first], *turns, *backwards[len(forwards) - first :])
