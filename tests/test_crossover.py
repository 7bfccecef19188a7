"""Services by traffic: at a crossover both cost the same, costs never fall with load, the impossible is refused."""

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from smml.cost.decisions.deployment import Deployment, lambda_usd_per_request
from smml.cost.scaling.crossover import Curve, cheapest, crossover, curves
from smml.data.prices import price
from smml.errors import UserError

few = settings(max_examples=60, deadline=None)
fewer = settings(max_examples=15, deadline=None)
amounts = st.floats(0.0, 1e4)
slopes = st.floats(1e-9, 1e-2)
made = st.builds(Curve, st.just("made"), st.just("up"), amounts, slopes)
# Made-up workloads: nothing below is a claim about a service.
SMALL = Deployment(memory_bytes=2e9, requests_per_month=1e5, work_seconds_per_request=0.5)
deployments = st.builds(
    Deployment,
    memory_bytes=st.floats(1e8, 9e9),
    requests_per_month=st.floats(1, 1e9),
    work_seconds_per_request=st.floats(0.01, 20),
)


@few
@given(made, made)
def test_at_the_crossover_both_cost_the_same_and_the_cheaper_one_changes(one, other):
    turn = crossover(one, other)
    assert turn == crossover(other, one)
    if turn is None:
        dearer = [one.usd(n) - other.usd(n) for n in (0.0, 1.0, 1e3, 1e6, 1e9, 1e13)]
        assert all(d >= -1e-9 for d in dearer) or all(d <= 1e-9 for d in dearer)
        return
    assert one.usd(turn) == pytest.approx(other.usd(turn))
    before, after = (
        one.usd(0.5 * turn) - other.usd(0.5 * turn),
        one.usd(9 * turn) - other.usd(9 * turn),
    )
    assert before * after <= 0


@fewer
@given(deployments, st.floats(0.2, 1.0), st.integers(0, 3))
def test_costs_never_fall_with_load_and_crossovers_hold(wanted, utilization, minimum):
    found, _ = curves(wanted, utilization=utilization, minimum=minimum)
    assert {curve.service for curve in found} <= {"Lambda", "Fargate", "EC2", "SageMaker"}
    traffic = [0.0, 1e2, 1e4, 1e6, 1e8]
    for curve in found:
        usd = [curve.usd(n) for n in traffic]
        assert usd == sorted(usd)
        assert curve.usd_per_request > 0
    for one in found:
        for other in found:
            turn = crossover(one, other)
            if turn is not None:
                assert one.usd(turn) == pytest.approx(other.usd(turn))


@fewer
@given(deployments, st.floats(1.0, 10.0))
def test_the_cheapest_is_the_cheapest_and_more_traffic_costs_no_less(wanted, factor):
    decision = cheapest(wanted)
    found, _ = curves(wanted)
    assert decision.price.usd == pytest.approx(min(c.usd(wanted.requests_per_month) for c in found))
    more = cheapest(replace(wanted, requests_per_month=factor * wanted.requests_per_month))
    assert more.price.usd >= decision.price.usd * (1 - 1e-9)


def test_lambda_is_priced_as_everywhere_else():
    found = {curve.service: curve for curve in curves(SMALL)[0]}
    # 0.5 s at 1.07 vCPU is no whole number of milliseconds: at most one of them is added.
    step = price("lambda/x86/duration").value * 2e9 / 2**30 * 1e-3
    exact = lambda_usd_per_request(SMALL)
    assert exact <= found["Lambda"].usd_per_request <= exact + step
    assert found["Lambda"].floor_usd == 0


def test_a_host_that_is_always_on_costs_its_month():
    found = {curve.service: curve for curve in curves(SMALL, minimum=2)[0]}
    task = price("fargate/x86/vcpu").value + 2 * price("fargate/x86/memory").value
    assert found["Fargate"].floor_usd == pytest.approx(2 * 730 * task)
    # One vCPU at 60 % serves 1.2 requests of 0.5 s a second.
    assert found["Fargate"].usd_per_request == pytest.approx(task / 3600 / 1.2)


def test_gpus_leave_lambda_and_fargate_out_with_the_reason():
    wanted = Deployment(4e9, 1e6, 0.2, needs_accelerator=True, accelerator_memory_bytes=20e9)
    decision = cheapest(wanted)
    assert "GPU" in decision.why_not("Fargate")
    assert "CPUs only" in decision.why_not("Lambda")
    assert decision.choice.service == "EC2"


def test_limits_leave_services_out_with_the_reason():
    large = Deployment(memory_bytes=150e9, requests_per_month=1e5, work_seconds_per_request=1.0)
    decision = cheapest(large)
    assert "at most" in decision.why_not("Lambda")
    assert "no Fargate task" in decision.why_not("Fargate")
    slow = Deployment(memory_bytes=1e9, requests_per_month=10, work_seconds_per_request=2000.0)
    assert "stops it" in cheapest(slow).why_not("Lambda")


def test_a_region_without_prices_is_said():
    decision = cheapest(SMALL, region="mars-north-1")
    assert decision.choice is None
    assert "mars-north-1" in " ".join(decision.reasons)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"utilization": 0}, "utilization"),
        ({"utilization": 60}, "share"),
        ({"minimum": -1}, "minimum"),
    ],
)
def test_bad_input_is_refused_by_name(options, says):
    with pytest.raises(UserError, match=says):
        curves(SMALL, **options)


def test_negative_traffic_is_refused():
    with pytest.raises(UserError, match="requests_per_month"):
        Curve("made", "up", 1.0, 1.0).usd(-1)
