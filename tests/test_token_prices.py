"""Three prices of one hour: they pay the whole bill, exactly, and rise with nothing that they should not rise with."""

from fractions import Fraction

import pytest
from hypothesis import given, settings, strategies as st

from smml.cost.units.token_prices import (
    HOUR_S,
    TokenSeconds,
    Traffic,
    servers_needed,
    token_prices,
)
from smml.errors import UserError

few = settings(max_examples=100, deadline=None)
counts = st.integers(1, 10**8)
exact = st.fractions(Fraction(1, 10**6), 1, max_denominator=10**6)


@st.composite
def hours(draw):
    """A bill, traffic and seconds in exact arithmetic, on as many servers as the traffic needs or a few more."""
    traffic = Traffic(draw(counts), draw(counts), draw(st.integers(0, 10**8)))
    seconds = TokenSeconds(draw(exact), draw(exact), draw(st.one_of(st.just(Fraction(0)), exact)))
    share = draw(st.fractions(0, Fraction(9, 10))) if traffic.cached_input_tokens else Fraction(0)
    servers = servers_needed(traffic, seconds) + draw(st.integers(0, 3))
    bill = draw(st.fractions(0, 1000, max_denominator=10**4))
    return bill, traffic, seconds, {"servers": servers, "cache_memory_share": share}


@few
@given(hours())
def test_prices_times_traffic_are_the_whole_bill_to_the_last_digit(hour):
    bill, traffic, seconds, rest = hour
    assert token_prices(bill, traffic, seconds, **rest).usd(traffic) == bill


@few
@given(
    st.floats(0, 1e4),
    st.floats(0.001, 1e9),
    st.floats(0.001, 1e9),
    st.floats(0, 1e9),
    st.floats(1e-9, 10),
    st.floats(1e-9, 10),
)
def test_and_in_floating_point_to_rounding(bill, read, written, cached, input_s, output_s):
    traffic, seconds = Traffic(read, written, cached), TokenSeconds(input_s, output_s, input_s / 9)
    prices = token_prices(bill, traffic, seconds, servers=servers_needed(traffic, seconds))
    assert prices.usd(traffic) == pytest.approx(bill, rel=1e-12)


@few
@given(hours())
def test_prices_stand_in_the_ratio_of_seconds_and_the_cache_pays_its_rent(hour):
    bill, traffic, seconds, rest = hour
    prices = token_prices(bill, traffic, seconds, **rest)
    read, written = prices.input_usd_per_million, prices.output_usd_per_million
    assert written * seconds.input_s == read * seconds.output_s
    looked_up = read * seconds.cached_s / seconds.input_s
    paid = (prices.cached_usd_per_million - looked_up) * traffic.cached_input_tokens / 10**6
    assert paid == bill * rest["cache_memory_share"]


@few
@given(hours())
def test_utilization_is_the_share_of_paid_seconds_and_full_load_the_least_price(hour):
    """Without a cache: price = USD per second of all servers × seconds of a token ÷ utilization."""
    bill, traffic, seconds, rest = hour
    servers = rest["servers"]
    prices = token_prices(bill, traffic, seconds, servers=servers)
    assert prices.utilization == seconds.of(traffic) / (servers * HOUR_S) <= 1
    full = bill / (servers * HOUR_S) * 10**6
    assert prices.input_usd_per_million == full * seconds.input_s / prices.utilization


@few
@given(hours(), st.integers(2, 9))
def test_more_load_on_the_same_machines_makes_no_token_dearer(hour, factor):
    bill, traffic, seconds, rest = hour
    more = Traffic(*(factor * n for n in vars(traffic).values()))
    rest["servers"] = servers_needed(more, seconds)
    before = token_prices(bill, traffic, seconds, **rest)
    after = token_prices(bill, more, seconds, **rest)
    for name in ("input", "output", "cached"):
        field = f"{name}_usd_per_million"
        assert getattr(after, field) * factor == getattr(before, field)


@few
@given(hours(), st.integers(1, 10**7), st.sampled_from(list(vars(Traffic(1, 1, 1)))))
def test_more_load_never_needs_fewer_machines(hour, more, kind):
    _, traffic, seconds, _ = hour
    larger = Traffic(**vars(traffic) | {kind: getattr(traffic, kind) + more})
    assert servers_needed(larger, seconds) >= servers_needed(traffic, seconds)
    assert servers_needed(traffic, seconds, 0.5) >= servers_needed(traffic, seconds)


@few
@given(hours(), st.fractions(1, 100))
def test_a_dearer_hour_makes_every_token_dearer_by_as_much(hour, factor):
    bill, traffic, seconds, rest = hour
    before = token_prices(bill, traffic, seconds, **rest)
    after = token_prices(bill * factor, traffic, seconds, **rest)
    assert after.output_usd_per_million == factor * before.output_usd_per_million
    assert after.cached_usd_per_million == factor * before.cached_usd_per_million


def test_an_hour_by_hand():
    """A made-up server of 3.60 USD an hour, a tenth of a cent a second; half the hour is work, a tenth of memory cache.

    Reading 1,000,000 tokens at 0.9 ms is 900 s, writing 90,000 at 10 ms another 900: each pays half of 3.24 USD.
    """
    traffic = Traffic(1_000_000, 90_000, 2_000_000)
    prices = token_prices(3.6, traffic, TokenSeconds(0.0009, 0.01), cache_memory_share=0.1)
    assert prices.utilization == pytest.approx(0.5)
    assert prices.input_usd_per_million == pytest.approx(1.62)
    assert prices.output_usd_per_million == pytest.approx(18.0)
    assert prices.cached_usd_per_million == pytest.approx(0.18)


def test_an_hour_in_which_only_the_cache_was_read_pays_too():
    only = Traffic(0, 0, 4_000_000)
    free = token_prices(2.0, only, TokenSeconds(0.001, 0.01), cache_memory_share=0.25)
    assert free.cached_usd_per_million == pytest.approx(0.5)
    slow = token_prices(2.0, only, TokenSeconds(0.001, 0.01, 1e-6), cache_memory_share=0.25)
    assert slow.cached_usd_per_million == pytest.approx(0.5)
    assert slow.usd(only) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Traffic(-1, 1), "input_tokens is -1"),
        (lambda: Traffic(1, float("nan")), "output_tokens is nan"),
        (lambda: Traffic(0, 0), "cached_input_tokens are 0"),
        (lambda: TokenSeconds(0, 1), "input_s is 0"),
        (lambda: TokenSeconds(1, float("inf")), "output_s is inf"),
        (lambda: TokenSeconds(1, 1, -1), "cached_s is -1"),
        (lambda: token_prices(-1, Traffic(1, 1), TokenSeconds(1, 1)), "usd_per_hour is -1"),
        (
            lambda: token_prices(1, Traffic(1, 1), TokenSeconds(1, 1), servers=0),
            "servers is 0",
        ),
        (
            lambda: token_prices(1, Traffic(1, 1, 1), TokenSeconds(1, 1), cache_memory_share=1),
            "cache_memory_share is 1",
        ),
        (
            lambda: token_prices(1, Traffic(1, 1), TokenSeconds(1, 1), cache_memory_share=0.1),
            "cached_input_tokens is 0",
        ),
        (
            lambda: token_prices(1, Traffic(4000, 3201), TokenSeconds(1, 1), servers=2),
            "takes 7,201 s .* servers is 2, .* give 3 servers",
        ),
        (
            lambda: servers_needed(Traffic(1, 1), TokenSeconds(1, 1), 0),
            "most_utilization is 0",
        ),
    ],
)
def test_what_cannot_be_is_named(make, named):
    with pytest.raises(UserError, match=named):
        make()
