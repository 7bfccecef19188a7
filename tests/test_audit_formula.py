"""Formulas of a case: Python's arithmetic, units that must agree, and nothing that a hostile text could run or stall."""

import math
import operator
import time

import pytest
from hypothesis import given, settings, strategies as st

from smml.cost.audit import formula
from smml.cost.audit.units import Amount, amount_of, parse_unit
from smml.errors import UserError

NAMES = {"a": 3.5, "b": -2.0, "c": 0.25}
VALUES = {name: Amount(value) for name, value in NAMES.items()}
FUNCTIONS = {
    "min": min,
    "max": max,
    "sum": lambda *values: math.fsum(values),
    "ceil": math.ceil,
    "floor": math.floor,
    "round": round,
    "sqrt": math.sqrt,
    "log": math.log,
}


def expressions() -> st.SearchStrategy[str]:
    leaves = st.one_of(
        st.integers(0, 1000).map(str),
        st.floats(0, 1000, allow_nan=False).map(repr),
        st.sampled_from(sorted(NAMES)),
    )

    def deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        binary = st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "<", ">=", "=="]), inner)
        several = st.tuples(
            st.sampled_from(["min", "max", "sum"]), st.lists(inner, min_size=1, max_size=3)
        )
        single = st.tuples(st.sampled_from(["ceil", "floor", "round", "sqrt", "log"]), inner)
        return st.one_of(
            binary.map(lambda x: f"({x[0]} {x[1]} {x[2]})"),
            inner.map(lambda x: f"(-{x})"),
            inner.map(lambda x: f"({x} ** 2)"),
            # min of one number is that number here; Python's wants a second one.
            several.map(lambda x: f"{x[0]}({', '.join([*x[1], x[1][0]])})"),
            single.map(lambda x: f"{x[0]}({x[1]})"),
        )

    return st.recursive(leaves, deeper, max_leaves=12)


@given(expressions())
@settings(max_examples=100, deadline=None)
def test_it_is_pythons_arithmetic(text):
    try:
        wanted = float(eval(text, {"__builtins__": {}}, {**NAMES, **FUNCTIONS}))
    except (ZeroDivisionError, OverflowError, ValueError):
        with pytest.raises(UserError):
            formula.evaluate(text, VALUES)
        return
    if len(text) > formula.MAX_CHARACTERS or not math.isfinite(wanted):
        with pytest.raises(UserError):
            formula.evaluate(text, VALUES)
        return
    found = formula.evaluate(text, VALUES)
    assert found.units == ()
    assert found.value == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "(1).__class__.__bases__",
        "a.real",
        "a[0]",
        "lambda: 1",
        "[x for x in (1, 2)]",
        "{1: 2}",
        "(1, 2)",
        "open('/etc/passwd')",
        "eval('1')",
        "min(*a)",
        "min(a, key=b)",
        "max.__call__(1)",
        "'a' * 3",
        "f'{a}'",
        "1j",
        "True",
        "None",
        "...",
        "a if b else c",
        "a and b",
        "not a",
        "a in b",
        "a is b",
        "a @ b",
        "a // b",
        "a % b",
        "a << 9",
        "~5",
        "(x := 5)",
        "yield 1",
        "await a",
        "a; b",
        "a = 1",
        "import os",
        "",
        "\x00",
        "a\nb",
        "sqrt",
        "unknown + 1",
    ],
)
def test_what_is_not_arithmetic_is_refused(text):
    with pytest.raises(UserError):
        formula.evaluate(text, VALUES)


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9",
        "9**9**9**9",
        "10.0**101",
        "2**-101",
        "1e400",
        "1e308 * 10",
        "9" * 400,
        "(" * 150 + "1" + ")" * 150 + "+" + "(" * 90 + "1" + ")" * 90 + "+ unknown",
        "-" * 400 + "1",
        "1+" * 249 + "1",
        "1+" * 5000 + "1",
        "((9**99)**99)**99",
        "(" * 5000 + "1" + ")" * 5000,
    ],
)
def test_a_bomb_ends_at_once(text):
    begin = time.monotonic()
    with pytest.raises(UserError) as caught:
        formula.evaluate(text, {})
    # Unbounded, these take for ever or end the process: a minute is no timing.
    assert time.monotonic() - begin < 60
    assert len(str(caught.value)) < 800


@given(st.text(max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_text_yields_a_finite_amount_or_a_user_error(text):
    try:
        found = formula.evaluate(text, VALUES)
    except UserError:
        return
    assert math.isfinite(found.value)


USD, MONTHLY = amount_of(697, "USD"), amount_of(287, "USD/month")
MONEY = {"once": USD, "monthly": MONTHLY, "euros": amount_of(5, "EUR")}


def test_units_are_carried():
    yearly = formula.evaluate("12 * month * monthly - once", MONEY)
    assert (yearly.value, yearly.units) == (12 * 287 - 697, (("USD", 1),))
    back = formula.evaluate("once / (monthly + 0 * monthly)", MONEY)
    assert back.units == (("month", 1),)
    assert back.to("day") == pytest.approx(697 / 287 * 730 / 24)
    assert formula.evaluate("sqrt(once * once)", MONEY) == USD
    assert formula.evaluate("once > 600 * USD", MONEY).value == 1
    assert formula.evaluate("max(day, 30 * h)", {}).to("h") == pytest.approx(30)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("once + monthly", ("USD;", "USD/month")),
        ("once - monthly", ("USD;", "USD/month")),
        ("once < monthly", ("USD;", "USD/month")),
        ("min(once, monthly)", ("USD;", "USD/month")),
        ("once + 1", ("USD", "no unit")),
        ("once + euros", ("mixed currencies", "EUR", "USD")),
        ("1 < 2 < once", ("USD", "no unit")),
        ("2 ** once", ("exponent", "USD")),
        ("sqrt(once)", ("USD", "0.5")),
        ("ceil(monthly)", ("USD/month",)),
        ("log(once)", ("USD",)),
    ],
)
def test_units_that_do_not_agree_are_both_named(text, named):
    with pytest.raises(UserError) as caught:
        formula.evaluate(text, MONEY)
    for word in named:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("value", "unit", "other", "wanted"),
    [
        (1, "month", "h", 730),
        (1, "year", "month", 12),
        (16, "GiB", "B", 16 * 2**30),
        (1.2, "Ttoken", "tokens", 1.2e12),
        (91, "%", "1", 0.91),
        (0.023, "USD/GB-month", "USD/TB-month", 23),
        (100_000, "requests/month", "request/s", 100_000 / (730 * 3600)),
        (70, "TFLOP/s", "GFLOP/s", 70_000),
        (3, "1/month", "1/year", 36),
        (1, "GiB/GB", "1", 2**30 / 1e9),
    ],
)
def test_units_convert(value, unit, other, wanted):
    assert amount_of(value, unit).to(other) == pytest.approx(wanted)


@pytest.mark.parametrize("unit", ["dollar", "USD/moon", "GB month", "x" * 100, "/", "USD//month"])
def test_an_unknown_unit_is_named(unit):
    with pytest.raises(UserError, match="unit"):
        parse_unit(unit)


@given(
    st.lists(st.sampled_from(["USD", "month", "day", "GiB", "token", "h"]), min_size=1, max_size=4),
    st.floats(1e-6, 1e6),
    st.floats(1e-6, 1e6),
)
@settings(max_examples=100, deadline=None)
def test_products_and_quotients_undo_each_other(units, one, other):
    left = amount_of(one, "-".join(units))
    right = amount_of(other, "/".join(units))
    again = left * right / right
    assert again.converted(left, "compared with") == pytest.approx(left.value)
    assert operator.add(left, left).value == pytest.approx(2 * left.value)


def test_substituted_shows_the_figures():
    shown = formula.substituted("36 * month * monthly - once", MONEY)
    assert shown == "36 × month × 287 USD/month - 697 USD"
