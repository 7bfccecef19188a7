"""Markets: recorded prices held until the next, interruptions drawn at the stated rate, the same for the same seed."""

import math
from datetime import UTC, date, datetime

import numpy as np
import pytest
from hypothesis import given, strategies as st

from smml.cost.decisions.decision import HOURS_PER_MONTH
from smml.cost.spot import market as spot_market
from smml.cost.spot.market import PoolMarket, hourly_rate, recorded
from smml.cost.spot.pools import Pool, pools
from smml.data import Quantity
from smml.data.spot_history import Interruption, SpotPrice, spot_history
from smml.errors import UserError

POOL = Pool("us-east-1", "use1-az1", "g5.xlarge")
OTHER = Pool("us-east-1", "use1-az2", "g5.xlarge")
CITED = {"source": "made up", "url": "https://example.com", "date": date(2026, 1, 1)}


def market(rate=0.01, pool=POOL) -> PoolMarket:
    return PoolMarket(pool, (0.0, 10.0, 24.0), (1.0, 2.0, 0.5), rate, "made up")


def row(pool: Pool, hour: int, usd: float) -> SpotPrice:
    price = Quantity(value=usd, unit="USD/h", checked=True, **CITED)
    at = datetime(2026, 1, 1, hour, tzinfo=UTC)
    place = {"region": pool.region, "zone_id": pool.zone_id}
    return SpotPrice(instance_type=pool.instance_type, at=at, price=price, **place)


@pytest.fixture
def sample(monkeypatch):
    """A recorded day, made up: two pools and a band of 5 to 10 % a month."""
    rows = [row(POOL, 0, 1.0), row(POOL, 6, 3.0), row(OTHER, 2, 0.5)]
    band = Interruption(
        instance_type="g5.xlarge", region="us-east-1", low=0.05, high=0.10, checked=True, **CITED
    )
    monkeypatch.setattr(spot_market, "spot_history", lambda: rows)
    monkeypatch.setattr(spot_market, "interruption_rate", lambda *_: band)


def test_a_price_holds_until_the_next():
    assert [market().price_at(hours) for hours in (0, 9.99, 10, 23, 24, 1000)] == [
        *(1.0, 1.0, 2.0, 2.0, 0.5, 0.5)
    ]
    assert market().usd(8, 26) == pytest.approx(2 * 1.0 + 14 * 2.0 + 2 * 0.5)
    assert market().usd(30, 30) == 0.0


@given(st.lists(st.floats(0, 50), min_size=3, max_size=3))
def test_an_interval_costs_as_much_as_its_parts(hours):
    first, between, last = sorted(hours)
    whole = market().usd(first, last)
    assert market().usd(first, between) + market().usd(between, last) == pytest.approx(whole)
    assert 0.5 * (last - first) - 1e-9 <= whole <= 2.0 * (last - first) + 1e-9


def test_interruptions_come_at_their_rate():
    found = [market(0.02).interruptions(500.0, seed) for seed in range(2000)]
    numbers = np.array([len(times) for times in found])
    assert numbers.mean() == pytest.approx(10, rel=0.02)
    assert numbers.var() == pytest.approx(10, rel=0.1)
    gaps = np.concatenate([np.diff(times) for times in found])
    assert np.concatenate(found).mean() == pytest.approx(250, rel=0.02)
    assert gaps.min() > 0
    assert all(0 <= times[0] <= times[-1] <= 500 for times in found if len(times))


def test_the_same_seed_draws_the_same_and_pools_are_independent():
    times = market(0.1).interruptions(1000, 7)
    assert np.array_equal(times, market(0.1).interruptions(1000, 7))
    assert not np.array_equal(times, market(0.1).interruptions(1000, 8))
    beside = market(0.1, OTHER).interruptions(1000, 7)
    assert len(times) != len(beside) or not np.allclose(times, beside)
    assert len(market(0.0).interruptions(1000, 7)) == 0


@given(st.floats(0, 0.999), st.floats(0, 0.999))
def test_a_monthly_share_is_that_of_an_exponential_and_grows_with_the_rate(one, two):
    assert 1 - math.exp(-hourly_rate(one) * HOURS_PER_MONTH) == pytest.approx(one, abs=1e-12)
    assert (hourly_rate(one) <= hourly_rate(two)) == (one <= two)


def test_recorded_prices_are_replayed_and_bands_are_drawn_from(sample):
    first, second = recorded([POOL, OTHER])
    assert (first.from_hours, first.usd_per_hour) == ((0.0, 6.0), (1.0, 3.0))
    assert (second.from_hours, second.usd_per_hour) == ((0.0,), (0.5,))
    assert first.interruptions_per_hour == pytest.approx(hourly_rate(0.075))
    assert "drawn" in first.basis
    assert "5% to 10%" in first.basis
    low, high = (recorded([POOL], within=end)[0] for end in ("low", "high"))
    assert low.interruptions_per_hour == hourly_rate(0.05)
    assert high.interruptions_per_hour == hourly_rate(0.10)
    assumed = recorded([POOL], monthly_share=0.3)[0]
    assert assumed.interruptions_per_hour == hourly_rate(0.3)
    assert assumed.basis == "assumed: 30% a month"


def test_a_pool_without_a_price_is_left_out(sample):
    unpriced = Pool("us-east-1", "use1-az6", "g5.xlarge")
    assert [found.pool for found in recorded([unpriced, POOL])] == [POOL]
    with pytest.raises(UserError, match=r"no spot price is recorded of g5.xlarge in use1-az6"):
        recorded([unpriced])


def test_the_real_sample_can_be_replayed():
    real = pools("us-east-1", ["g5.xlarge"])
    found = recorded(real, monthly_share=0.1)
    held = {entry.zone_id: entry.price.value for entry in spot_history("g5.xlarge", "us-east-1")}
    assert len(found) >= 3
    assert all(entry.usd_per_hour[-1] == held[entry.pool.zone_id] for entry in found)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"from_hours": ()}, "from_hours has 0 entries and usd_per_hour 3"),
        ({"from_hours": (1.0, 2.0, 3.0)}, "begin at 0 and ascend"),
        ({"from_hours": (0.0, 3.0, 3.0)}, "begin at 0 and ascend"),
        ({"usd_per_hour": (1.0, -1.0, 1.0)}, "give prices above 0"),
        ({"usd_per_hour": (1.0, math.nan, 1.0)}, "give prices above 0"),
        ({"interruptions_per_hour": -0.1}, "interruptions_per_hour is -0.1"),
    ],
)
def test_a_market_that_cannot_be_is_refused(changes, said):
    with pytest.raises(UserError) as error:
        PoolMarket(**(vars(market()) | changes))
    assert said in str(error.value)


def test_other_bad_input_is_named(sample):
    with pytest.raises(UserError, match="hours is 0"):
        market().interruptions(0, 1)
    for share in (-0.1, 1.0, math.nan):
        with pytest.raises(UserError, match="monthly_share"):
            hourly_rate(share)
    open_ended = spot_market.interruption_rate().model_copy(update={"high": 1.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spot_market, "interruption_rate", lambda *_: open_ended)
        with pytest.raises(UserError, match="without an upper end"):
            recorded([POOL], within="high")
        assert recorded([POOL], within="low")
    with pytest.raises(UserError, match="within is 'top': allowed are low, middle, high"):
        recorded([POOL], within="top")
