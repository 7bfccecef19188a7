"""What moved between two price tables, how old each source is, and the command `smml prices`."""

import datetime

import pytest
from hypothesis import given, strategies as st
from recorded_prices import NOW, REGION, refresh
from typer.testing import CliRunner

from smml.aws import prices as refreshing, prices_command
from smml.data import prices, spot_history
from smml.data.schema import Quantity
from smml.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMML_CACHE", str(tmp_path / "cache"))


# ------------------------------------------------------------------------------------------ what moved, what is old


def row(item: str, usd: float, unit: str = "USD/h") -> prices.PriceRow:
    price = Quantity(
        value=usd,
        unit=unit,
        source="made up",
        url="https://example.com",
        date=NOW.date(),
        checked=True,
    )
    return prices.PriceRow(
        item=item, region=REGION, kind="on-demand", price=price, origin="refreshed snapshot"
    )


def table(*rows: prices.PriceRow) -> dict:
    return {entry.key: entry for entry in rows}


def test_diff_says_what_moved_by_how_much_what_appeared_and_what_went():
    old = table(row("a.x", 2.0), row("b.x", 1.0), row("c.x", 1.0), row("d.x", 1.0))
    new = table(row("a.x", 1.0), row("b.x", 1.1), row("c.x", 1.0), row("e.x", 3.0))
    changes = refreshing.diff(old, new)
    assert [(c.item, c.was, c.now) for c in changes] == [
        ("a.x", 2.0, 1.0),
        ("b.x", 1.0, 1.1),
        ("d.x", 1.0, None),
        ("e.x", None, 3.0),
    ]
    assert changes[0].by == pytest.approx(-0.5)
    assert changes[1].by == pytest.approx(0.1)
    assert changes[2].by is None


def test_diff_does_not_compare_units():
    with pytest.raises(UserError, match="was in USD/h, is in USD/GB"):
        refreshing.diff(table(row("a.x", 1.0)), table(row("a.x", 1.0, "USD/GB")))


AMOUNTS = st.dictionaries(st.sampled_from("abcdef"), st.floats(1e-6, 1e4), max_size=6)


@given(AMOUNTS, AMOUNTS)
def test_diff_undone_is_the_old_table(was, now):
    old = table(*(row(f"{name}.x", usd) for name, usd in was.items()))
    new = table(*(row(f"{name}.x", usd) for name, usd in now.items()))
    rebuilt = {key: entry.price.value for key, entry in new.items()}
    for change in refreshing.diff(old, new):
        key = (change.item, change.region, change.kind)
        assert rebuilt.get(key) == change.now
        if change.was is None:
            del rebuilt[key]
        else:
            rebuilt[key] = change.was
    assert rebuilt == {key: entry.price.value for key, entry in old.items()}
    assert refreshing.diff(old, old) == []


def test_what_went_is_only_what_was_asked_for():
    refresh()
    gone = [change for change in refreshing.snapshot_changes() if change.now is None]
    assert gone, "the packaged g6 sizes are not in the recorded answer"
    assert {change.kind for change in gone} == {"on-demand"}, "capacity blocks were not asked for"
    assert {change.region for change in gone} == {REGION}


def test_staleness_counts_every_figure_and_marks_what_is_too_old():
    today = datetime.date(2026, 11, 21)
    ages = refreshing.staleness(today, 90)
    figures = (
        len(prices.prices()) + len(spot_history.spot_history()) + len(spot_history.interruptions())
    )
    assert sum(age.figures for age in ages) == figures
    assert [age.days for age in ages] == sorted((age.days for age in ages), reverse=True)
    for age in ages:
        assert age.days == (today - age.date).days
        assert age.stale == (age.days > 90)
    assert not any(age.stale for age in refreshing.staleness(today, 10_000))


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_nothing_grows_younger(days, limit):
    start = datetime.date(2026, 11, 21)
    now = {(a.source, a.date): a for a in refreshing.staleness(start, limit)}
    for later in refreshing.staleness(start + datetime.timedelta(days), limit):
        assert later.days == now[later.source, later.date].days + days
        assert later.stale >= now[later.source, later.date].stale


# ----------------------------------------------------------------------------------------------------- the command


def command(*words: str):
    return CliRunner().invoke(prices_command.app, list(words))


def test_show_prints_price_unit_day_and_source():
    answer = command("show", "g5.xlarge", "--region", "us-east-1")
    assert answer.exit_code == 0
    usd = prices.price("g5.xlarge")
    for part in (str(usd.value), usd.unit, str(usd.date), usd.source, usd.url, "packaged"):
        assert part in answer.output
    assert "no source was found" in command("show", "--kind", "savings-plan-compute-1y").output
    assert isinstance(command("show", "nothing").exception, UserError)


def test_stale_warns():
    output = command("stale").output
    assert "STALE" in output
    assert "warning:" in output
    assert "warning" not in command("stale", "--days", "9999").output


def test_diff_needs_a_refresh_first_and_then_prints_it():
    assert "run `smml prices refresh` first" in str(command("diff").exception)
    refresh()
    output = command("diff").output
    assert "p5.48xlarge" in output
    assert "appeared at 55.04 USD/h" in output
    assert "your own snapshot" in command("show", "p5.48xlarge", "--region", REGION).output


def test_refresh_command_passes_region_and_endpoint(monkeypatch):
    seen = {}

    def fake(regions, endpoint, *, spot_days):
        seen.update(regions=list(regions), endpoint=endpoint, spot_days=spot_days)
        return refresh()

    monkeypatch.setattr(refreshing, "refresh", fake)
    answer = command("refresh", "--region", REGION, "--endpoint", "http://127.0.0.1:5000")
    assert answer.exit_code == 0, answer.exception
    assert seen == {"regions": [REGION], "endpoint": "http://127.0.0.1:5000", "spot_days": 14}
    assert "7 prices and 4 spot prices read" in answer.output
    assert "p5.48xlarge" in answer.output
