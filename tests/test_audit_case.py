"""Cases as YAML: what is read, what is refused with file, claim and field, and documents that are meant to hurt."""

import math

import pytest
from hypothesis import given, settings, strategies as st

from smml.cost.audit import audit, load_case, packaged_case, read_case
from smml.cost.audit.case import MAX_ENTRIES, packaged_text
from smml.cost.audit.document import MAX_CHARACTERS
from smml.errors import UserError

CASE = """
case: Made for this test
facts:
  rate: {price: g5.xlarge}
  least: {formula: rate * month}
claims:
  once: {says: It costs 100 to build, value: 100, unit: USD, line: 3}
  monthly: {says: It costs 10 a month, value: 10, unit: USD/month}
  total: {says: A year costs 220, value: 220, unit: USD, formula: once + 12 * month * monthly}
  fast: {says: It answers within a second, value: 1, unit: s, bound: at most, kind: target}
"""


def test_a_case_is_read():
    case = read_case(CASE, "made.yaml")
    assert list(case.claims) == ["once", "monthly", "total", "fast"]
    assert case.claims["once"].line == 3
    assert str(case.values["total"]) == "220 USD"
    assert case.facts["least"].amount.to("USD") == pytest.approx(
        730 * case.facts["rate"].amount.to("USD/h")
    )
    assert case.facts["rate"].source, "a looked-up figure says where it stands"
    assert [one.verdict for one in audit(case)][2] == "agrees"


def test_the_template_is_a_case_that_stands():
    judgements = audit(read_case(packaged_text("template"), "template.yaml"))
    assert not [one.claim.id for one in judgements if one.failed]
    with pytest.raises(UserError, match="llm_on_aws, template"):
        packaged_case("nothing")


def test_numbers_mean_what_they_look_like():
    text = "case: x\nclaims:\n  a: {says: s, value: 1.2e12, unit: token}\n  b: {says: s, value: true, formula: a > 1e3 * token}\n"
    case = read_case(text)
    assert case.claims["a"].amount.value == 1.2e12
    assert audit(case)[1].verdict == "agrees"


def changed(old: str, new: str) -> str:
    assert CASE.count(old) == 1
    return CASE.replace(old, new)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (changed("line: 3", "lines: 3"), ("claim once", "field lines", "unknown")),
        (changed("line: 3", "line: three"), ("claim once", "field line", "three")),
        (changed("value: 100,", "value: '1,000',"), ("claim once", "field value", "commas")),
        (changed("value: 100,", "value: 1_000,"), ("claim once", "field value", "1_000")),
        (changed("value: 100,", "value: .nan,"), ("claim once", "field value")),
        (changed("unit: USD/month}", "unit: dollars}"), ("claim monthly", "field unit", "dollars")),
        (changed("says: It costs 100 to build, ", ""), ("claim once", "field says", "missing")),
        (changed("value: 220, ", ""), ("claim total", "field value", "missing")),
        (changed("+ 12", "+ 12 * many"), ("claim total", "field formula", "'many'")),
        (changed("+ 12", "+ 12 * eval('1')"), ("claim total", "field formula", "not allowed")),
        (changed("+ 12 * month", "+ 12"), ("claim total", "field formula", "USD/month")),
        (changed("+ 12 * month * monthly", "+ 1 * EUR"), ("claim total", "mixed currencies")),
        (changed("at most", "below"), ("claim fast", "field bound", "at most")),
        (changed("kind: target", "kind: hope"), ("claim fast", "field kind", "figure")),
        (changed("kind: target", "tolerance: 2"), ("claim fast", "field tolerance")),
        (changed("kind: target", "check: {guess: {}}"), ("claim fast", "field check", "'guess'")),
        (changed("kind: target", "check: guess"), ("claim fast", "field check", "guess")),
        (changed("  once:", "  month:"), ("month", "a unit")),
        (changed("  once:", "  max:"), ("max", "a function")),
        (changed("  once:", "  year:"), ("year", "a unit")),
        (changed("  once:", "  a.b:"), ("a.b", "no name")),
        (changed("  once:", "  total:"), ("line", "'total' stands twice")),
        (changed("  least:", "  total:"), ("total", "claims and among facts")),
        (changed("g5.xlarge", "g5.huge"), ("fact rate", "field price", "g5.huge")),
        (changed("{price: g5.xlarge}", "{worth: 3}"), ("fact rate", "price")),
        (
            changed("{price: g5.xlarge}", "{limit: nothing}"),
            ("fact rate", "field limit", "nothing"),
        ),
        (changed("{price: g5.xlarge}", "{price: {thing: g5}}"), ("fact rate", "field thing")),
        (changed("case: Made for this test", "cases: x"), ("field cases", "unknown")),
        (changed("case: Made for this test", "source: x"), ("field case", "missing")),
        ("case: x", ("field claims", "missing")),
        ("case: x\nclaims: []", ("field claims",)),
        ("case: x\nclaims: {a: 3}", ("claim a", "mapping")),
        ("- 1", ("template",)),
        ("", ("template",)),
        ("case: [", ("line",)),
    ],
)
def test_what_is_wrong_is_named(text, named):
    with pytest.raises(UserError) as caught:
        audit(read_case(text, "made.yaml"))
    message = str(caught.value)
    assert message.startswith("made.yaml")
    assert "\n" not in message
    for word in named:
        assert word in message


def test_a_cycle_is_named():
    claim = "{{says: s, value: 1, formula: {}}}"
    text = "case: x\nclaims:\n" + "".join(
        f"  {name}: {claim.format(other + ' + 0')}\n"
        for name, other in (("start", "a"), ("a", "b"), ("b", "c"), ("c", "a"))
    )
    with pytest.raises(UserError, match="circular: a → b → c → a"):
        read_case(text)
    with pytest.raises(UserError, match="circular: a → a"):
        read_case(f"case: x\nclaims:\n  a: {claim.format('a * 2')}\n")
    with pytest.raises(UserError, match=r"circular: (f → a → f|a → f → a)"):
        read_case(f"case: x\nfacts:\n  f: {{formula: a}}\nclaims:\n  a: {claim.format('f')}\n")


def test_a_long_chain_is_no_cycle():
    rows = ["  n0: {says: s, value: 1}"]
    rows += [f"  n{i}: {{says: s, value: 1, formula: n{i - 1}}}" for i in range(1, MAX_ENTRIES)]
    case = read_case("case: x\nclaims:\n" + "\n".join(reversed(rows)))
    assert sum(one.verdict == "agrees" for one in audit(case)) == MAX_ENTRIES - 1
    with pytest.raises(UserError, match="split the case"):
        read_case("case: x\nclaims:\n" + "\n".join([*rows, "  more: {says: s, value: 1}"]))


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (LAUGHS, "anchors and aliases"),
        ("case: &x [*x]", "anchors and aliases"),
        ("case: x\nclaims:\n  a: &c {says: s}\n  b: {<<: *c}", "anchors and aliases"),
        ("case: " + "[" * 10_000, "nested deeper"),
        ("case: " + "{a: " * 10_000, "nested deeper"),
        ("case: x\n" + "# long\n" * MAX_CHARACTERS, "characters"),
        ("!!python/object/apply:os.system ['true']", "tag"),
        ("case: !!python/name:os.system", "tag"),
        ("case: x\n? [a, b]\n: c", "no text"),
        ("case: x\n1: c", "no text"),
    ],
)
def test_a_document_that_is_meant_to_hurt_is_refused(text, named):
    with pytest.raises(UserError, match=named):
        read_case(text)


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_text_is_a_case_or_a_user_error(text):
    with pytest.raises(UserError):
        read_case(text)


@given(st.floats(allow_nan=True, allow_infinity=True, width=64))
@settings(max_examples=60, deadline=None)
def test_any_value_is_read_or_refused(value):
    text = f"case: x\nclaims:\n  a: {{says: s, value: {value!r}, unit: USD}}\n"
    if math.isfinite(value):
        assert read_case(text).claims["a"].amount.value == pytest.approx(value)
    else:
        with pytest.raises(UserError, match="claim a, field value"):
            read_case(text)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"missing\.yaml"):
        load_case(tmp_path / "missing.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"bytes\.yaml"):
        load_case(tmp_path / "bytes.yaml")
