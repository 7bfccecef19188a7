"""Checks of physics, services and money: each against a count made apart from it, and each able to say no."""

from pathlib import Path

import pytest
import typer
from hypothesis import given, settings, strategies as st
from typer.testing import CliRunner

from smml.cost.audit import checks, physics
from smml.cost.audit.audit_command import audit as command
from smml.cost.audit.units import amount_of
from smml.data import accelerators, instance, limits
from smml.data.prices import price
from smml.data.spot_history import spot_history
from smml.errors import UserError
from smml.llama import counts
from smml.llama.config import CONFIGS
from smml.plan.shape import named_shape

LLAMA = "llama-3.1-8b"


def run(name: str, given: dict, value: float | None = None, unit: str = "1", **values: object):
    claimed = None if value is None else amount_of(value, unit)
    return checks.run(name, given, claimed, unit, values)


def tokens(value: float):
    return amount_of(value, "token")


def test_every_check_is_documented_and_typed():
    known = checks.known()
    assert {"kv_cache", "always_on", "training_tokens_for_dollars", "monotone"} <= set(known)
    for name, one in known.items():
        assert one.function.__doc__, name
        assert set(one.units) <= set(one.function.__annotations__), name


def test_a_kv_cache_of_128k_tokens_is_16_gib():
    shape = named_shape(LLAMA)
    assert physics.kv_bytes_per_token(shape) * 2**17 == 16 * 2**30
    assert physics.kv_bytes_per_token(shape) == counts.kv_cache_bytes(CONFIGS[LLAMA], 1, 1)
    assert physics.weight_bytes(shape) == 2 * counts.parameters(CONFIGS[LLAMA]).total


def test_reading_a_prompt_is_counted_as_the_model_counts_it():
    whole = counts.prefill_flops(CONFIGS[LLAMA], 1, 4096)
    one_logit = 2 * CONFIGS[LLAMA].dim * CONFIGS[LLAMA].vocab_size
    assert physics.prefill_flops(named_shape(LLAMA), 4096) == pytest.approx(
        whole - one_logit, rel=1e-9
    )


def test_a_kv_cache_fits_or_does_not():
    asked = {"model": LLAMA, "context": "n", "concurrency": 1, "instance": "g5.xlarge"}
    long = run("kv_cache", asked, n=tokens(2**17))
    assert long.verdict == "physically impossible"
    assert "16.0 GiB" in long.arithmetic
    assert long.against == ("n",)
    assert run("kv_cache", asked, n=tokens(8192)).verdict == "agrees"
    many = run("kv_cache", asked | {"concurrency": 100}, n=tokens(8192))
    assert many.verdict == "physically impossible"
    alone = run("kv_cache", asked | {"model": "llama-3.1-70b"}, n=tokens(1))
    assert "not even the weights" in alone.arithmetic
    assert run("kv_cache", asked | {"instance": "g4ad.xlarge"}, n=tokens(1)).verdict == (
        "physically impossible"
    )


@given(st.integers(1, 2**17), st.integers(1, 200), st.integers(1, 16))
@settings(max_examples=60, deadline=None)
def test_memory_is_monotone(context, concurrency, machines):
    def verdict(n: int, many: int, number: int) -> bool:
        asked = {"model": LLAMA, "context": "n", "concurrency": many, "instance": "g5.xlarge"}
        found = run("kv_cache", asked | {"instances": number}, n=tokens(n))
        return found.verdict == "agrees"

    if verdict(context, concurrency, machines):
        assert verdict(max(1, context // 2), concurrency, machines)
        assert verdict(context, max(1, concurrency // 2), machines)
        assert verdict(context, concurrency, machines + 1)


def test_dollars_become_tokens():
    asked = {"model": LLAMA, "usd": "usd", "instance": "g5.xlarge"}
    found = run("training_tokens_for_dollars", asked, 1.2, "Ttoken", usd=amount_of(697, "USD"))
    hours = 697 / price("g5.xlarge").value
    peak = accelerators()["a10g"].peak_flops("bf16").value
    by_hand = hours * 3600 * peak / (6 * named_shape(LLAMA).active_parameters)
    assert found.verdict == "physically impossible"
    assert found.recomputed == pytest.approx(by_hand / 1e12), "in the unit of the claim"
    assert 3e9 < by_hand < 4e9, "about 3.5 billion tokens, at the full peak"
    realistic = by_hand * limits.limit("model_flops_utilization").value
    usd = amount_of(697, "USD")
    for share, verdict in ((0.99, "agrees"), (1.01, "contradicts")):
        claim = share * realistic
        assert run("training_tokens_for_dollars", asked, claim, "token", usd=usd).verdict == verdict
    with pytest.raises(UserError, match="mfu"):
        run("training_tokens_for_dollars", asked | {"mfu": 1.5}, 1.0, "token", usd=usd)
    none = run(
        "training_tokens_for_dollars", asked | {"instance": "inf2.xlarge"}, 1, "token", usd=usd
    )
    assert none.verdict == "not checkable"


@given(st.floats(1, 1e7), st.floats(1.01, 100))
@settings(max_examples=60, deadline=None)
def test_more_dollars_buy_more_tokens(usd, factor):
    shape, entry = named_shape(LLAMA), instance("g5.xlarge")
    few, many = (physics.tokens_for(shape, x, entry, 0.4) for x in (usd, usd * factor))
    assert many == pytest.approx(few * factor)


def test_always_on_costs_every_hour():
    bill = 730 * price("g5.xlarge").value
    low = run("always_on", {"instance": "g5.xlarge"}, 287, "USD/month")
    assert low.verdict == "contradicts"
    assert low.recomputed == pytest.approx(bill)
    assert low.against == ("the price of g5.xlarge",)
    assert run("always_on", {"instance": "g5.xlarge"}, bill + 1, "USD/month").verdict == "agrees"
    part = {"instance": "g5.xlarge", "hours": "200 * h", "instances": 2}
    assert run("always_on", part, 9999, "USD/month").recomputed == pytest.approx(bill / 730 * 400)
    nowhere = run("always_on", {"instance": "g5.xlarge", "region": "moon-1"}, 1, "USD/month")
    assert nowhere.verdict == "not checkable"
    assert "moon-1" in nowhere.arithmetic


def test_a_latency_has_a_floor():
    asked = {"model": LLAMA, "instance": "g5.xlarge", "prompt": "n", "output": "m"}
    entry = accelerators()["a10g"]
    step = 2 * named_shape(LLAMA).parameters / entry.bandwidth.value
    short = {"n": tokens(1), "m": tokens(50)}
    assert run("latency_floor", asked, 51 * step, "s", **short).verdict == "agrees"
    assert run("latency_floor", asked, 49 * step, "s", **short).verdict == "physically impossible"
    long = {"n": tokens(128_000), "m": tokens(1)}
    assert run("latency_floor", asked, 2, "s", **long).verdict == "physically impossible"
    assert run("latency_floor", asked, 2, "min", **long).verdict == "agrees"


def test_services_refuse_what_they_do_not_have():
    gpu = run("fits_on", {"service": "fargate", "model": LLAMA, "accelerators": 1})
    assert gpu.verdict == "physically impossible"
    assert "GPU" in gpu.arithmetic
    assert run("fits_on", {"service": "fargate", "model": LLAMA}).verdict == "agrees"
    slow = {"service": "fargate", "model": LLAMA, "context": "n", "latency_s": "t"}
    values = {"n": tokens(2000), "t": amount_of(2, "s")}
    assert run("fits_on", slow, **values).verdict == "physically impossible"
    heavy = {"service": "fargate", "memory": "m"}
    assert run("fits_on", heavy, m=amount_of(119, "GiB")).verdict == "agrees"
    assert run("fits_on", heavy, m=amount_of(121, "GiB")).verdict == "physically impossible"
    assert "Lambda" in run("fits_on", {"service": "lambda", "model": LLAMA}).arithmetic
    assert run("fits_on", {"service": "lambda", "memory": "GiB"}).verdict == "agrees"
    for wrong in ({"service": "mainframe", "memory": "GiB"}, {"service": "lambda"}):
        with pytest.raises(UserError, match="fits_on"):
            run("fits_on", wrong)


def test_availability_is_what_is_promised():
    one_zone = run("availability", {"replicas": 2, "zones": 1}, 99.9, "%")
    assert one_zone.verdict == "contradicts"
    assert one_zone.recomputed == pytest.approx(99.5)
    assert run("availability", {"replicas": 2, "zones": 2}, 99.9, "%").verdict == "agrees"
    assert run("availability", {"replicas": 1, "zones": 2}, 99.9, "%").verdict == "contradicts"
    assert run("availability", {"replicas": 9, "zones": 3}, 99.999, "%").verdict == "contradicts"
    with pytest.raises(UserError, match="replicas"):
        run("availability", {"replicas": 0, "zones": 1}, 99, "%")


def falling(explained_by: float) -> str:
    money = {"small": amount_of(1704, "USD/month"), "large": amount_of(1316, "USD/month")}
    loads = {"few": amount_of(1e6, "request/month"), "many": amount_of(1e7, "request/month")}
    asked = {"loads": ["many", "few"], "costs": ["large", "small"], "explained_by": explained_by}
    found = run("monotone", asked, 1316, "USD/month", **money, **loads)
    if found.verdict == "contradicts":
        assert found.against == ("small", "large")
    return found.verdict


def test_a_larger_scale_costs_no_less_unless_explained():
    assert falling(0) == "contradicts"
    assert falling(0.2) == "contradicts"
    assert falling(0.3) == "agrees"


@given(
    st.lists(
        st.tuples(st.floats(1, 1e6), st.floats(1, 1e6)),
        min_size=2,
        max_size=6,
        unique_by=lambda x: x[0],
    )
)
@settings(max_examples=60, deadline=None)
def test_monotone_says_whether_costs_ever_fall(rows):
    values = {f"l{i}": amount_of(load, "request/month") for i, (load, _) in enumerate(rows)}
    values |= {f"c{i}": amount_of(cost, "USD/month") for i, (_, cost) in enumerate(rows)}
    asked = {k: [f"{k[0]}{i}" for i in range(len(rows))] for k in ("loads", "costs")}
    found = run("monotone", asked, 1, "USD/month", **values)
    ordered = [cost for _, cost in sorted(rows)]
    assert (found.verdict == "agrees") == (ordered == sorted(ordered))


def test_requests_in_flight_by_littles_law():
    values = {"r": amount_of(50, "request/s"), "t": amount_of(2, "s")}
    asked = {"requests": "r", "latency_s": "t"}
    assert run("in_flight", asked, 100, **values).verdict == "agrees"
    assert run("in_flight", asked, 99, **values).verdict == "contradicts"


def test_limits_are_looked_up_by_name():
    assert run("within_seconds", {"limit": "lambda_timeout"}, 15, "min").verdict == "agrees"
    late = run("within_seconds", {"limit": "lambda_timeout"}, 16, "min")
    assert late.verdict == "physically impossible"
    big = run("within_bytes", {"limit": "lambda_image"}, 11, "GiB")
    assert big.verdict == "physically impossible"
    for limit in ("lambda_timeout", "nothing"):
        with pytest.raises(UserError, match=limit):
            run("within_bytes", {"limit": limit}, 1, "B")


def test_a_discount_is_recomputed_from_prices_or_left_open():
    full, less = price("m5.large").value, price("m5.large", kind="reserved-3y").value
    found = run("discount", {"item": "m5.large", "kind": "reserved-3y"}, 60, "%")
    assert found.recomputed == pytest.approx(100 * (1 - less / full))
    zones = sorted(row.price.value for row in spot_history("g5.xlarge", "us-east-1"))
    spot = run("discount", {"item": "g5.xlarge", "kind": "spot"}, 70, "%")
    full = price("g5.xlarge").value
    assert 100 * (1 - zones[-1] / full) <= spot.recomputed <= 100 * (1 - zones[0] / full)
    for absent in ({"item": "m5.large", "kind": "spot"}, {"item": "g5.xlarge", "kind": "gift"}):
        open_question = run("discount", absent, 70, "%")
        assert open_question.verdict == "not checkable"
        assert "price" in open_question.arithmetic


def test_parameters_and_context_of_published_models():
    assert run("parameters", {"model": LLAMA}, 8, "Gparameter").recomputed == pytest.approx(
        8.03, rel=1e-3
    )
    assert run("context_window", {"model": LLAMA}, 128_000, "token").verdict == "agrees"
    assert run("context_window", {"model": LLAMA}, 1e6, "token").verdict == "physically impossible"
    assert run("context_window", {"model": "gpt-175b"}, 1, "token").verdict == "not checkable"
    with pytest.raises(UserError, match="llama-9"):
        run("parameters", {"model": "llama-9"}, 8, "Gparameter")


@pytest.mark.parametrize(
    ("name", "given", "value", "unit", "named"),
    [
        ("always_on", {}, 1, "USD/month", "instance is missing"),
        ("always_on", {"instance": "g5.huge"}, 1, "USD/month", "g5.huge"),
        ("always_on", {"instance": 5}, 1, "USD/month", "words"),
        ("always_on", {"instance": "g5.xlarge"}, 1, "USD", "USD"),
        ("always_on", {"instance": "g5.xlarge", "hours": 730}, 1, "USD/month", "no unit"),
        ("always_on", {"instance": "g5.xlarge", "instances": -1}, 1, "USD/month", "negative"),
        ("always_on", {"instance": "g5.xlarge", "instances": "two"}, 1, "USD/month", "two"),
        ("always_on", {"instance": "g5.xlarge", "at": "noon"}, 1, "USD/month", "at is unknown"),
        ("always_on", {"instance": "g5.xlarge"}, None, "USD/month", "needs a value"),
        ("monotone", {"loads": [], "costs": []}, 1, "USD/month", "list"),
        ("monotone", {"loads": ["request/month"], "costs": ["USD/month"]}, 1, "USD/month", "two"),
    ],
)
def test_what_a_check_cannot_take_is_named(name, given, value, unit, named):
    with pytest.raises(UserError) as caught:
        run(name, given, value, unit)
    assert named in str(caught.value)


def application() -> typer.Typer:
    app = typer.Typer()
    app.command()(command)
    return app


def test_the_command_prints_the_report_and_its_verdict(tmp_path: Path):
    runner = CliRunner()
    empty = runner.invoke(application(), ["--template"])
    assert empty.exit_code == 0
    mine = tmp_path / "mine.yaml"
    mine.write_text(empty.output, encoding="utf-8")
    assert runner.invoke(application(), [str(mine)]).exit_code == 0
    published = runner.invoke(application(), ["llm_on_aws", "--json"])
    assert published.exit_code == 1
    assert '"physically impossible"' in published.output
    missing = runner.invoke(application(), [str(tmp_path / "none.yaml")])
    assert isinstance(missing.exception, UserError)
    assert isinstance(runner.invoke(application(), []).exception, UserError)
