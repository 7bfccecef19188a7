"""Which S3 class for which access: storage with minimum size and duration, requests, retrieval, monitoring.

Objects of one kind are counted over their whole life, in expectation; days are counted from the upload.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from smml.cost.decisions.decision import HOURS_PER_MONTH, Decision, Price, Rejected, dollars
from smml.cost.storage.intelligent_tiering import TIERS, is_monitored, tier_shares
from smml.cost.units.stored import SENT_GB, STORED_GB
from smml.data.s3_fees import s3_price
from smml.data.service_rules import rule
from smml.errors import UserError

StorageClass = Literal[
    "STANDARD",
    "INTELLIGENT_TIERING",
    "STANDARD_IA",
    "ONEZONE_IA",
    "GLACIER_IR",
    "GLACIER",
    "DEEP_ARCHIVE",
]
DAYS_PER_MONTH = HOURS_PER_MONTH / 24
# By class: its name among the prices, its name among the rules.
_NAMES: dict[str, tuple[str, str]] = {
    "STANDARD_IA": ("standard-ia", "standard_ia"),
    "ONEZONE_IA": ("one-zone-ia", "onezone_ia"),
    "GLACIER_IR": ("glacier-instant", "glacier_instant"),
    "GLACIER": ("glacier-flexible", "glacier_flexible"),
    "DEEP_ARCHIVE": ("glacier-deep", "deep_archive"),
}
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")


@dataclass(frozen=True)
class Objects:
    """`count` objects of `bytes_each`; `reads_per_day`, [days kept], is how often one is read on each day of its life.

    Raises UserError naming the field.
    """

    count: float
    bytes_each: float
    reads_per_day: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("count", "bytes_each"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)!r}; give a number above 0.")
        reads = np.asarray(self.reads_per_day, dtype=float)
        if reads.ndim != 1 or not len(reads) or not (reads >= 0).all():
            raise UserError("reads_per_day must hold one number a day of life, none below 0.")

    @classmethod
    def cooling(
        cls,
        count: float,
        bytes_each: float,
        days_kept: int,
        first_reads_per_day: float,
        half_life_days: float,
    ) -> "Objects":
        """Objects that are read less and less: half as often after each `half_life_days`."""
        if not days_kept >= 1 or not half_life_days > 0:
            raise UserError(
                f"days_kept is {days_kept!r} and half_life_days {half_life_days!r}; give >= 1 and > 0."
            )
        return cls(
            count,
            bytes_each,
            first_reads_per_day * 0.5 ** (np.arange(days_kept) / half_life_days),
        )

    @property
    def days_kept(self) -> int:
        """Days from upload to removal."""
        return len(self.reads_per_day)


@dataclass(frozen=True)
class Bill:
    """USD of all objects over their whole life, by what it is asked for."""

    storage: float
    requests: float
    retrieval: float = 0.0
    monitoring: float = 0.0

    @property
    def usd(self) -> float:
        """All of it."""
        return self.storage + self.requests + self.retrieval + self.monitoring


@dataclass(frozen=True)
class Plan:
    """Objects go into `storage_class` on day `from_day` of their life, until then they are in STANDARD; and the bill."""

    storage_class: StorageClass
    from_day: int
    bill: Bill

    def __str__(self) -> str:
        after = f" from day {self.from_day}" if self.from_day else ""
        return f"{self.storage_class}{after}"


class NoPrice(UserError):
    """No source was found for a price that the bill needs."""


def bill(
    objects: Objects, storage_class: StorageClass, from_day: int = 0, region: str = "us-east-1"
) -> Bill:
    """What the objects cost in STANDARD until `from_day` and in `storage_class` from then on.

    Less than the class's minimum size or duration is billed as the minimum. Raises NoPrice, and UserError for an unknown
    class or a day that the objects do not reach.
    """
    return _bill(objects, storage_class, from_day, _prices(region))


def _bill(
    objects: Objects, storage_class: StorageClass, from_day: int, price: Callable[[str], float]
) -> Bill:
    if not 0 <= from_day < objects.days_kept:
        raise UserError(
            f"from_day is {from_day!r}; give 0 to {objects.days_kept - 1}, a day of the objects' life."
        )
    if storage_class == "INTELLIGENT_TIERING":
        if from_day:
            raise UserError("INTELLIGENT_TIERING moves objects by itself; give from_day=0.")
        return _tiering_bill(objects, price)
    put, get = price("s3/requests/put"), price("s3/requests/get")
    standard = price("s3/standard/storage")
    count, size, reads = objects.count, objects.bytes_each, objects.reads_per_day
    if storage_class == "STANDARD":
        return Bill(
            count * _keeping(size, objects.days_kept, standard), count * (put + reads.sum() * get)
        )
    if storage_class not in _NAMES:
        raise UserError(
            f"storage_class is {storage_class!r}; allowed are STANDARD, INTELLIGENT_TIERING, {', '.join(_NAMES)}."
        )
    item = f"s3/{_NAMES[storage_class][0]}"
    held = price(f"{item}/storage")
    enter, leave = price(f"{item}/put"), price(f"{item}/retrieval")
    minimum = rule(f"s3_{_NAMES[storage_class][1]}_minimum_duration").value
    days = max(objects.days_kept - from_day, minimum)
    storage = _keeping(size, from_day, standard)
    if storage_class in _ARCHIVES:
        storage += _keeping(size + rule("s3_archive_index_size").value, days, held)
        storage += _keeping(rule("s3_archive_name_size").value, days, standard)
    else:
        smallest = rule(f"s3_{_NAMES[storage_class][1]}_minimum_size").value
        storage += _keeping(max(size, smallest), days, held)
    # An upload goes into its class at once; what waits in STANDARD is uploaded there and moved later.
    entering = put + enter if from_day else enter
    later = reads[from_day:].sum()
    requests = entering + reads[:from_day].sum() * get + later * price(f"{item}/get")
    return Bill(count * storage, count * requests, count * later * size / SENT_GB * leave)


def choose_class(
    objects: Objects,
    *,
    instant: bool = True,
    zones: int = 3,
    region: str = "us-east-1",
) -> Decision[Plan]:
    """The cheapest class, and the day from which on; `instant`: reads cannot wait for a restore; `zones`: 3, or 1 will do.

    Each class is tried from the upload on and after every day on which a lifecycle rule may move the objects. A class
    without a known price is left out, and said so.
    """
    price = _prices(region)
    found: list[Plan] = []
    rejected: list[Rejected] = []
    for name in ("STANDARD", "INTELLIGENT_TIERING", *_NAMES):
        if instant and name in _ARCHIVES:
            rejected.append(
                Rejected(name, "it must be restored first, which takes minutes to hours")
            )
            continue
        if zones > 1 and name == "ONEZONE_IA":
            rejected.append(Rejected(name, "it is lost with its one Availability Zone"))
            continue
        try:
            plans = [
                Plan(name, day, _bill(objects, name, day, price)) for day in _days(objects, name)
            ]
        except NoPrice as error:
            rejected.append(Rejected(name, str(error)))
            continue
        found.append(min(plans, key=lambda plan: (plan.bill.usd, plan.from_day)))
    if not found:
        raise UserError(f"no S3 class has all its prices in {region}; take another region.")
    found.sort(key=lambda plan: plan.bill.usd)
    best = found[0]
    rejected += [
        Rejected(
            plan.storage_class,
            f"{plan}: {dollars(plan.bill.usd)}, {plan.bill.usd / best.bill.usd:.3g} times as much",
            True,
        )
        for plan in found[1:]
    ]
    parts = ", ".join(
        f"{part} {dollars(getattr(best.bill, part))}"
        for part in ("storage", "requests", "retrieval", "monitoring")
        if getattr(best.bill, part)
    )
    life = f"over {objects.days_kept} days: {dollars(best.bill.usd)} ({parts})"
    return Decision(
        best, [f"{best} is the cheapest {life}."], rejected, Price(best.bill.usd, "job")
    )


def lifecycle_request(
    bucket: str, prefix: str, plan: Plan, expire_after_days: int | None = None
) -> dict[str, Any]:
    """Parameters of PutBucketLifecycleConfiguration that does the plan. It replaces the bucket's other rules.

    Nothing is ever removed unless `expire_after_days` says when. Raises UserError where there is nothing to do, or AWS
    would refuse it.
    """
    rules: dict[str, Any] = {
        "ID": f"{plan.storage_class.lower()}-from-day-{plan.from_day}",
        "Filter": {"Prefix": prefix},
        "Status": "Enabled",
    }
    if plan.storage_class != "STANDARD":
        earliest = rule("s3_days_before_infrequent").value
        if plan.storage_class in ("STANDARD_IA", "ONEZONE_IA") and plan.from_day < earliest:
            raise UserError(
                f"from_day is {plan.from_day}; a lifecycle moves into {plan.storage_class} from day {earliest:g} on: "
                f'upload with StorageClass="{plan.storage_class}" instead.'
            )
        rules["Transitions"] = [{"Days": plan.from_day, "StorageClass": plan.storage_class}]
    if expire_after_days is not None:
        if not expire_after_days > plan.from_day:
            raise UserError(
                f"expire_after_days is {expire_after_days!r}; give a day after {plan.from_day}."
            )
        rules["Expiration"] = {"Days": expire_after_days}
    if "Transitions" not in rules and "Expiration" not in rules:
        raise UserError("STANDARD without expiration needs no lifecycle; leave it out.")
    return {"Bucket": bucket, "LifecycleConfiguration": {"Rules": [rules]}}


def _days(objects: Objects, name: str) -> list[int]:
    """Days on which the objects may enter the class: at the upload, and as a lifecycle rule may move them."""
    if name in ("STANDARD", "INTELLIGENT_TIERING"):
        return [0]
    if objects.bytes_each < rule("s3_transition_minimum_size").value:
        return [0]
    first = 1
    if name in ("STANDARD_IA", "ONEZONE_IA"):
        first = int(rule("s3_days_before_infrequent").value)
    return [0, *range(first, objects.days_kept)]


def _tiering_bill(objects: Objects, price: Callable[[str], float]) -> Bill:
    put, get = price("s3/requests/put"), price("s3/requests/get")
    prices = [price(f"s3/intelligent-tiering/{tier}/storage") for tier in TIERS]
    per_day = tier_shares(objects.reads_per_day, objects.bytes_each) @ np.array(prices)
    storage = objects.bytes_each / STORED_GB * per_day.sum() / DAYS_PER_MONTH
    fee = price("s3/intelligent-tiering/monitoring") if is_monitored(objects.bytes_each) else 0.0
    return Bill(
        objects.count * storage,
        objects.count * (put + objects.reads_per_day.sum() * get),
        0.0,
        objects.count * fee * objects.days_kept / DAYS_PER_MONTH,
    )


def _keeping(size: float, days: float, usd_per_gb_month: float) -> float:
    return size / STORED_GB * days / DAYS_PER_MONTH * usd_per_gb_month


def _prices(region: str) -> Callable[[str], float]:
    """A look-up in one region that remembers, for one bill asks for the same price again and again."""

    @cache
    def price(item: str) -> float:
        found = s3_price(item, region)
        if found is None:
            raise NoPrice(
                f"no source was found for the price of {item} in {region}; take another region or class."
            )
        return found.value

    return price
