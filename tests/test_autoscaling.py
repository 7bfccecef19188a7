"""Policies decide as AWS's documents say, and their requests are ones that AWS's own models accept."""

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import given, settings, strategies as st

from smml.cost.scaling.autoscaling import Scheduled, StepScaling, TargetTracking, backlog_target
from smml.cost.scaling.controller import ScalingController
from smml.cost.scaling.fleet import Observed
from smml.cost.scaling.target import METRICS, ScalableTarget
from smml.data.service_rules import (
    fargate_size,
    read_service_rules,
    rule,
    service_fact,
    service_rules,
)
from smml.errors import UserError

few = settings(max_examples=50, deadline=None)
ECS = ScalableTarget("ecs", "cookbook/answers", 0, 20, "questions", "app/lb/1/targetgroup/tg/2")
VARIANT = ScalableTarget("sagemaker", "answers/main", 1, 8)
STEP = StepScaling(0, ((0, 1), (100, 5)))
FIRST = StepScaling(0, ((0, 1),), from_zero=True)


def problems(service, operation, parameters):
    model = botocore.session.get_session().get_service_model(service)
    shape = model.operation_model(operation).input_shape
    report = ParamValidator().validate(parameters, shape)
    found = [report.generate_report()] if report.has_errors() else []
    return found + list(not_allowed(parameters, shape))


def not_allowed(value, shape):
    """Values outside a model's enumerations, which botocore's validator lets pass."""
    if shape.type_name == "structure":
        for name, item in value.items():
            yield from not_allowed(item, shape.members[name])
    elif shape.type_name == "list":
        for item in value:
            yield from not_allowed(item, shape.member)
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{value!r} is not among {shape.enum}"


def seen(time_s, running=4, queue_depth=0, arrived=0, utilization=None):
    return Observed(time_s, running, queue_depth, arrived, utilization)


def played(controller, shares, running=4):
    """The capacity wanted after each period with that utilization, one a minute."""
    return [
        controller.desired(seen(60.0 * n, running, utilization=share))
        for n, share in enumerate(shares, 1)
    ]


# ------------------------------------------------------------------------------------------------------ requests


@pytest.mark.parametrize("target", [ECS, VARIANT])
@pytest.mark.parametrize("metric", METRICS)
def test_requests_of_target_tracking_are_valid(target, metric):
    if metric == "utilization" and target is VARIANT:
        with pytest.raises(UserError, match="SageMaker offers no predefined utilization"):
            TargetTracking(metric, 0.5).request(target, "policy")
        return
    request = TargetTracking(metric, 0.5, 60, 300).request(target, "policy")
    assert problems("application-autoscaling", "PutScalingPolicy", request) == []
    assert problems("application-autoscaling", "RegisterScalableTarget", target.request()) == []


def test_requests_say_what_was_asked_for():
    request = TargetTracking("utilization", 0.7).request(ECS, "busy")
    assert request["ResourceId"] == "service/cookbook/answers"
    configuration = request["TargetTrackingScalingPolicyConfiguration"]
    assert configuration["TargetValue"] == pytest.approx(70.0)  # AWS counts in percent
    assert configuration["ScaleInCooldown"] == rule("scaling_cooldown").value
    assert VARIANT.request()["ResourceId"] == "endpoint/answers/variant/main"
    assert VARIANT.request()["MaxCapacity"] == 8


def test_steps_alarms_and_schedules_are_valid():
    step = STEP.request(ECS, "from zero")
    assert problems("application-autoscaling", "PutScalingPolicy", step) == []
    first, second = step["StepScalingPolicyConfiguration"]["StepAdjustments"]
    assert first["MetricIntervalUpperBound"] == second["MetricIntervalLowerBound"] == 100
    assert "MetricIntervalUpperBound" not in second
    for target in (ECS, VARIANT):
        for policy in (STEP, FIRST):
            alarm = policy.alarm_request(target, "waiting", "arn:aws:autoscaling:policy")
            assert problems("cloudwatch", "PutMetricAlarm", alarm) == []
    assert "running < 1" in str(FIRST.alarm_request(ECS, "waiting", "arn"))
    night = Scheduled(22, 0, 2).request(ECS, "night")
    assert problems("application-autoscaling", "PutScheduledAction", night) == []
    assert night["Schedule"] == "cron(0 22 * * ? *)"


def test_the_validator_would_find_a_fault():
    request = TargetTracking("utilization", 0.7).request(ECS, "busy")
    del request["ResourceId"]
    assert problems("application-autoscaling", "PutScalingPolicy", request)
    wrong = ECS.request() | {"ServiceNamespace": "fargate"}
    assert problems("application-autoscaling", "RegisterScalableTarget", wrong)


# ----------------------------------------------------------------------------------------------------- decisions


def test_out_after_three_periods_and_to_the_target():
    controller = ScalingController([TargetTracking("utilization", 0.5)], 1, 20, desired_capacity=4)
    assert played(controller, [0.9, 0.9, 0.9]) == [4, 4, 8]  # 4 × 0.9 ÷ 0.5 = 7.2


def test_one_quiet_period_starts_the_count_again():
    controller = ScalingController([TargetTracking("utilization", 0.5)], 1, 20, desired_capacity=4)
    assert played(controller, [0.9, 0.9, 0.5, 0.9, 0.9]) == [4] * 5


def test_in_after_fifteen_periods_below_nine_tenths_and_once_a_cooldown():
    policy = TargetTracking("utilization", 0.5, scale_in_cooldown_s=300)
    controller = ScalingController([policy], 1, 20, desired_capacity=4)
    wanted = played(controller, [0.46] * 20)
    assert wanted == [4] * 20  # 0.46 lies between 0.45 and 0.5
    wanted = played(ScalingController([policy], 1, 20, desired_capacity=4), [0.24] * 21)
    assert wanted[:14] == [4] * 14
    assert wanted[14:19] == [2] * 5  # 4 × 0.24 ÷ 0.5 = 1.92, then the cooldown
    assert wanted[19] == 1


def test_what_was_added_counts_within_the_cooldown():
    policy = TargetTracking("utilization", 0.5, scale_out_cooldown_s=300)
    controller = ScalingController([policy], 1, 40, desired_capacity=4)
    # The new ones still start: the metric stays, and nothing is added twice before the cooldown ends.
    wanted = played(controller, [1.0] * 8)
    assert wanted == [4, 4, 8, 8, 8, 8, 8, 16]
    hasty = TargetTracking("utilization", 0.5, scale_out_cooldown_s=0)
    controller = ScalingController([hasty], 1, 40, desired_capacity=4)
    assert played(controller, [1.0] * 5) == [4, 4, 8, 16, 32]


def test_without_data_nothing_is_decided_and_a_step_brings_the_first_one():
    tracking = TargetTracking("backlog per instance", 2)
    nothing = seen(60.0, running=0, queue_depth=50)
    assert ScalingController([tracking], 0, 20).desired(nothing) == 0
    assert ScalingController([tracking, STEP], 0, 20).desired(nothing) == 1
    assert ScalingController([tracking, FIRST], 0, 20).desired(nothing) == 1
    some = seen(60.0, running=1, queue_depth=50)
    assert ScalingController([FIRST], 0, 20, desired_capacity=1).desired(some) == 1
    assert ScalingController([STEP], 0, 20, desired_capacity=1).desired(some) == 2
    many = seen(60.0, running=0, queue_depth=150)
    assert ScalingController([tracking, STEP], 0, 20).desired(many) == 5


def test_of_several_policies_the_largest_capacity_counts():
    busy, asked = TargetTracking("utilization", 0.5), TargetTracking("requests per instance", 10)
    controller = ScalingController([busy, asked], 1, 40, desired_capacity=4)
    for n in range(1, 4):
        wanted = controller.desired(seen(60.0 * n, arrived=120, utilization=0.6))
    assert wanted == 12  # 120 requests at 10 each, not 4 × 0.6 ÷ 0.5
    controller = ScalingController([busy, asked], 1, 40, desired_capacity=4)
    for n in range(1, 30):
        wanted = controller.desired(seen(60.0 * n, arrived=36, utilization=0.1))
    assert wanted == 4  # one would take away, the other would not


def test_schedules_move_the_bounds():
    controller = ScalingController(
        [], 1, 9, schedule=[Scheduled(8, 4, 9), Scheduled(20, 0, 2)], desired_capacity=1
    )
    hours = {hour: controller.desired(seen(hour * 3600.0)) for hour in (1, 8, 12, 20, 25, 33)}
    assert hours == {1: 1, 8: 4, 12: 4, 20: 2, 25: 2, 33: 4}


@few
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=60),
    st.floats(0.1, 1),
    st.integers(0, 3),
    st.integers(3, 9),
)
def test_capacity_stays_within_its_bounds(shares, target, low, high):
    controller = ScalingController([TargetTracking("utilization", target)], low, high)
    assert all(low <= wanted <= high for wanted in played(controller, shares))


@few
@given(st.integers(0, 200), st.floats(0.01, 1), st.floats(0.05, 1))
def test_more_load_never_asks_for_less(capacity, share, target):
    policy = TargetTracking("utilization", target)
    assert policy.wanted(capacity, share) <= policy.wanted(capacity, min(1.0, 1.2 * share))
    assert policy.wanted(capacity, share) <= policy.wanted(capacity + 1, share)
    wanted = policy.wanted(capacity, share)
    assert capacity * share <= wanted * target * (1 + 1e-6)


@few
@given(st.floats(0, 500), st.floats(0, 500))
def test_steps_ascend(one, other):
    less, more = sorted((one, other))
    assert STEP.added(less) <= STEP.added(more)


def test_the_backlog_that_a_latency_allows():
    # AWS's example: 10 s are acceptable, 0.1 s each: 100 messages, one of which is in service.
    assert backlog_target(10.0, 0.1) == pytest.approx(99.0)
    with pytest.raises(UserError, match="service_s"):
        backlog_target(1.0, 2.0)


# ----------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ScalableTarget("lambda", "a/b", 0, 1), "ecs, sagemaker"),
        (lambda: ScalableTarget("ecs", "answers", 0, 1), "cluster/service"),
        (lambda: ScalableTarget("ecs", "a/b", 3, 1), "min_capacity"),
        (lambda: TargetTracking("cpu", 0.5), "allowed are utilization"),
        (lambda: TargetTracking("utilization", 70), "0.7 for 70 %"),
        (lambda: TargetTracking("backlog per instance", 0), "target_value"),
        (lambda: TargetTracking("utilization", 0.5, -1), "cooldown"),
        (lambda: StepScaling(0, ()), "ascending from 0"),
        (lambda: StepScaling(0, ((5, 1),)), "ascending from 0"),
        (lambda: StepScaling(0, ((0, 0),)), "1 instance or more"),
        (lambda: StepScaling(-1, ((0, 1),)), "threshold"),
        (lambda: Scheduled(24, 0, 1), "hour"),
        (lambda: ScalingController([], 3, 1), "min_capacity"),
        (lambda: ScalingController([], 0, 1, schedule=[Scheduled(1, 0, 1)] * 2), "same hour"),
        (
            lambda: TargetTracking("requests per instance", 9).request(
                ScalableTarget("ecs", "a/b", 0, 1), "x"
            ),
            "load_balancer",
        ),
        (lambda: STEP.alarm_request(ScalableTarget("ecs", "a/b", 0, 1), "x", "arn"), "queue"),
    ],
)
def test_bad_input_is_refused_by_name(make, says):
    with pytest.raises(UserError, match=says):
        make()


# --------------------------------------------------------------------------------------------- rules of services


def test_every_rule_has_a_source():
    held = service_rules()
    for fact in (*held.rules.values(), *held.facts.values()):
        assert fact.url.startswith("https://")
        assert fact.checked, f"{fact.source} was not read"
    assert held.fargate_source.checked


def test_fargate_takes_only_its_sizes():
    assert (fargate_size(0.25, 0.5).vcpu, fargate_size(0.25, 0.5).memory_gib) == (0.25, 0.5)
    assert fargate_size(0.3, 9).vcpu == 2  # 1 vCPU ends at 8 GiB
    assert fargate_size(16, 120).memory_gib == 120
    assert fargate_size(16, 121) is None
    assert fargate_size(17, 1) is None


def test_unknown_and_broken_rules_are_named():
    with pytest.raises(UserError, match="scaling_cooldown"):
        rule("cooldown")
    with pytest.raises(UserError, match="from_zero"):
        service_fact("zero")
    text = '[sources]\n[rules]\nx = { value = 1, unit = "s", source = "y" }\n[facts]\n[fargate]\n'
    with pytest.raises(UserError, match="row x: missing 'y'"):
        read_service_rules(text)
    with pytest.raises(UserError, match="not TOML"):
        read_service_rules("[")
