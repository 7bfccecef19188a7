"""The published case: each contradiction that is known in it is found, and what is right is not called wrong."""

import json
import os
import re
from pathlib import Path

import pytest

from smml.cost.audit import as_json, audit, counts, markdown, packaged_case, text
from smml.cost.audit.judge import replaced, would_hold_with
from smml.data.prices import price

CASE = packaged_case("llm_on_aws")
JUDGED = {one.claim.id: one for one in audit(CASE)}


def test_three_years_save_less_than_is_claimed():
    found = JUDGED["three_years"]
    assert found.verdict == "contradicts"
    assert found.recomputed == 107_771
    assert set(found.against) == {"api", "monthly", "development"}
    assert "107,771" in found.deciding[0].arithmetic


def test_what_the_three_years_would_need_is_said():
    needed = would_hold_with(CASE.claims["three_years"], CASE.values)
    assert needed["monthly"].to("USD/month") == pytest.approx(3300 - (113_207 + 697) / 36)
    for name, figure in needed.items():
        unit = CASE.claims[name].unit
        mended = audit(replaced(CASE, name, figure.to(unit)))
        assert {one.claim.id: one.verdict for one in mended}["three_years"] == "agrees"


def test_a_hundred_times_the_load_costs_less_than_ten_times():
    found = JUDGED["cost_100x"]
    assert found.verdict == "contradicts"
    assert found.against == ["cost_10x"]


def test_one_gpu_that_is_always_on_costs_more_than_the_whole_month():
    found = JUDGED["monthly"]
    assert found.verdict == "contradicts"
    assert found.recomputed == pytest.approx(730 * price("g5.xlarge").value)
    if price("g5.xlarge").value == 1.006:  # a refreshed snapshot may say another price
        assert round(found.recomputed) == 734
    assert CASE.facts["gpu_month"].amount.to("USD") == pytest.approx(found.recomputed)


def test_an_8b_has_no_gpu_on_fargate():
    found = JUDGED["deployment"]
    assert found.verdict == "physically impossible"
    assert "Fargate runs no GPU task" in found.deciding[0].arithmetic
    assert "55 min" in found.deciding[0].arithmetic, "and its CPUs are no way out"


def test_a_full_context_needs_16_gib_a_sequence():
    found = JUDGED["context"]
    assert found.verdict == "physically impossible"
    per_token = 2 * 32 * 8 * 128 * 2
    assert per_token * 2**17 == 16 * 2**30
    assert f"{per_token * 128_000 / 2**30:.1f} GiB" in found.deciding[0].arithmetic
    assert JUDGED["concurrency"].verdict == "physically impossible"


def test_the_money_does_not_buy_the_tokens():
    found = JUDGED["training_tokens"]
    assert found.verdict == "physically impossible"
    assert 3e9 < found.recomputed * 1e12 < 4e9
    assert found.against == ["development"]


@pytest.mark.parametrize(
    ("claim", "against"),
    [("availability", "zones_1x"), ("multi_az", "zones_1x"), ("tested", "boxes_ticked")],
)
def test_claims_that_exclude_each_other(claim, against):
    assert JUDGED[claim].verdict == "contradicts"
    assert against in JUDGED[claim].against


def test_an_answer_in_two_seconds_is_out_of_reach_with_a_full_context():
    assert JUDGED["latency"].verdict == "physically impossible"


@pytest.mark.parametrize(
    "claim",
    [
        *("savings", "savings_share", "savings_share_rounded", "break_even", "model_parameters"),
        *("requests_10x", "requests_100x", "cost_1x", "savings_10x", "savings_share_10x"),
        *("savings_100x", "savings_share_100x", "time_to_market"),
    ],
)
def test_what_is_right_agrees(claim):
    assert JUDGED[claim].verdict == "agrees", JUDGED[claim].findings


def test_targets_without_evidence_are_not_checkable_and_say_what_they_need():
    for one in JUDGED.values():
        if one.verdict == "not checkable":
            assert one.needs, one.claim.id
            assert not one.failed
    for name in ("glue", "perplexity", "parity", "compliance", "incidents", "development", "api"):
        assert JUDGED[name].verdict == "not checkable"


def test_every_verdict_but_the_open_ones_shows_arithmetic():
    for one in JUDGED.values():
        if one.verdict != "not checkable":
            assert any(re.search(r"\d", finding.arithmetic) for finding in one.deciding), (
                one.claim.id
            )


def test_a_mended_claim_moves_only_what_rests_on_it():
    mended = {one.claim.id: one for one in audit(replaced(CASE, "three_years", 107_771))}
    assert mended["three_years"].verdict == "agrees"
    changed = [name for name in JUDGED if JUDGED[name].verdict != mended[name].verdict]
    assert changed == ["three_years"]
    dearer = {one.claim.id: one for one in audit(replaced(CASE, "monthly", 800))}
    assert dearer["monthly"].verdict == "agrees"
    assert dearer["savings"].verdict == "contradicts"
    assert dearer["savings"].recomputed == 2500


def test_the_reports_hold_every_claim():
    judged = list(JUDGED.values())
    plain, table, data = (
        text(CASE, judged),
        markdown(CASE, judged),
        json.loads(as_json(CASE, judged)),
    )
    assert sum(counts(judged).values()) == len(judged) == len(data["claims"])
    assert data["counts"] == counts(judged)
    for name in JUDGED:
        assert name in plain
        assert f"| {name} |" in table
    assert not re.search(r"(?<!\\)\$", table), "an open dollar sign begins a formula in Markdown"


@pytest.mark.document
def test_the_quotations_stand_where_the_case_says():
    lines = Path(os.environ["SMML_CASE_DOCUMENT"]).read_text(encoding="utf-8").splitlines()
    for claim in CASE.claims.values():
        line = lines[claim.line - 1].replace("*", "")
        assert claim.says.split(":")[-1].split("(")[0].strip()[:12] in line, claim.id
