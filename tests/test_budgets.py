"""Budgets and alarms: requests that AWS's models accept, forecasts that are right where one can know, alarms in time."""

import numpy as np
import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator
from hypothesis import given, settings, strategies as st

from smml.cost import budgets
from smml.cost.budgets import Alert, Budget
from smml.errors import UserError

few = settings(max_examples=50, deadline=None)
TEAM = ("team@example.com",)
TOPIC = "arn:aws:sns:us-east-1:123456789012:bill"
BUDGET = Budget(
    "cookbook",
    300.0,
    (Alert("actual", 80, TEAM), Alert("actual", 100, TEAM, TOPIC), Alert("forecast", 100, TEAM)),
    ("project", "smml"),
)
spends = st.lists(st.floats(0, 100), min_size=1, max_size=30)


def valid(service, operation, parameters):
    shape = get_session().get_service_model(service).operation_model(operation).input_shape
    report = ParamValidator().validate(parameters, shape)
    return not report.has_errors()


def test_requests_are_valid():
    assert valid("budgets", "CreateBudget", BUDGET.request("123456789012"))
    alarm = budgets.billing_alarm_request("bill", 250.0, TOPIC)
    assert valid("cloudwatch", "PutMetricAlarm", alarm)
    for subscriber, frequency in ((TEAM[0], "DAILY"), (TOPIC, "IMMEDIATE")):
        monitor, subscription = budgets.anomaly_requests(
            "odd", 50.0, subscriber, "arn:aws:ce::123456789012:anomalymonitor/1"
        )
        assert valid("ce", "CreateAnomalyMonitor", monitor)
        assert valid("ce", "CreateAnomalySubscription", subscription)
        assert subscription["AnomalySubscription"]["Frequency"] == frequency
    assert not valid("budgets", "CreateBudget", BUDGET.request("123456789012") | {"Budget": {}})


def test_the_request_says_what_was_asked_for():
    request = BUDGET.request("123456789012")
    assert request["Budget"]["BudgetLimit"] == {"Amount": "300.00", "Unit": "USD"}
    assert request["Budget"]["CostFilters"] == {"TagKeyValue": ["user:project$smml"]}
    kinds = [n["Notification"]["NotificationType"] for n in request["NotificationsWithSubscribers"]]
    assert kinds == ["ACTUAL", "ACTUAL", "FORECASTED"]
    assert len(request["NotificationsWithSubscribers"][1]["Subscribers"]) == 2


@few
@given(st.floats(0.01, 1000), st.integers(1, 30))
def test_an_even_month_is_forecast_exactly(daily, days):
    found = budgets.forecast([daily] * days)
    assert found.usd == pytest.approx(30 * daily)
    if days > 1:
        assert found.low_usd == pytest.approx(30 * daily)
        assert found.high_usd == pytest.approx(30 * daily)


@few
@given(spends)
def test_a_forecast_is_no_less_than_what_is_spent(daily):
    found = budgets.forecast(daily)
    spent = sum(daily)
    assert found.usd >= spent - 1e-9
    assert spent - 1e-9 <= found.low_usd <= found.usd + 1e-9 <= found.high_usd + 2e-9
    more = budgets.forecast([*daily[:-1], daily[-1] + 1.0])
    assert more.usd >= found.usd
    if len(daily) == 30:
        assert found.usd == pytest.approx(spent)


def test_the_range_holds_four_months_of_five():
    random = np.random.default_rng(4)
    inside = 0
    for _ in range(600):
        month = random.gamma(9.0, 10 / 9, 30)
        found = budgets.forecast(month[:12])
        inside += found.low_usd <= month.sum() <= found.high_usd
    assert 0.72 <= inside / 600 <= 0.88


def test_which_alarm_fires_when():
    # 10 USD a day for ten days, then 25: 300 USD are spent in the 18th, and were to be seen a week before.
    month = [10.0] * 10 + [25.0] * 20
    actual80, actual100, ahead = budgets.firings(BUDGET, month)
    assert (actual80.day, actual80.spent_usd) == (16, 250.0)
    assert (actual100.day, actual100.spent_usd) == (19, 325.0)
    assert (ahead.day, ahead.spent_usd) == (11, 125.0)


def test_a_young_account_gets_no_forecast():
    month = [10.0] * 10 + [25.0] * 20
    assert budgets.firings(BUDGET, month, history_days=0)[2].day is None
    assert budgets.firings(BUDGET, month, history_days=20)[2].day == 15


@few
@given(spends, st.floats(1, 500), st.floats(1.0, 3.0))
def test_more_spend_fires_no_later(daily, limit, factor):
    budget = Budget("b", limit, (Alert("actual", 90, TEAM), Alert("forecast", 100, TEAM)))
    never = 99
    for less, more in zip(
        budgets.firings(budget, daily),
        budgets.firings(budget, [factor * usd for usd in daily]),
        strict=True,
    ):
        assert (more.day or never) <= (less.day or never)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Alert("soon", 80, TEAM), "actual, forecast"),
        (lambda: Alert("actual", 0, TEAM), "percent"),
        (lambda: Alert("actual", 80), "emails or sns_topic"),
        (lambda: Alert("actual", 80, ("team",)), "addresses"),
        (lambda: Budget("a:b", 1, ()), "name"),
        (lambda: Budget("b", -1, ()), "usd_per_month"),
        (lambda: Budget("b", 1, (Alert("actual", 1, TEAM),) * 11), "10 at most"),
        (lambda: BUDGET.request("12"), "12 digits"),
        (lambda: budgets.forecast([]), "0 days"),
        (lambda: budgets.forecast([1.0] * 31), "31 days"),
        (lambda: budgets.forecast([1.0, -1.0]), "negative"),
        (lambda: budgets.forecast([float("nan")]), "negative or missing"),
        (lambda: budgets.forecast([1.0], 27), "days_in_month"),
        (lambda: budgets.billing_alarm_request("b", 0, TOPIC), "usd"),
        (lambda: budgets.anomaly_requests("b", 0, TOPIC, "arn"), "usd"),
    ],
)
def test_bad_input_is_refused_by_name(make, says):
    with pytest.raises(UserError, match=says):
        make()
