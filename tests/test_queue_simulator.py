"""The simulators against closed forms and against each other; more servers never mean longer waits."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from smml.cost.scaling import queueing
from smml.cost.scaling.arrivals import Traffic, arrivals
from smml.cost.scaling.fleet import Observed, scaled
from smml.cost.scaling.queue_simulator import fixed, per_request
from smml.errors import UserError

few = settings(max_examples=40, deadline=None)
traces = st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 10)), min_size=1, max_size=60)


def trace(pairs):
    gaps, services = np.array(pairs).T
    return np.cumsum(gaps), services


class Stay:
    """A scaler that never changes anything."""

    def __init__(self, servers):
        self.servers = servers

    def desired(self, observed):
        return self.servers


class Play:
    """A scaler that wants what a list says, then the last of it."""

    def __init__(self, wishes):
        self.wishes, self.seen = list(wishes), []

    def desired(self, observed: Observed):
        self.seen.append(observed)
        return self.wishes[min(len(self.seen), len(self.wishes)) - 1]


# ------------------------------------------------------------------------------------------------- closed forms


def test_erlang_agrees_with_published_values():
    # Tables of Erlang B: 10 servers at 5 erlangs block 1.84 %; Erlang C follows from it.
    assert queueing.erlang_b(10, 5.0) == pytest.approx(0.018385, rel=1e-4)
    assert queueing.erlang_c(1, 0.6) == pytest.approx(0.6)
    assert queueing.erlang_c(2, 1.0) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (2, 1.2), (4, 2.6), (8, 5.2)])
def test_simulated_waits_are_those_of_erlang_c(servers, load):
    service = 2.0
    rate = load / service
    arrived = arrivals(Traffic(rate), 600_000 / rate, seed=11)
    services = np.random.default_rng(7).exponential(service, len(arrived))
    found = fixed(arrived, services, servers)
    # The load that the trace really has, not the one it was drawn for: half of the noise is there.
    rate, service = len(arrived) / arrived[-1], services.mean()
    load = rate * service
    assert found.wait_s.mean() == pytest.approx(
        queueing.mean_wait_s(rate, service, servers), rel=0.02
    )
    assert found.quantile_s(0.99) == pytest.approx(
        queueing.response_quantile_s(0.99, rate, service, servers), rel=0.02
    )
    assert (found.wait_s > 0).mean() == pytest.approx(queueing.erlang_c(servers, load), rel=0.02)


def test_simulated_waits_are_those_of_m_d_1():
    arrived = arrivals(Traffic(0.7), 600_000 / 0.7, seed=2)
    found = fixed(arrived, np.ones(len(arrived)), 1)
    assert found.wait_s.mean() == pytest.approx(
        queueing.mean_wait_one_server_s(0.7, 1.0, 0.0), rel=0.02
    )


@few
@given(st.integers(1, 30), st.floats(0.05, 0.98), st.floats(0.1, 100))
def test_closed_forms_agree_with_each_other(servers, share, service):
    rate = share * servers / service
    mean = queueing.mean_wait_s(rate, service, servers)
    assert mean >= queueing.mean_wait_s(rate, service, servers + 1)
    p99 = queueing.response_quantile_s(0.99, rate, service, servers)
    assert p99 >= queueing.response_quantile_s(0.9, rate, service, servers)
    assert p99 >= -service * math.log(0.01) * (1 - 1e-9)
    assert p99 >= queueing.wait_quantile_s(0.99, rate, service, servers)
    if servers == 1:
        assert mean == pytest.approx(queueing.mean_wait_one_server_s(rate, service, 1.0))
        assert p99 == pytest.approx(-math.log(0.01) / (1 / service - rate), rel=1e-6)


@few
@given(st.floats(0.01, 20), st.floats(0.1, 5), st.floats(1.1, 10))
def test_fewest_servers_is_enough_and_one_less_is_not(rate, service, slack):
    target = -service * math.log(0.01) * slack
    servers = queueing.fewest_servers(rate, service, target)
    assert queueing.response_quantile_s(0.99, rate, service, servers) <= target
    if servers - 1 > rate * service:
        assert queueing.response_quantile_s(0.99, rate, service, servers - 1) > target


def test_a_day_is_what_its_hours_are():
    same = queueing.day_response_quantile_s(0.99, [0.8] * 4, 2.0, [3] * 4)
    assert same == pytest.approx(queueing.response_quantile_s(0.99, 0.8, 2.0, 3))
    mixed = queueing.day_response_quantile_s(0.99, [0.2, 1.4], 2.0, [3, 3])
    quiet, busy = (queueing.response_quantile_s(0.99, rate, 2.0, 3) for rate in (0.2, 1.4))
    assert quiet < mixed < busy
    traffic = Traffic(0.5, 2.5)
    arrived = arrivals(traffic, seed=4)
    services = np.random.default_rng(4).exponential(2.0, len(arrived))
    rates = traffic.rate_per_s(np.arange(150.0, 86_400, 300.0))
    predicted = queueing.day_response_quantile_s(0.99, list(rates), 2.0, [4] * len(rates))
    assert fixed(arrived, services, 4).quantile_s(0.99) == pytest.approx(predicted, rel=0.05)


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="3 or more"):
        queueing.erlang_c(2, 2.0)
    with pytest.raises(UserError, match="service alone"):
        queueing.fewest_servers(1.0, 1.0, 2.0)
    with pytest.raises(UserError, match="quantile"):
        queueing.wait_quantile_s(1.0, 1.0, 0.5, 1)


# ---------------------------------------------------------------------------------------------------- properties


@few
@given(traces, st.integers(1, 4))
def test_one_server_more_never_lengthens_a_wait(pairs, servers):
    arrived, services = trace(pairs)
    less, more = (fixed(arrived, services, n) for n in (servers, servers + 1))
    assert (more.wait_s <= less.wait_s + 1e-9).all()


@few
@given(traces, st.integers(1, 3), st.data())
def test_a_request_less_never_lengthens_the_others_waits(pairs, servers, data):
    arrived, services = trace(pairs)
    gone = data.draw(st.integers(0, len(arrived) - 1))
    whole = fixed(arrived, services, servers)
    rest = fixed(np.delete(arrived, gone), np.delete(services, gone), servers)
    assert (rest.wait_s <= np.delete(whole.wait_s, gone) + 1e-9).all()


@few
@given(traces, st.integers(1, 4), st.none() | st.integers(0, 3))
def test_a_fleet_that_stays_is_the_fixed_one(pairs, servers, limit):
    arrived, services = trace(pairs)
    plain = fixed(arrived, services, servers, queue_limit=limit)
    fleet = scaled(arrived, services, Stay(servers), servers=servers, queue_limit=limit)
    assert np.allclose(fleet.wait_s, plain.wait_s, atol=1e-9)
    assert fleet.rejected == plain.rejected
    assert fleet.server_s == pytest.approx(plain.server_s)
    assert fleet.cold_starts == 0


@few
@given(traces, st.lists(st.integers(0, 4), min_size=1, max_size=8), st.floats(0, 30))
def test_every_request_is_served_once_and_every_server_is_paid(pairs, wishes, cold):
    arrived, services = trace(pairs)
    found = scaled(
        arrived, services, Play([*wishes, 1]), servers=1, cold_start_s=cold, period_s=7.0
    )
    assert len(found.wait_s) == len(arrived)
    assert (found.wait_s >= 0).all()
    assert found.busy_s <= found.server_s + 1e-6
    levels = np.array(found.capacity)
    area = (levels[:-1, 1] * np.diff(levels[:, 0])).sum()
    assert area == pytest.approx(found.server_s)
    dearer = scaled(
        arrived, services, Play([*wishes, 1]), cold_start_s=cold, period_s=7.0, minimum_bill_s=60.0
    )
    assert dearer.server_s >= found.server_s
    assert dearer.usd(2.0) >= found.usd(1.0)


@few
@given(traces, st.floats(0, 20), st.floats(0.5, 50))
def test_a_server_a_request_waits_only_for_its_start(pairs, cold, warm):
    arrived, services = trace(pairs)
    found = per_request(arrived, services, cold, warm)
    assert set(np.round(found.wait_s, 9)) <= {0.0, round(cold, 9)}
    assert found.server_s == pytest.approx(services.sum() + found.cold_starts * cold)
    longer = per_request(arrived, services, cold, 1e9)
    assert longer.cold_starts <= found.cold_starts
    assert per_request(arrived, services, 0.0, warm, concurrency=1).rejected >= 0


# -------------------------------------------------------------------------------------------- what one can follow


def test_a_cold_start_is_waited_for_and_paid():
    # Nothing runs; at 60 s two are wanted, at 100 s they are ready.
    arrived, services = np.array([10.0, 20.0, 30.0]), np.array([5.0, 5.0, 5.0])
    found = scaled(arrived, services, Play([2]), servers=0, cold_start_s=40.0)
    assert found.wait_s.tolist() == [90.0, 80.0, 75.0]
    assert found.cold_starts == 2
    assert found.server_s == 2 * 50.0  # launched at 60, the last departure at 110


def test_what_a_monitor_reports():
    scaler = Play([1])
    arrived, services = np.array([0.0, 10.0, 20.0]), np.array([30.0, 30.0, 30.0])
    scaled(arrived, services, scaler, servers=1, period_s=60.0, until_s=180.0)
    first, second, *_ = scaler.seen
    assert (first.running, first.queue_depth, first.arrived) == (1, 1 - 1, 3)
    assert (first.utilization, second.utilization) == (1.0, 0.5)


def test_a_busy_server_that_leaves_finishes_first():
    found = scaled(np.array([59.0]), np.array([20.0]), Play([0]), servers=1, until_s=200.0)
    assert found.wait_s.tolist() == [0.0]
    assert found.server_s == 79.0
    assert found.capacity[-2:] == ((79.0, 0), (200.0, 0)) or found.capacity[1] == (79.0, 0)


def test_a_queue_limit_rejects():
    arrived, services = np.zeros(5), np.ones(5)
    assert fixed(arrived, services, 1, queue_limit=2).rejected == 2
    assert fixed(arrived, services, 2, queue_limit=0).rejected == 3


def test_who_waits_for_ever_is_told():
    with pytest.raises(UserError, match="step scaling policy"):
        scaled(np.array([1.0]), np.array([1.0]), Play([0]), servers=0)


@pytest.mark.parametrize(
    ("arrived", "services", "says"),
    [
        ([1.0, 0.5], [1.0, 1.0], "sorted"),
        ([-1.0], [1.0], "sorted"),
        ([1.0], [0.0], "service_s"),
        ([1.0, 2.0], [1.0], "one service time a request"),
    ],
)
def test_what_is_no_trace_is_refused(arrived, services, says):
    with pytest.raises(UserError, match=says):
        fixed(np.array(arrived), np.array(services), 1)


def test_bad_numbers_are_refused_by_name():
    one = np.array([1.0])
    with pytest.raises(UserError, match="servers"):
        fixed(one, one, 0)
    with pytest.raises(UserError, match="period_s"):
        scaled(one, one, Stay(1), period_s=0)
    with pytest.raises(UserError, match="cold_start_s"):
        scaled(one, one, Stay(1), cold_start_s=-1)
    with pytest.raises(UserError, match="usd_per_hour"):
        fixed(one, one, 1).usd(-1)
    with pytest.raises(UserError, match="no request"):
        fixed(np.array([]), np.array([]), 1).quantile_s(0.5)
