"""Which way to buy: the cheapest that is allowed, and the reason for every other one."""

import datetime
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st
from test_owned import READER, SERVER

from smml.cost.buying import choose as buy
from smml.cost.buying.choose import Interruptible, choose_purchase
from smml.cost.buying.demand import Demand, monthly, weekly
from smml.cost.buying.options import Commitment, OnDemand, cost
from smml.cost.buying.owned import owned
from smml.data import Quantity, instances
from smml.data.prices import PriceRow, price, prices, regions
from smml.data.purchase_terms import term
from smml.errors import UserError

WORK = Interruptible(checkpoint_s=60, restart_s=300)
EVERYTHING = {
    "on-demand": 10.0,
    "spot": 3.0,
    "savings-plan-compute-1y": 7.0,
    "savings-plan-compute-3y": 5.0,
    "savings-plan-instance-1y": 6.5,
    "savings-plan-instance-3y": 4.5,
    "reserved-1y": 6.4,
    "reserved-3y": 4.4,
    "capacity-block": 8.0,
}


def rows(region="us-east-1", **kinds):
    """Made-up prices of p5.48xlarge."""
    return [
        PriceRow(
            item="p5.48xlarge",
            region=region,
            kind=kind,
            price=Quantity(
                value=value,
                unit="USD/h",
                source="made up",
                url="https://example.org",
                date=datetime.date(2026, 1, 1),
                checked=True,
            ),
            origin="prices.toml",
        )
        for kind, value in kinds.items()
    ]


@pytest.fixture
def made(monkeypatch):
    """Every kind of offer of one type, at made-up prices, a tenth of the instances taken back a month."""

    def set_prices(**kinds):
        monkeypatch.setattr(buy, "prices", lambda region: rows(region, **kinds))
        monkeypatch.setattr(
            buy, "interruption_rate", lambda name, region: type("Band", (), {"high": 0.1})
        )

    set_prices(**EVERYTHING)
    return set_prices


@pytest.mark.usefixtures("made")
class TestOneOfEach:
    @pytest.mark.parametrize(
        ("hours", "months", "work", "name"),
        [
            (100, 12, WORK, "spot"),
            (2, 12, None, "on-demand"),
            (700, 12, None, "reserved-1y"),
            (700, 36, None, "reserved-3y"),
            (24 * 14, 0.5, None, "capacity block"),
        ],
    )
    def test_the_choice_by_use_and_horizon(self, hours, months, work, name):
        decision = choose_purchase("p5.48xlarge", monthly(hours), months, interruptible=work)
        assert decision.choice.option.name == name
        assert decision.price.usd == pytest.approx(decision.choice.usd / months)
        assert len(decision.rejected) == len(EVERYTHING), decision.explain()

    @settings(max_examples=40, deadline=None)
    @given(
        st.floats(1, 730), st.sampled_from([0.5, 1, 5.5, 12, 36]), st.integers(1, 9), st.booleans()
    )
    def test_never_dearer_than_what_is_feasible(self, hours, months, number, may_stop):
        demand = monthly(hours, number)
        work = WORK if may_stop else None
        decision = choose_purchase("p5.48xlarge", demand, months, interruptible=work, owned=SERVER)
        plans = [
            Commitment(kind, usd, EVERYTHING["on-demand"], 12 if "1y" in kind else 36, size)
            for kind, usd in EVERYTHING.items()
            if kind[-1] == "y"
            for size in range(1, number + 1)
        ]
        others = [OnDemand(EVERYTHING["on-demand"]), SERVER, *plans]
        assert decision.choice.usd <= min(cost(one, demand, months) for one in others) * (1 + 1e-9)
        for entry in decision.rejected:
            assert entry.why

    def test_spot_is_out_where_work_may_not_stop(self):
        decision = choose_purchase("p5.48xlarge", monthly(100), 1)
        assert "may not be interrupted" in decision.why_not("spot")
        assert not any(entry.feasible for entry in decision.rejected if entry.option == "spot")

    def test_spot_is_out_where_repeated_work_does_not_fit(self):
        slow = Interruptible(checkpoint_s=600, restart_s=3600)
        decision = choose_purchase("p5.48xlarge", monthly(729), 1, interruptible=slow)
        assert "it would not be done in time" in decision.why_not("spot")

    def test_a_block_is_out_beyond_its_longest(self):
        decision = choose_purchase("p5.48xlarge", monthly(730), 7)
        assert f"lasts {term('capacity_block_longest').value:g} at most" in decision.why_not(
            "capacity block"
        )

    def test_a_plan_covers_what_is_always_used_and_no_more(self):
        day = Demand([8.0] * 6 + [3.0] * 18)
        choice = choose_purchase("p5.48xlarge", day, 36).choice
        assert isinstance(choice.option, Commitment)
        assert choice.option.instances == 3

    def test_the_turning_point_is_where_the_costs_are_equal(self):
        decision = choose_purchase("p5.48xlarge", monthly(730), 12)
        assert decision.reasons[-1].startswith("Turning point: below 467 hours a month (64%)")
        plan, rent = decision.choice.option, OnDemand(EVERYTHING["on-demand"])
        there = monthly(730 * EVERYTHING["reserved-1y"] / EVERYTHING["on-demand"])
        assert cost(plan, there, 12) == pytest.approx(cost(rent, there, 12))

    def test_dear_money_turns_from_owning_to_renting(self):
        demand, server = (
            monthly(500),
            replace(SERVER, people_usd_per_month=0, price_usd=50_000, space_usd_per_kw_month=50),
        )
        assert choose_purchase("p5.48xlarge", demand, 48, owned=server).choice.option is server
        dear = choose_purchase("p5.48xlarge", demand, 48, owned=server, discount_rate=0.9)
        assert dear.choice.option is not server
        assert "worth" in dear.reasons[0]


def test_a_kind_without_a_price_is_said_and_left_out(made):
    made(**{"on-demand": 10.0})
    decision = choose_purchase("p5.48xlarge", monthly(700), 36)
    assert decision.choice.option.name == "on-demand"
    for kind in (
        "compute savings plan",
        "instance savings plan",
        "reserved instances",
        "capacity block",
    ):
        assert decision.why_not(kind) == "no sourced price of p5.48xlarge in us-east-1"


def test_a_plan_without_an_on_demand_price_covers_the_peak(made):
    made(**{"savings-plan-compute-1y": 7.0})
    decision = choose_purchase("p5.48xlarge", monthly(100, 3), 12)
    assert decision.choice.option.instances == 3
    assert decision.why_not("on-demand")


def test_nothing_will_do(made):
    made(**{"spot": 1.0})
    decision = choose_purchase("p5.48xlarge", monthly(10), 1)
    assert decision.choice is None
    assert any("may not be interrupted" in reason for reason in decision.reasons)


@pytest.mark.parametrize(
    "name", [name for name in instances() if name.startswith(("g5.", "p5", "m5."))]
)
def test_real_prices_of_the_catalogue(name):
    decision = choose_purchase(name, weekly([9] * 5 + [0, 0]), 12, interruptible=WORK)
    held = {row.kind for row in prices(region="us-east-1") if row.item == name}
    if "on-demand" in held:
        assert decision.choice is not None
        rent = price(name, "us-east-1").value
        demand = weekly([9] * 5 + [0, 0])
        assert decision.choice.usd <= cost(OnDemand(rent), demand, 12) * (1 + 1e-9)
    else:
        assert "no sourced price" in decision.why_not("on-demand")
    assert decision.explain()


def test_types_without_blocks_and_regions_without_them():
    assert choose_purchase("g5.xlarge", monthly(10), 1).why_not("capacity block") == (
        "g5.xlarge has no Capacity Blocks"
    )
    if "eu-west-1" not in regions():
        pytest.skip("no price of eu-west-1 is held; run `smml prices refresh`")
    assert "eu-west-1 has no Capacity Blocks of p5.48xlarge" in choose_purchase(
        "p5.48xlarge", monthly(10), 1, region="eu-west-1"
    ).why_not("capacity block")


def test_withdrawn_types_are_not_bought():
    name = next(entry.name for entry in instances().values() if entry.status == "withdrawn")
    decision = choose_purchase(name, monthly(10), 1)
    assert decision.choice is None
    assert "withdrawn" in decision.why_not(name)


def test_owned_needs_its_own_figures():
    without = choose_purchase("g5.xlarge", monthly(10), 1)
    assert "yours to state" in without.why_not("owned")
    server = owned("dgx-h100", **READER)
    held = choose_purchase("p5.48xlarge", monthly(10), 1, owned=server)
    assert "times the price of" in held.why_not(server.name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"instance_type": "g5.huge"}, "does not hold 'g5.huge'.*g5.xlarge"),
        ({"region": "mars-north-1"}, "no price is known in 'mars-north-1'"),
        ({"months": 0}, "months is 0"),
        ({"discount_rate": -2}, "discount_rate is -2"),
        ({"demand": monthly(0)}, "0 in every hour"),
    ],
)
def test_what_is_wrong_is_named(change, words):
    given_ = {"instance_type": "g5.xlarge", "demand": monthly(10), "months": 1} | change
    with pytest.raises(UserError, match=words):
        choose_purchase(**given_)


def test_the_reader_says_how_often_spot_is_taken_back():
    demand = monthly(100)
    work = replace(WORK, taken_back=0.2)
    decision = choose_purchase("g5.xlarge", demand, 1, interruptible=work)
    assert decision.choice.option.name == "spot"
    assert decision.choice.option.goodput < 1
    assert decision.choice.option.usd_per_hour < price("g5.xlarge").value
    often = choose_purchase(
        "g5.xlarge", demand, 1, interruptible=replace(WORK, taken_back=0.9)
    ).choice
    assert often.usd > decision.choice.usd
    with pytest.raises(UserError, match="taken_back is 1"):
        replace(WORK, taken_back=1)


def test_spot_without_a_known_rate_is_left_out(monkeypatch):
    def unknown(name, region):
        raise UserError("unknown")

    monkeypatch.setattr(buy, "interruption_rate", unknown)
    decision = choose_purchase("g5.xlarge", monthly(100), 1, interruptible=WORK)
    assert "no source says how often" in decision.why_not("spot")
