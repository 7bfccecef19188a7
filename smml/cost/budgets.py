"""Budgets and alarms: their requests, a forecast of the month's end from the spend so far, and which alarm fires when.

Requests are keyword arguments for boto3's budgets, cloudwatch and ce clients; nothing is sent.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from smml.data.service_rules import rule
from smml.errors import UserError

# A forecast follows the last week: long enough for its weekend, short enough for a new habit.
_RECENT_DAYS = 7


@dataclass(frozen=True)
class Alert:
    """Tell `emails` and `sns_topic` when the spend, actual or forecast, exceeds `percent` of the budget."""

    kind: Literal["actual", "forecast"]
    percent: float
    emails: tuple[str, ...] = ()
    sns_topic: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("actual", "forecast"):
            raise UserError(f"kind is {self.kind!r}; allowed are actual, forecast.")
        if not self.percent > 0:
            raise UserError(f"percent is {self.percent!r}; give a number above 0.")
        if not self.emails and self.sns_topic is None:
            raise UserError("an alert needs a reader; give emails or sns_topic.")
        if wrong := [address for address in self.emails if "@" not in address]:
            raise UserError(f"emails holds {wrong[0]!r}; give addresses such as team@example.com.")

    @property
    def name(self) -> str:
        """Such as "forecast > 100 %"."""
        return f"{self.kind} > {self.percent:g} %"

    def request(self) -> dict[str, Any]:
        """One entry of NotificationsWithSubscribers."""
        readers = [{"SubscriptionType": "EMAIL", "Address": address} for address in self.emails]
        if self.sns_topic is not None:
            readers.append({"SubscriptionType": "SNS", "Address": self.sns_topic})
        return {
            "Notification": {
                "NotificationType": "ACTUAL" if self.kind == "actual" else "FORECASTED",
                "ComparisonOperator": "GREATER_THAN",
                "Threshold": float(self.percent),
                "ThresholdType": "PERCENTAGE",
            },
            "Subscribers": readers,
        }


@dataclass(frozen=True)
class Budget:
    """USD for each month, with its alerts; `tag` ("project", "smml") narrows it to what carries that tag."""

    name: str
    usd_per_month: float
    alerts: tuple[Alert, ...]
    tag: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 100 or re.search(r"[:\\]", self.name):
            raise UserError(f"name is {self.name!r}; give 1 to 100 characters without : and \\.")
        if not self.usd_per_month > 0:
            raise UserError(f"usd_per_month is {self.usd_per_month!r}; give a number above 0.")
        most = int(rule("budget_notifications").value)
        if len(self.alerts) > most:
            raise UserError(f"{len(self.alerts)} alerts were given; a budget takes {most} at most.")

    def request(self, account_id: str) -> dict[str, Any]:
        """Parameters of CreateBudget."""
        if not re.fullmatch(r"\d{12}", account_id):
            raise UserError(f"account_id is {account_id!r}; give the account's 12 digits.")
        budget: dict[str, Any] = {
            "BudgetName": self.name,
            "BudgetLimit": {"Amount": f"{self.usd_per_month:.2f}", "Unit": "USD"},
            "TimeUnit": "MONTHLY",
            "BudgetType": "COST",
        }
        if self.tag is not None:
            key, value = self.tag
            budget["CostFilters"] = {"TagKeyValue": [f"user:{key}${value}"]}
        return {
            "AccountId": account_id,
            "Budget": budget,
            "NotificationsWithSubscribers": [alert.request() for alert in self.alerts],
        }


@dataclass(frozen=True)
class Forecast:
    """The month's spend at its end, USD: expected, and the range that holds it in four of five months like this one."""

    usd: float
    low_usd: float
    high_usd: float


@dataclass(frozen=True)
class Firing:
    """An alert, the day of the month (from 1) whose spend raised it, None if none did, and the spend known then."""

    alert: Alert
    day: int | None
    spent_usd: float


def forecast(daily_usd: Sequence[float], days_in_month: int = 30) -> Forecast:
    """The month's spend from its days so far, [N] USD: what is spent, and the mean of the last week for what is left.

    The range adds the variance of the days left to that of the mean. AWS does not say how its own forecast is made.
    Raises UserError for no day, more days than the month has, and a negative spend.
    """
    spent = _days(daily_usd, days_in_month)
    recent = spent[-_RECENT_DAYS:]
    left = days_in_month - len(spent)
    expected = spent.sum() + left * recent.mean()
    deviation = recent.std(ddof=1) if len(recent) > 1 else recent.mean()
    # 1.2816: nine tenths of a normal distribution lie below so many deviations.
    spread = 1.2816 * deviation * np.sqrt(left + left**2 / len(recent))
    low = max(float(spent.sum()), float(expected - spread))
    return Forecast(float(expected), low, float(expected + spread))


def firings(
    budget: Budget, daily_usd: Sequence[float], days_in_month: int = 30, history_days: float = 365
) -> list[Firing]:
    """Each alert of the budget and the first day on which it fires, when the month's days cost `daily_usd`, [N].

    `history_days` of the account before this month: a forecast needs five weeks. What is known of a day is known half
    a day after it at the latest (smml.data.service_rules).
    """
    spent = _days(daily_usd, days_in_month)
    total = np.cumsum(spent)
    needed = rule("budget_forecast_history").value
    found = []
    for alert in budget.alerts:
        limit = alert.percent / 100 * budget.usd_per_month
        day = None
        for number in range(1, len(spent) + 1):
            if alert.kind == "actual":
                known = total[number - 1]
            elif history_days + number < needed:
                continue
            else:
                known = forecast(spent[:number], days_in_month).usd
            if known > limit:
                day = number
                break
        found.append(Firing(alert, day, float(total[(day or len(spent)) - 1])))
    return found


def billing_alarm_request(name: str, usd: float, sns_topic: str) -> dict[str, Any]:
    """Parameters of CloudWatch's PutMetricAlarm on the estimated charges of the month; send it to us-east-1.

    The metric holds no projection: the money is spent when this alarm fires.
    """
    if not usd > 0:
        raise UserError(f"usd is {usd!r}; give a number above 0.")
    return {
        "AlarmName": name,
        "Namespace": "AWS/Billing",
        "MetricName": "EstimatedCharges",
        "Dimensions": [{"Name": "Currency", "Value": "USD"}],
        "Statistic": "Maximum",
        # The metric comes several times a day: a quarter of a day holds one.
        "Period": 21_600,
        "EvaluationPeriods": 1,
        "Threshold": float(usd),
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "missing",
        "AlarmActions": [sns_topic],
    }


def anomaly_requests(
    name: str, usd: float, subscriber: str, monitor_arn: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters of Cost Explorer's CreateAnomalyMonitor and CreateAnomalySubscription: `usd` above what was expected.

    `subscriber` is an e-mail address, told daily, or the ARN of an SNS topic, told at once; `monitor_arn` is what the
    first call returned.
    """
    if not usd > 0:
        raise UserError(f"usd is {usd!r}; give a number above 0.")
    topic = subscriber.startswith("arn:")
    monitor = {
        "MonitorName": name,
        "MonitorType": "DIMENSIONAL",
        "MonitorDimension": "SERVICE",
    }
    subscription = {
        "SubscriptionName": name,
        "MonitorArnList": [monitor_arn],
        "Subscribers": [{"Address": subscriber, "Type": "SNS" if topic else "EMAIL"}],
        "Frequency": "IMMEDIATE" if topic else "DAILY",
        "ThresholdExpression": {
            "Dimensions": {
                "Key": "ANOMALY_TOTAL_IMPACT_ABSOLUTE",
                "MatchOptions": ["GREATER_THAN_OR_EQUAL"],
                "Values": [f"{usd:g}"],
            }
        },
    }
    return {"AnomalyMonitor": monitor}, {"AnomalySubscription": subscription}


def _days(daily_usd: Sequence[float], days_in_month: int) -> np.ndarray:
    spent = np.asarray(daily_usd, dtype=float)
    if not 28 <= days_in_month <= 31:
        raise UserError(f"days_in_month is {days_in_month!r}; give 28 to 31.")
    if not 1 <= len(spent) <= days_in_month:
        raise UserError(
            f"daily_usd holds {len(spent)} days; give 1 to {days_in_month}, those of this month."
        )
    if not (spent >= 0).all():
        raise UserError("daily_usd holds a negative or missing amount; give USD of each day.")
    return spent
