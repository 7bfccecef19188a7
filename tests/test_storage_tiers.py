"""S3 classes: minimum sizes and durations, fees, Intelligent-Tiering against a simulation, requests that AWS takes."""

import numpy as np
import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator
from hypothesis import given, settings, strategies as st

from smml.cost.storage.intelligent_tiering import tier_shares
from smml.cost.storage.tiers import (
    DAYS_PER_MONTH,
    Bill,
    NoPrice,
    Objects,
    Plan,
    bill,
    choose_class,
    lifecycle_request,
)
from smml.data.s3_fees import s3_price
from smml.errors import UserError

few = settings(max_examples=50, deadline=None)
GIB = 2**30
CLASSES = (
    "STANDARD",
    "INTELLIGENT_TIERING",
    "STANDARD_IA",
    "GLACIER_IR",
    "GLACIER",
    "DEEP_ARCHIVE",
)
classes = st.sampled_from(CLASSES)
patterns = st.builds(
    lambda count, size, days, reads: Objects(count, size, np.full(days, reads)),
    st.floats(1, 1e7),
    st.floats(1, 1e11),
    st.integers(1, 400),
    st.floats(0, 2),
)


def usd(item):
    return s3_price(item).value


def stored(days, reads=0.0, size=1.0 * GIB, count=1.0):
    return Objects(count, size, np.full(days, reads))


# ------------------------------------------------------------------------------------------------------- by hand


def test_a_month_in_standard():
    found = bill(stored(30, reads=2.0), "STANDARD")
    assert found.storage == pytest.approx(30 / DAYS_PER_MONTH * usd("s3/standard/storage"))
    assert found.requests == pytest.approx(usd("s3/requests/put") + 60 * usd("s3/requests/get"))
    assert found.retrieval == found.monitoring == 0


def test_less_than_the_minimum_duration_is_billed_in_full():
    for name, days in (("STANDARD_IA", 30), ("GLACIER_IR", 90), ("DEEP_ARCHIVE", 180)):
        assert bill(stored(1), name).storage == pytest.approx(bill(stored(days), name).storage)
        assert bill(stored(days + 1), name).storage > bill(stored(days), name).storage


def test_less_than_the_minimum_size_is_billed_as_128_kib():
    small, whole = (bill(stored(60, size=size), "STANDARD_IA") for size in (1.0, 131_072.0))
    assert small.storage == pytest.approx(whole.storage)
    assert bill(stored(60, size=131_073.0), "STANDARD_IA").storage > whole.storage


def test_an_archive_adds_its_index_and_its_name():
    found = bill(stored(365, size=1.0), "DEEP_ARCHIVE").storage
    months = 365 / DAYS_PER_MONTH
    index = 32_769 / GIB * usd("s3/glacier-deep/storage")
    assert found == pytest.approx(months * (index + 8_192 / GIB * usd("s3/standard/storage")))


def test_what_is_read_is_retrieved():
    found = bill(stored(100, reads=0.5, size=3e9), "GLACIER_IR")
    assert found.retrieval == pytest.approx(50 * 3 * usd("s3/glacier-instant/retrieval"))


def test_a_transition_is_paid_once_and_splits_the_life():
    reads = np.zeros(100)
    reads[:40], reads[40:] = 1.0, 0.01
    found = bill(Objects(1.0, 1e9, reads), "GLACIER_IR", from_day=40)
    assert found.retrieval == pytest.approx(0.6 * usd("s3/glacier-instant/retrieval"))
    assert found.requests == pytest.approx(
        usd("s3/requests/put")
        + usd("s3/glacier-instant/put")
        + 40 * usd("s3/requests/get")
        + 0.6 * usd("s3/glacier-instant/get")
    )


# ----------------------------------------------------------------------------------------------------- properties


@few
@given(patterns, classes)
def test_more_objects_and_more_reads_never_cost_less(objects, name):
    found = bill(objects, name)
    assert found.usd > 0
    more = bill(Objects(2 * objects.count, objects.bytes_each, objects.reads_per_day), name)
    assert more.usd == pytest.approx(2 * found.usd)
    read = bill(Objects(objects.count, objects.bytes_each, objects.reads_per_day + 0.1), name)
    assert read.usd >= found.usd * (1 - 1e-12)


@few
@given(patterns, classes, st.integers(1, 100))
def test_longer_never_costs_less(objects, name, days):
    reads = np.concatenate((objects.reads_per_day, np.zeros(days)))
    longer = bill(Objects(objects.count, objects.bytes_each, reads), name)
    assert longer.usd >= bill(objects, name).usd * (1 - 1e-12)


@few
@given(patterns, st.booleans())
def test_the_choice_is_no_dearer_than_any_class(objects, instant):
    decision = choose_class(objects, instant=instant)
    names = CLASSES[:4] if instant else CLASSES
    assert decision.price.usd <= min(bill(objects, name).usd for name in names) * (1 + 1e-9)
    best = decision.choice
    again = bill(objects, best.storage_class, best.from_day)
    assert again.usd == pytest.approx(decision.price.usd)
    assert "Availability Zone" in decision.why_not("ONEZONE_IA")


def test_what_is_read_all_the_time_stays_and_what_nobody_reads_goes():
    assert choose_class(stored(365, reads=5.0)).choice.storage_class in (
        "STANDARD",
        "INTELLIGENT_TIERING",
    )
    assert choose_class(stored(365)).choice.storage_class == "GLACIER_IR"
    assert choose_class(stored(365), instant=False).choice.storage_class == "DEEP_ARCHIVE"
    assert choose_class(stored(365, size=2_000.0, count=1e8)).choice.storage_class == "STANDARD"


# ------------------------------------------------------------------------------------------- Intelligent-Tiering


def test_tiers_of_an_object_that_nobody_reads():
    shares = tier_shares(np.zeros(120), 1e6)
    assert shares[29].tolist() == [1, 0, 0]
    assert shares[30].tolist() == [0, 1, 0]
    assert shares[89].tolist() == [0, 1, 0]
    assert shares[90].tolist() == [0, 0, 1]
    assert tier_shares(np.zeros(120), 131_071.0)[:, 0].min() == 1


@few
@given(st.floats(0.001, 0.2))
def test_tiers_settle_where_the_closed_form_says(reads):
    shares = tier_shares(np.full(800, reads), 1e6)
    assert np.allclose(shares.sum(axis=1), 1)
    # The chance that 30 days in a row, or 90, see no read.
    assert shares[-1, 1:].sum() == pytest.approx(np.exp(-30 * reads), abs=1e-9)
    assert shares[-1, 2] == pytest.approx(np.exp(-90 * reads), abs=1e-9)


def test_tiers_against_objects_played_one_by_one():
    days, count = 200, 4_000
    reads = 0.2 * 0.5 ** (np.arange(days) / 20)
    read = np.random.default_rng(3).random((count, days)) < 1 - np.exp(-reads)
    idle, found = np.zeros(count, int), np.zeros((days, 3))
    for day in range(days):
        found[day] = (idle < 30).mean(), ((idle >= 30) & (idle < 90)).mean(), (idle >= 90).mean()
        idle = np.where(read[:, day], 0, idle + 1)
    assert np.abs(found - tier_shares(reads, 1e6)).max() < 0.03


def test_monitoring_is_paid_for_what_is_watched():
    watched = bill(stored(365, size=131_072.0, count=1e6), "INTELLIGENT_TIERING")
    assert watched.monitoring == pytest.approx(
        1e6 * 365 / DAYS_PER_MONTH * usd("s3/intelligent-tiering/monitoring")
    )
    assert bill(stored(365, size=1e3), "INTELLIGENT_TIERING").monitoring == 0


# -------------------------------------------------------------------------------------------- requests, bad input


def test_lifecycles_are_valid():
    shape = get_session().get_service_model("s3")
    shape = shape.operation_model("PutBucketLifecycleConfiguration").input_shape
    transitions = shape.members["LifecycleConfiguration"].members["Rules"].member.members
    known = transitions["Transitions"].member.members["StorageClass"].enum
    for name in CLASSES[1:]:
        plan = Plan(name, 0 if name == "INTELLIGENT_TIERING" else 40, Bill(1.0, 1.0))
        request = lifecycle_request("bucket", "checkpoints/", plan, expire_after_days=400)
        assert not ParamValidator().validate(request, shape).has_errors()
        assert name in known
        [one] = request["LifecycleConfiguration"]["Rules"]
        assert one["Expiration"] == {"Days": 400}
    assert (
        "Expiration" not in lifecycle_request("b", "", plan)["LifecycleConfiguration"]["Rules"][0]
    )


def test_a_region_without_prices_leaves_the_class_out():
    with pytest.raises(NoPrice, match="mars-north-1"):
        bill(stored(10), "STANDARD", region="mars-north-1")
    with pytest.raises(UserError, match="take another region"):
        choose_class(stored(10), region="mars-north-1")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Objects(0, 1, np.zeros(1)), "count"),
        (lambda: Objects(1, -1, np.zeros(1)), "bytes_each"),
        (lambda: Objects(1, 1, np.array([])), "reads_per_day"),
        (lambda: Objects(1, 1, np.array([-1.0])), "reads_per_day"),
        (lambda: Objects.cooling(1, 1, 0, 1, 1), "days_kept"),
        (lambda: bill(stored(5), "COLD"), "allowed are"),
        (lambda: bill(stored(5), "GLACIER", from_day=5), "from_day"),
        (lambda: bill(stored(5), "INTELLIGENT_TIERING", from_day=1), "by itself"),
        (lambda: lifecycle_request("b", "", Plan("STANDARD", 0, Bill(1, 1))), "no lifecycle"),
        (lambda: lifecycle_request("b", "", Plan("STANDARD_IA", 3, Bill(1, 1))), "from day 30"),
        (lambda: lifecycle_request("b", "", Plan("GLACIER", 3, Bill(1, 1)), 2), "expire_after"),
    ],
)
def test_bad_input_is_refused_by_name(make, says):
    with pytest.raises(UserError, match=says):
        make()
