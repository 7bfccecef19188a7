"""The whole bill of a run and of an hour: parts that add up, closed forms, and what makes them rise."""

import datetime
import math

import pytest
from hypothesis import given, settings, strategies as st

from smml.cost.units.bill import Bill, usd
from smml.cost.units.rented import rented
from smml.cost.units.service_month import service_month
from smml.cost.units.stored import Kept, StoragePrices, checkpoint_bytes_hours
from smml.cost.units.training_run import training_run
from smml.cost.units.unit_economics import GlobalThroughput, Instances, Job, run_cost
from smml.cost.units.utilization import PaidHours
from smml.data import Quantity, instance
from smml.errors import UserError
from smml.plan.goodput import Reliability, daly_interval_s, expected_goodput, simulate

few = settings(max_examples=100, deadline=None)
shares = st.floats(0.01, 1)


def made_up(value, unit):
    """A price that is none: for tests only."""
    day = datetime.date(2026, 1, 1)
    return Quantity(value=value, unit=unit, source="made up", url="", date=day, checked=False)


PRICES = StoragePrices(made_up(0.02, "USD/GB-month"), made_up(0.1, "USD/GB"))
FLAKY = Reliability(20_000.0, 60.0, 30.0, 300.0)
KEPT = Kept(1e12, 3, 2e12, 24.0, 16e9, 730.0, 16e9)


def job(rate=1e5, count=2, ranks=None):
    group = Instances("p4d.24xlarge", count, 20.0)
    return Job((group,), ranks or group.accelerators, GlobalThroughput(rate))


@st.composite
def runs(draw):
    """Keywords of training_run: any failures, intervals, storage."""
    reliability = Reliability(
        draw(st.floats(1e4, 1e8)), draw(st.floats(1, 600)), restart_s=draw(st.floats(0, 900))
    )
    interval = draw(st.one_of(st.none(), st.floats(60, 2e4)))
    kept = Kept(draw(st.floats(0, 1e13)), draw(st.integers(1, 9)), draw(st.floats(0, 1e13)))
    return {"reliability": reliability, "interval_s": interval, "kept": kept, "prices": PRICES}


@few
@given(runs(), st.floats(1e6, 1e13), st.integers(1, 16))
def test_the_parts_of_a_run_are_the_run(options, tokens, ranks):
    run = training_run(job(ranks=ranks), tokens, **options)
    assert run.usd == pytest.approx(math.fsum(run.bill.parts.values()), rel=1e-12)
    machines = ("training", "checkpoint pauses", "failures", "idle devices")
    paid = sum(run.bill.parts[name] for name in machines)
    assert paid == pytest.approx(40.0 * run.wall_hours, rel=1e-9)
    assert run.training_hours == pytest.approx(tokens / 1e5 / 3600)
    interval = options["interval_s"] or daly_interval_s(options["reliability"])
    assert run.goodput == pytest.approx(expected_goodput(options["reliability"], interval))


@few
@given(st.floats(1e6, 1e13), st.integers(1, 8))
def test_a_run_that_never_fails_and_stores_nothing_costs_what_its_hours_cost(tokens, count):
    run = training_run(job(count=count), tokens)
    assert run.usd == pytest.approx(run_cost(job(count=count), tokens).usd)
    assert run.usd_per_million_tokens == pytest.approx(job(count=count).usd_per_million_tokens)
    assert (run.goodput, run.checkpoint_every_hours) == (1.0, None)
    assert run.usd_per_device_hour_used == pytest.approx(20.0 / 8)


@few
@given(runs(), st.floats(1e6, 1e12), st.floats(1, 10))
def test_more_tokens_never_cost_less(options, tokens, factor):
    less, more = (training_run(job(), n, **options) for n in (tokens, factor * tokens))
    assert more.usd >= less.usd * (1 - 1e-9)


@few
@given(runs(), st.floats(1e6, 1e12), st.integers(1, 64), shares)
def test_more_ranks_never_cost_less_at_an_efficiency_of_1_or_less(
    options, tokens, count, efficiency
):
    """Storage aside, which is kept for a shorter time: n instances at n × efficiency times the speed of one."""
    machines = {"reliability": options["reliability"], "interval_s": options["interval_s"]}
    one = training_run(job(1e5, 1), tokens, **machines)
    many = training_run(job(1e5 * count * efficiency, count), tokens, **machines)
    assert many.usd >= one.usd * (1 - 1e-9)
    assert many.usd == pytest.approx(one.usd / efficiency)


@few
@given(runs(), st.floats(1e6, 1e12), st.floats(1, 5))
def test_a_higher_price_and_more_failures_never_cost_less(options, tokens, factor):
    plain = training_run(job(), tokens, **options)
    group = Instances("p4d.24xlarge", 2, 20.0 * factor)
    dearer = training_run(Job((group,), 16, GlobalThroughput(1e5)), tokens, **options)
    assert dearer.usd >= plain.usd * (1 - 1e-9)
    r = options["reliability"]
    often = Reliability(
        r.mean_time_between_failures_s / factor, r.checkpoint_s, restart_s=r.restart_s
    )
    interval = options["interval_s"] or daly_interval_s(r)
    again = {**options, "reliability": often, "interval_s": interval}
    assert training_run(job(), tokens, **again).usd >= plain.usd * (1 - 1e-9)


def test_the_bill_of_failures_agrees_with_a_simulated_job():
    """Shares of the time by what it went into, closed form against event by event: within 2 % of the whole."""
    interval = daly_interval_s(FLAKY)
    run = training_run(job(), 1e12, reliability=FLAKY)
    seen = simulate(FLAKY, interval, failures=50_000)
    assert run.bill.share("training") == pytest.approx(seen.goodput, abs=0.02)
    assert run.bill.share("checkpoint pauses") == pytest.approx(seen.checkpoints, abs=0.02)
    assert run.bill.share("failures") == pytest.approx(seen.lost_work + seen.recovery, abs=0.02)


@few
@given(st.integers(1, 9), st.floats(0.01, 5), st.floats(0.0, 400))
def test_checkpoints_lie_there_until_newer_ones_push_them_out(kept, every, hours):
    written = math.floor(hours / every)
    one_by_one = math.fsum(
        min(kept * every, max(0.0, hours - i * every)) for i in range(1, written + 1)
    )
    assert checkpoint_bytes_hours(7.0, kept, every, hours) == pytest.approx(
        7.0 * one_by_one, rel=1e-9, abs=1e-9
    )


def test_storage_by_hand():
    """1 TiB for a month of 730 hours at a made-up 0.02 USD a GB-month; 10 GB sent at a made-up 0.1."""
    assert PRICES.keeping(2**40 * 730) == pytest.approx(1024 * 0.02)
    assert PRICES.sending(10e9) == pytest.approx(1.0)
    run = training_run(job(), 1e10, kept=KEPT, prices=PRICES)
    hours = 1e10 / 1e5 / 3600
    parts = run.bill.parts
    assert parts["checkpoint storage"] == 0
    assert parts["data storage"] == pytest.approx(PRICES.keeping(2e12 * (24 + hours)))
    assert parts["weights storage"] == pytest.approx(16e9 / 2**30 * 0.02)
    assert parts["transfer"] == pytest.approx(1.6)


def test_what_a_model_leaves_in_storage():
    kept = Kept.of_model(8e9, 1e12)
    assert (kept.checkpoint_bytes, kept.data_bytes) == (96e9, 4e12)
    assert kept.weights_bytes == kept.sent_bytes == 16e9


@few
@given(st.floats(0, 1e10), st.floats(0, 1e13), st.floats(1, 730), shares)
def test_a_month_of_a_service_is_its_hours_and_what_lies_there(weights, sent, hours, duty):
    hour = PaidHours(3.0, 2, 1, duty, 0.99)
    month = service_month(hour, PRICES, weights_bytes=weights, sent_bytes=sent, hours=hours)
    rest = PRICES.keeping(weights * 730) + PRICES.sending(sent)
    assert month.usd == pytest.approx(3.0 * hours + rest)
    assert month.parts["used"] == pytest.approx(3.0 * hours * 0.5 * duty * 0.99)


@few
@given(st.integers(1, 64), st.integers(1, 64), shares, shares, st.floats(0, 1e3))
def test_a_used_hour_costs_the_paid_one_over_what_is_used(devices, used, duty, goodput, price):
    hour = PaidHours(price, max(devices, used), used, duty, goodput)
    assert hour.bill.usd == pytest.approx(price, rel=1e-9, abs=1e-12)
    assert hour.bill.parts["used"] == pytest.approx(price * hour.used)
    in_all = hour.usd_per_device_hour_used * hour.devices * hour.used
    assert in_all == pytest.approx(price)
    assert hour.usd_per_device_hour_used >= hour.usd_per_device_hour_paid * (1 - 1e-12)
    worse = PaidHours(price, hour.devices, used, duty / 2, goodput)
    assert worse.usd_per_device_hour_used == pytest.approx(2 * hour.usd_per_device_hour_used)


def test_hours_of_a_job():
    half = PaidHours.of(job(ranks=8), duty_cycle=0.5, goodput=0.9)
    assert (half.devices, half.devices_in_use, half.used) == (16, 8, pytest.approx(0.225))
    cpu = PaidHours.of(Job((Instances("c5.large", 3),), 6, GlobalThroughput(1.0)))
    assert (cpu.devices, cpu.used) == (3, 1.0)


@few
@given(st.dictionaries(st.text("abc", min_size=1), st.floats(0, 1e6), min_size=1), shares)
def test_a_bill_is_its_parts_in_every_measure(parts, tokens):
    bill = Bill(parts)
    assert bill.usd == pytest.approx(sum(parts.values()))
    assert bill.per_million(tokens).usd == pytest.approx(bill.usd / tokens * 1e6)
    if bill.usd:
        assert sum(map(bill.share, parts)) == pytest.approx(1.0)


def test_the_dated_price_of_a_region(folders):
    assert rented("g5.xlarge", 2).usd_per_hour == pytest.approx(
        2 * instance("g5.xlarge").price_usd_per_hour.value
    )
    assert rented("g5.xlarge") == Instances(
        "g5.xlarge", 1, instance("g5.xlarge").price_usd_per_hour.value
    )


EUROS = made_up(0.02, "EUR/GB-month")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: StoragePrices(EUROS, PRICES.transfer_out), "storage is in EUR .* in USD"),
        (lambda: StoragePrices(PRICES.storage, PRICES.storage), "transfer_out is a price per GB-m"),
        (lambda: usd(made_up(1.0, "USD"), "USD/h", "owned"), "owned is a price per nothing"),
        (lambda: StoragePrices.of("mars-north-1"), "region 'mars-north-1'"),
        (lambda: StoragePrices.of(storage="s3/attic/storage"), "item 's3/attic/storage'"),
        (lambda: rented("g99.xlarge"), "type is 'g99.xlarge'"),
        (lambda: rented("g5.xlarge", region="mars-north-1"), "region 'mars-north-1'"),
        (lambda: rented("g5.xlarge", kind="gift"), "kind 'gift'"),
        (lambda: rented("g5.xlarge", 0), "count is 0"),
        (lambda: Instances("g5.xlarge", 1, -1.0), "price_usd_per_hour is -1.0"),
        (lambda: Bill({"rent": -1.0}), "part 'rent' .* is -1.0"),
        (lambda: Bill({"rent": 1.0}).share("food"), "no part 'food'; it has rent"),
        (lambda: Bill({"rent": 0.0}).share("rent"), "0 USD"),
        (lambda: Bill({"rent": 1.0}).per_million(0), "tokens is 0"),
        (lambda: Kept(-1.0), "checkpoint_bytes is -1.0"),
        (lambda: Kept(1.0, 0), "checkpoints_kept is 0"),
        (lambda: training_run(job(), 0.0), "tokens is 0.0"),
        (lambda: training_run(job(), 1e9, kept=KEPT), "kept and prices go together"),
        (lambda: training_run(job(), 1e9, interval_s=60.0), "interval_s is given without"),
        (
            lambda: training_run(job(), 1e9, reliability=FLAKY, interval_s=1e8),
            "the run never ends",
        ),
        (lambda: training_run(job(), 1e9, reliability=FLAKY, interval_s=0.0), "interval_s is 0"),
        (
            lambda: service_month(PaidHours(1.0, 1, 1), PRICES, weights_bytes=-1, sent_bytes=0),
            "weights_bytes is -1",
        ),
        (
            lambda: service_month(
                PaidHours(1.0, 1, 1), PRICES, weights_bytes=0, sent_bytes=0, hours=731
            ),
            "hours is 731",
        ),
        (lambda: PaidHours(-1.0, 1, 1), "usd_per_hour is -1.0"),
        (lambda: PaidHours(1.0, 1, 2), "devices_in_use is 2 and devices is 1"),
        (lambda: PaidHours(1.0, 0, 0), "devices is 0"),
        (lambda: PaidHours(1.0, 1, 1, duty_cycle=0.0), "duty_cycle is 0.0"),
        (lambda: PaidHours(1.0, 1, 1, goodput=1.1), "goodput is 1.1"),
        (
            lambda: PaidHours.of(Job((Instances("our server", 1, 1.0),), 1, GlobalThroughput(1.0))),
            "how many accelerators our server",
        ),
    ],
)
def test_what_cannot_be_is_named(make, named):
    with pytest.raises(UserError, match=named):
        make()
