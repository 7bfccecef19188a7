"""Application Auto Scaling at work: alarms over several periods, cooldowns, bounds, the largest of several policies.

It follows AWS's documents where they say something, and they leave a rest: how soon an alarm acts again while it lasts
(here: every period), and how fast "in more gradually" is (here: down to what the metric asks for, once a cooldown).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from smml.cost.scaling.autoscaling import Scheduled, StepScaling, TargetTracking
from smml.cost.scaling.fleet import Observed
from smml.errors import UserError


@dataclass
class _State:
    """How long a policy's alarm has been up, and its last action with the capacity before it."""

    policy: TargetTracking | StepScaling
    above: int = 0
    below: int = 0
    out_at: float = -math.inf
    in_at: float = -math.inf
    base: int = 0


class ScalingController:
    """A `Scaler` of `smml.cost.scaling.fleet`: `min_capacity` to `max_capacity` servers by `policies` and a daily `schedule`.

    Starts with `desired_capacity`. Out wins over in; of several policies the largest capacity counts; all that track a
    target must want less before anything is taken away. Without policies the capacity stays within its bounds.
    """

    def __init__(
        self,
        policies: Sequence[TargetTracking | StepScaling],
        min_capacity: int,
        max_capacity: int,
        *,
        schedule: Sequence[Scheduled] = (),
        desired_capacity: int | None = None,
    ) -> None:
        if not 0 <= min_capacity <= max_capacity:
            raise UserError(
                f"min_capacity is {min_capacity} and max_capacity {max_capacity}; "
                "give 0 <= min_capacity <= max_capacity."
            )
        hours = [action.hour for action in schedule]
        if len(hours) != len(set(hours)):
            raise UserError("two scheduled actions have the same hour; keep one of them.")
        self.bounds = (min_capacity, max_capacity)
        self.schedule = sorted(schedule, key=lambda action: action.hour)
        self.states = [_State(policy) for policy in policies]
        self.current = min_capacity if desired_capacity is None else desired_capacity

    def desired(self, observed: Observed) -> int:
        """Servers wanted from now on; called once a period, in order."""
        now = observed.time_s
        wishes = [(state, self._wish(state, observed)) for state in self.states]
        out = [(state, wish) for state, wish in wishes if wish is not None and wish > self.current]
        if out:
            for state, _ in out:
                if now >= state.out_at + _out_cooldown_s(state.policy):
                    state.out_at, state.base = now, self.current
            self.current = max(wish for _, wish in out)
        else:
            self._scale_in(now, wishes)
        low, high = self._bounds(now)
        self.current = min(max(self.current, low), high)
        return self.current

    def _wish(self, state: _State, observed: Observed) -> int | None:
        """The capacity that the policy's alarm asks for now; None while it asks for nothing."""
        policy, now = state.policy, observed.time_s
        # Within the cooldown, what was added counts as part of what is asked for: only a larger step adds to it.
        cooling = now < state.out_at + _out_cooldown_s(policy)
        base = state.base if cooling else self.current
        if isinstance(policy, StepScaling):
            added = policy.added(observed.queue_depth, observed.running)
            state.above = state.above + 1 if added else 0
            return base + added if added and state.above >= policy.periods else None
        value = policy.value(observed)
        if value is None:
            state.above = state.below = 0
            return None
        breach = policy.breach(value)
        state.above = state.above + 1 if breach > 0 else 0
        state.below = state.below + 1 if breach < 0 else 0
        out, into = policy.periods
        if state.above >= out:
            return policy.wanted(base, value)
        return policy.wanted(self.current, value) if state.below >= into else None

    def _scale_in(self, now: float, wishes: list[tuple[_State, int | None]]) -> None:
        tracking = [item for item in wishes if isinstance(item[0].policy, TargetTracking)]
        willing = [wish for _, wish in tracking if wish is not None and wish < self.current]
        ready = all(now >= s.in_at + s.policy.scale_in_cooldown_s for s, _ in tracking)
        if willing and len(willing) == len(tracking) and ready:
            self.current = max(willing)
            for state, _ in tracking:
                state.in_at = now

    def _bounds(self, now: float) -> tuple[int, int]:
        if not self.schedule:
            return self.bounds
        hour = now / 3600 % 24
        past = [action for action in self.schedule if action.hour <= hour]
        # Before the first action of the day, yesterday's last one holds; on the first day, the bounds given.
        if past:
            return past[-1].min_capacity, past[-1].max_capacity
        if now < 86_400:
            return self.bounds
        return self.schedule[-1].min_capacity, self.schedule[-1].max_capacity


def _out_cooldown_s(policy: TargetTracking | StepScaling) -> float:
    return policy.cooldown_s if isinstance(policy, StepScaling) else policy.scale_out_cooldown_s
