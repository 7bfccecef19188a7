"""What a step takes when its messages take time: every rank's program, played through with what was measured. Pure."""

from collections import deque

from smml.parallel.pipeline.messages import COMPUTE, RECEIVE, SEND, program
from smml.parallel.pipeline.schedules import Action, Schedule
from smml.parallel.pipeline.simulate import Seconds, Span, Timeline


def rehearse(
    plan: Schedule, seconds: Seconds, message_s: float = 0.0, begin_s: float = 0.0
) -> Timeline:
    """The step in which actions take their `seconds`; a message is there `message_s` after both ends have begun it, and
    to begin keeps a rank from computing for `begin_s` (latency and overhead of LogP: D. Culler et al., PPoPP 1993).
    """
    left = [deque(program(plan, rank)) for rank in range(plan.ranks)]
    spans: list[list[Span]] = [[] for _ in range(plan.ranks)]
    free_s = [0.0] * plan.ranks
    begun_s: dict[tuple[str, Action], float] = {}
    while any(left):  # a program ends, whatever its actions take: see messages.py
        for rank, steps in enumerate(left):
            while steps:
                do, action = steps[0]
                if do != COMPUTE:
                    free_s[rank] += begin_s
                    begun_s[do, action] = free_s[rank]
                else:
                    source = plan.needs(action)
                    start = free_s[rank]
                    if source is not None and plan.sent_to(source) is not None:
                        if (SEND, source) not in begun_s:
                            break  # it is yet to be made
                        both = begun_s[SEND, source], begun_s[RECEIVE, source]
                        start = max(start, max(both) + message_s)
                    free_s[rank] = start + seconds(action)
                    spans[rank].append(Span(action, start, free_s[rank]))
                steps.popleft()
    return Timeline(tuple(map(tuple, spans)), max(free_s))
