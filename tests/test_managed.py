"""What managed costs beyond the machine: premiums from sourced prices, jobs by every way, laws that hold for all."""

import math

import pytest
from hypothesis import given, strategies as st

from smml.cost.managed import Premium, job_usd, premium, premiums
from smml.cost.steps.fourteen import STEPS
from smml.cost.steps.project import Project
from smml.course import managed as shown
from smml.data import limits
from smml.data.prices import price
from smml.data.services import services
from smml.errors import UserError


def test_premiums_are_those_of_both_price_lists():
    found = premiums()
    assert found
    for one in found:
        assert one.managed_usd_per_hour == price(f"sagemaker/ml.{one.instance}").value
        assert one.rented_usd_per_hour == price(one.instance).value
        assert 1 < one.ratio < 2
        assert premium(one.instance) == one


def test_a_price_without_a_source_is_named():
    with pytest.raises(UserError, match=r"sagemaker/ml\.x1e"):
        premium("x1e.xlarge")
    with pytest.raises(UserError, match=r"no price of x1e\.99xlarge is known"):
        job_usd(1e6, "x1e.99xlarge", "eu-west-1")


PREMIUMS = st.builds(
    lambda rent, more: Premium("any", rent, rent + more), st.floats(0.01, 50), st.floats(0.001, 50)
)


@given(PREMIUMS, st.floats(0.1, 500), st.floats(1, 500))
def test_at_the_crossing_work_and_premium_cost_the_same(one, hours, pay):
    machines = one.machines_until(hours, pay)
    assert one.usd_per_month(machines) == pytest.approx(hours * pay)
    assert one.machines_until(2 * hours, pay) == pytest.approx(2 * machines)


@given(PREMIUMS, st.floats(1, 1000), st.floats(0.1, 730))
def test_the_premium_rises_with_machines_and_time(one, machines, hours):
    assert one.usd_per_month(2 * machines, hours) >= one.usd_per_month(machines, hours)
    assert one.usd_per_month(machines) >= one.usd_per_month(machines, hours)


def test_without_a_premium_managed_is_never_dearer():
    assert Premium("any", 1.0, 1.0).machines_until(1, 1) == math.inf
    with pytest.raises(UserError, match="work_hours is 0"):
        Premium("any", 1.0, 2.0).machines_until(0, 1)


def test_a_job_by_hand():
    usd = job_usd(600, "g5.xlarge")
    assert usd["EC2"] == pytest.approx(price("g5.xlarge").value / 6)
    assert usd["SageMaker"] == pytest.approx(price("sagemaker/ml.g5.xlarge").value / 6)
    gib = limits.limit("lambda_memory_per_vcpu").value / 2**30
    rate, request = price("lambda/x86/duration").value, price("lambda/x86/request").value
    assert usd["Lambda"] == pytest.approx(gib * 600 * rate + request)


def test_a_short_job_pays_the_minimum_on_ec2_and_a_long_one_leaves_lambda_out():
    minute = limits.limit("ec2_minimum_bill").value
    assert job_usd(1, "g5.xlarge")["EC2"] == job_usd(minute, "g5.xlarge")["EC2"]
    assert "Lambda" in job_usd(limits.limit("lambda_timeout").value, "g5.xlarge")
    assert "Lambda" not in job_usd(limits.limit("lambda_timeout").value + 1, "g5.xlarge")
    assert "Lambda" not in job_usd(1, "g5.xlarge", memory_bytes=2e10)
    with pytest.raises(UserError, match="run_s is 0"):
        job_usd(0, "g5.xlarge")


@given(st.floats(0.01, 1e5), st.floats(1, 10))
def test_a_longer_job_never_costs_less(run_s, factor):
    short, long = job_usd(run_s, "m5.xlarge"), job_usd(run_s * factor, "m5.xlarge")
    assert all(long[way] >= short[way] for way in long)


def test_tables_show_every_step_and_everything_that_ended():
    assert shown.when().data.count("\n") == len(STEPS) + 1
    table = shown.ended().data
    for row in services().values():
        assert (f"\n| {row.name} |" in table) == (row.status != "available")
    text, requests = shown.checked(Project())
    assert text.data.count("| valid |") == len(STEPS)
    assert len(requests) == sum(len(s.requests(Project())) for s in STEPS)
    assert "$" not in text.data.replace(r"\$", "")


def test_steps_run_in_order_in_one_folder(tmp_path):
    text, took = shown.run_here(tmp_path, STEPS[2:5])
    assert list(took) == ["data storage", "preprocessing", "model framework"]
    assert "464,970 tokens" in text.data


def test_the_figure_marks_every_crossing_that_is_on_it():
    lines = [Premium("a", 1.0, 1.4), Premium("b", 0.2, 0.23)]
    axis = shown.premium_over_machines(lines, 1600, "t").axes[0]
    stars = [line for line in axis.lines if line.get_marker() == "*"]
    assert [s.get_xdata()[0] for s in stars] == [
        pytest.approx(one.machines_until(20, 80)) for one in lines
    ]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    assert "USD" in axis.get_ylabel()
