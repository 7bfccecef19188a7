"""Scaling policies as Application Auto Scaling takes them: what each wants for a metric, and its API request.

Policies are pure: `ScalingController` keeps the alarms' history and the cooldowns. Requests are keyword arguments for
boto3's application-autoscaling and cloudwatch clients; nothing is sent.
"""

import math
from dataclasses import dataclass
from typing import Any

from smml.cost.scaling.fleet import Observed
from smml.cost.scaling.target import (
    METRICS,
    Metric,
    ScalableTarget,
    metric_specification,
    waiting_metric,
)
from smml.data.service_rules import rule
from smml.errors import UserError


@dataclass(frozen=True)
class TargetTracking:
    """Keep `metric` near `target_value`: a busy share (0 to 1), requests a minute, or waiting requests of each instance.

    Out when the metric was above the target for 3 periods, in when it was below 90 % of it for 15 (smml.data.service_rules);
    the capacity wanted is what brings the metric back to the target, rounded up.
    """

    metric: Metric
    target_value: float
    scale_out_cooldown_s: float = rule("scaling_cooldown").value
    scale_in_cooldown_s: float = rule("scaling_cooldown").value
    disable_scale_in: bool = False

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UserError(f"metric is {self.metric!r}; allowed are {', '.join(METRICS)}.")
        if not self.target_value > 0:
            raise UserError(f"target_value is {self.target_value!r}; give a number above 0.")
        if self.metric == "utilization" and self.target_value > 1:
            raise UserError(
                f"target_value is {self.target_value!r}; a busy share is at most 1: give 0.7 for 70 %."
            )
        _cooldowns(self.scale_out_cooldown_s, self.scale_in_cooldown_s)

    @property
    def periods(self) -> tuple[int, int]:
        """Consecutive periods before out and before in."""
        out, into = rule("tracking_out_datapoints"), rule("tracking_in_datapoints")
        return int(out.value), int(into.value)

    def value(self, observed: Observed) -> float | None:
        """The metric of a period; None, insufficient data, where no instance ran."""
        if self.metric == "utilization":
            return observed.utilization
        if not observed.running:
            return None
        waiting = self.metric == "backlog per instance"
        count = observed.queue_depth if waiting else observed.arrived
        return count / observed.running

    def breach(self, value: float) -> int:
        """1 where the metric calls for more, −1 for less, 0 for neither."""
        if value > self.target_value:
            return 1
        low = rule("tracking_in_share").value * self.target_value
        return -1 if value < low and not self.disable_scale_in else 0

    def wanted(self, capacity: int, value: float) -> int:
        """Instances that would bring the metric of `capacity` instances back to its target."""
        # The tolerance keeps 7 × (0.7 ÷ 0.7) from becoming 8.
        return math.ceil(capacity * value / self.target_value - 1e-9)

    def request(self, target: ScalableTarget, name: str) -> dict[str, Any]:
        """Parameters of PutScalingPolicy. Raises UserError where AWS has no such metric of the target."""
        percent = self.metric == "utilization"
        configuration = {
            "TargetValue": 100 * self.target_value if percent else float(self.target_value),
            "ScaleOutCooldown": round(self.scale_out_cooldown_s),
            "ScaleInCooldown": round(self.scale_in_cooldown_s),
            "DisableScaleIn": self.disable_scale_in,
        } | metric_specification(self.metric, target)
        return target.identity | {
            "PolicyName": name,
            "PolicyType": "TargetTrackingScaling",
            "TargetTrackingScalingPolicyConfiguration": configuration,
        }


@dataclass(frozen=True)
class StepScaling:
    """When more than `threshold` requests wait for `periods` periods, add by how many more: ((0, 1), (100, 5)).

    `steps` are (excess over the threshold from which on, instances added), ascending from 0. With `from_zero` requests
    count only while no instance runs: the policy that brings the first one back, and nothing else.
    """

    threshold: float
    steps: tuple[tuple[float, int], ...]
    periods: int = 1
    cooldown_s: float = rule("step_scaling_cooldown").value
    from_zero: bool = False

    def __post_init__(self) -> None:
        lower = [bound for bound, _ in self.steps]
        if not lower or lower[0] != 0 or lower != sorted(set(lower)):
            raise UserError(
                f"steps is {self.steps!r}; give (lower bound, instances) pairs, ascending from 0."
            )
        if not all(added >= 1 for _, added in self.steps):
            raise UserError(f"steps is {self.steps!r}; every step adds 1 instance or more.")
        if not self.threshold >= 0 or not self.periods >= 1:
            raise UserError(
                f"threshold is {self.threshold!r} and periods {self.periods!r}; give >= 0 and >= 1."
            )
        _cooldowns(self.cooldown_s)

    def added(self, queue_depth: float, running: int = 0) -> int:
        """Instances to add for so many waiting requests before so many instances; 0 up to the threshold."""
        if self.from_zero and running:
            return 0
        excess = queue_depth - self.threshold
        fitting = [added for bound, added in self.steps if excess > 0 and excess >= bound]
        return fitting[-1] if fitting else 0

    def request(self, target: ScalableTarget, name: str) -> dict[str, Any]:
        """Parameters of PutScalingPolicy; the policy acts when the alarm of `alarm_request` names its ARN."""
        bounds = [bound for bound, _ in self.steps[1:]] + [None]
        adjustments = []
        for (lower, added), upper in zip(self.steps, bounds, strict=True):
            step = {"MetricIntervalLowerBound": float(lower), "ScalingAdjustment": added}
            adjustments.append(
                step if upper is None else step | {"MetricIntervalUpperBound": float(upper)}
            )
        return target.identity | {
            "PolicyName": name,
            "PolicyType": "StepScaling",
            "StepScalingPolicyConfiguration": {
                "AdjustmentType": "ChangeInCapacity",
                "StepAdjustments": adjustments,
                "Cooldown": round(self.cooldown_s),
                "MetricAggregationType": "Average",
            },
        }

    def alarm_request(self, target: ScalableTarget, name: str, policy_arn: str) -> dict[str, Any]:
        """Parameters of CloudWatch's PutMetricAlarm on the requests that wait."""
        period = int(rule("tracking_alarm_period").value)
        return waiting_metric(target, self.from_zero, period) | {
            "AlarmName": name,
            "EvaluationPeriods": self.periods,
            "Threshold": float(self.threshold),
            "ComparisonOperator": "GreaterThanThreshold",
            "TreatMissingData": "notBreaching",
            "AlarmActions": [policy_arn],
        }


@dataclass(frozen=True)
class Scheduled:
    """From `hour` (UTC) on, every day, the capacity lies between these bounds."""

    hour: int
    min_capacity: int
    max_capacity: int

    def __post_init__(self) -> None:
        if self.hour not in range(24):
            raise UserError(f"hour is {self.hour!r}; give 0 to 23.")
        if not 0 <= self.min_capacity <= self.max_capacity:
            raise UserError(f"{self} needs 0 <= min_capacity <= max_capacity.")

    def request(self, target: ScalableTarget, name: str) -> dict[str, Any]:
        """Parameters of PutScheduledAction."""
        return target.identity | {
            "ScheduledActionName": name,
            "Schedule": f"cron(0 {self.hour} * * ? *)",
            "ScalableTargetAction": {
                "MinCapacity": self.min_capacity,
                "MaxCapacity": self.max_capacity,
            },
        }


def backlog_target(latency_s: float, service_s: float) -> float:
    """Waiting requests that one instance may have so that the last is served in time: latency ÷ service time, less itself.

    Source: Amazon EC2 Auto Scaling User Guide, Scaling policy based on Amazon SQS (acceptable latency ÷ processing time).
    """
    if not 0 < service_s < latency_s:
        raise UserError(
            f"service_s is {service_s!r} and latency_s {latency_s!r}; give 0 < service_s < latency_s."
        )
    return (latency_s - service_s) / service_s


def _cooldowns(*seconds: float) -> None:
    if not all(value >= 0 for value in seconds):
        raise UserError(f"a cooldown is {min(seconds)!r} s; give 0 or more.")
