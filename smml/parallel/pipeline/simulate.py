"""What a schedule takes: every action's start and end from the seconds of each stage, and with them the bubble. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smml.errors import UserError
from smml.parallel.pipeline.schedules import BACKWARD, FORWARD, Action, Schedule


@dataclass(frozen=True)
class Span:
    """An action between two moments, in seconds since the step began."""

    action: Action
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Timeline:
    """A step, simulated or measured: what each rank did when, and how long it took in all."""

    spans: tuple[tuple[Span, ...], ...]
    step_s: float

    @property
    def busy_s(self) -> list[float]:
        """By rank, seconds inside forward and backward."""
        return [sum(span.end_s - span.start_s for span in spans) for spans in self.spans]

    @property
    def bubble(self) -> float:
        """Share of all ranks' time in which they were not inside forward or backward: 1 − Σ busy / (p · step)."""
        return 1 - sum(self.busy_s) / (len(self.spans) * self.step_s)


Seconds = Callable[[Action], float]


def by_stage(forward_s: Sequence[float], backward_s: Sequence[float]) -> Seconds:
    """Seconds of an action where stage s takes `forward_s[s]` and `backward_s[s]` for every micro-batch."""
    seconds = {FORWARD: forward_s, BACKWARD: backward_s}
    return lambda action: seconds[action.kind][action.stage]


def even(plan: Schedule) -> Seconds:
    """A rank's forward of a micro-batch takes 1, cut equally into its stages, and backward twice that."""
    return by_stage([1 / plan.interleave] * plan.stages, [2 / plan.interleave] * plan.stages)


def simulate(plan: Schedule, seconds: Seconds) -> Timeline:
    """The step in which every action takes its `seconds` and messages nothing.

    Raises UserError for actions that cannot all be done: one twice or missing, on a rank without its stage, or all
    ranks waiting for each other.
    """
    _check_complete(plan)
    ends: dict[Action, float] = {}
    spans: list[list[Span]] = [[] for _ in range(plan.ranks)]
    while len(ends) < 2 * plan.stages * plan.micro:
        before = len(ends)
        for rank, mine in enumerate(spans):
            for action in plan.actions[rank][len(mine) :]:
                inputs = {plan.needs(action), action._replace(kind=FORWARD)} - {None, action}
                if inputs - ends.keys():
                    break  # one is yet to be made
                free = mine[-1].end_s if mine else 0.0
                start = max([free, *(ends[made] for made in inputs)])
                ends[action] = start + seconds(action)
                mine.append(Span(action, start, ends[action]))
        if len(ends) == before:
            raise UserError(_stuck(plan, spans))
    return Timeline(tuple(map(tuple, spans)), max(ends.values()))


def _check_complete(plan: Schedule) -> None:
    for rank, actions in enumerate(plan.actions):
        wanted = {
            Action(kind, stage, micro)
            for kind in (FORWARD, BACKWARD)
            for stage in plan.stages_of(rank)
            for micro in range(plan.micro)
        }
        wrong = (wanted ^ set(actions)) or {a for a in actions if actions.count(a) > 1}
        if wrong:
            raise UserError(
                f"{plan.name}: rank {rank} must do {min(wrong)} once, and nothing of other ranks: correct its actions."
            )


def _stuck(plan: Schedule, spans: Sequence[Sequence[Span]]) -> str:
    waiting = [
        f"rank {rank} before {actions[len(mine)]}"
        for rank, (mine, actions) in enumerate(zip(spans, plan.actions, strict=True))
        if len(mine) < len(actions)
    ]
    return f"{plan.name}: deadlock, {', '.join(waiting)} for ever: put what they wait for first."
