"""What each rank sends and receives between its actions, in an order in which no ranks wait for each other. Pure.

All messages have one order, that in which they leave in a simulated step, and every rank begins its sends and receives
in that order. So of all ranks that wait, the one that waits for the earliest message waits for a rank that has begun
it, or can: somebody always goes on, even where a send ends only when it is received and messages of a pair of ranks
pass one at a time, as on NCCL.
"""

from typing import NamedTuple

from smml.parallel.pipeline.schedules import FORWARD, Action, Schedule
from smml.parallel.pipeline.simulate import even, simulate

SEND, RECEIVE, COMPUTE = "send", "receive", "compute"


class Step(NamedTuple):
    """One thing a rank does: compute an action, begin to send what it made, or begin to receive what another makes."""

    do: str
    action: Action


def messages(plan: Schedule) -> list[Action]:
    """Every action whose output goes to another rank, in the order in which all ranks send and receive them.

    Backward is taken as twice forward. What ends at the same time may have any order: neither waits for the other.
    """
    spans = simulate(plan, even(plan)).spans
    sent = [span for of_rank in spans for span in of_rank if plan.sent_to(span.action) is not None]
    first = sorted(sent, key=lambda span: (span.end_s, span.action.kind != FORWARD, span.action))
    return [span.action for span in first]


def program(plan: Schedule, rank: int) -> list[Step]:
    """All that a rank does, in order. The input of an action is asked for before the action in front of it computes,
    so that it travels meanwhile, unless a message that must go first is still to be made.
    """
    waiting = [
        message
        for message in messages(plan)
        if rank in (plan.rank_of(message.stage), plan.sent_to(message))
    ]
    actions = plan.actions[rank]
    steps: list[Step] = []
    for place, action in enumerate(actions):
        inputs = {plan.needs(near) for near in actions[place : place + 2]}
        while inputs & set(waiting) and plan.rank_of(waiting[0].stage) != rank:
            steps.append(Step(RECEIVE, waiting.pop(0)))
        steps.append(Step(COMPUTE, action))
        while action in waiting:
            message = waiting.pop(0)
            steps.append(Step(SEND if message == action else RECEIVE, message))
    return steps
