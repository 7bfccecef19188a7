"""What limits a strategy on more ranks: causes that were measured or counted, and the rest named as such."""

from collections import defaultdict

import pytest

from smml.bench import scaling
from smml.parallel.links import Link

LINKS = {name: Link(0.0, 1e-9) for name in scaling.WIRE}
ONE_CALL = defaultdict(lambda: 1)


def test_ranks_that_share_a_machine_are_limited_by_it():
    limits = scaling.limits_of("data", 1.0, 0.52, ranks=4, crowd=2.0, wire_s=0.01)
    assert limits.machine == pytest.approx(0.25), "half a second together, a quarter each alone"
    assert limits.largest == "machine"
    assert sum(vars(limits).values()) == pytest.approx(0.52 - 0.25)


def test_what_is_not_explained_is_named_the_rest():
    limits = scaling.limits_of("data", 1.0, 0.60, ranks=2, crowd=1.02, wire_s=0.03)
    assert limits.rest == pytest.approx(0.06)
    assert limits.largest == "rest"


def test_hidden_messages_leave_less_than_nothing_unexplained():
    assert scaling.limits_of("zero-3", 1.0, 0.52, ranks=2, crowd=1.0, wire_s=0.1).rest < 0


def test_a_pipeline_waits_for_its_first_and_last_micro_batch():
    limits = scaling.limits_of("pipeline-1f1b", 1.0, 0.63, ranks=2, crowd=1.0, wire_s=0.0)
    assert limits.bubble == pytest.approx(0.5 / scaling.MICRO)
    assert limits.largest == "bubble"
    assert scaling.limits_of("data", 1.0, 0.63, ranks=2, crowd=1.0, wire_s=0.0).bubble == 0.0


def test_zero_3_sends_half_as_much_again_as_data_parallel():
    data, zero = (scaling.wire_s(name, 4, ONE_CALL, LINKS) for name in ("data", "zero-3"))
    assert 1.4 * data < zero < 1.5 * data, "the root is gathered once a step"


def test_messages_cost_their_latency_each():
    links = {name: Link(1e-3, 0.0) for name in scaling.WIRE}
    calls = {"all-reduce": 18, "all-gather": 1}
    assert scaling.wire_s("tensor", 2, calls, links) == pytest.approx(1e-3 * (18 * 2 + 1))
    assert scaling.wire_s("pipeline-1f1b", 2, {"send": 4}, links) == pytest.approx(4e-3)


def test_every_strategy_of_ours_is_in_the_table():
    from smml.parallel.strategies import STRATEGIES

    listed = {name.partition("#")[0].partition("-")[0] for name in scaling.STRATEGIES}
    assert listed == {"data", "zero", "tensor", "pipeline", "context", "expert"}
    assert {name.partition("#")[0] for name in scaling.STRATEGIES} <= set(STRATEGIES)


def test_the_table_lists_strategies_in_order_and_what_limits_them():
    from datetime import UTC, datetime

    from smml.measure import MachineId, Record

    def made(peer: str, ranks: int, limit: str) -> Record:
        return Record(
            name=f"scaling/ranks-{ranks}/{peer}",
            unit="tokens/s",
            better="higher",
            value=1234.0,
            p20=1200.0,
            p80=1300.0,
            n=5,
            inputs={"peer": peer, "ranks": ranks, "efficiency": 0.5, "limited_by": limit},
            machine=MachineId(fingerprint="test", device="test"),
            date=datetime(2026, 1, 2, tzinfo=UTC),
            source="test",
        )

    shown = scaling.table(
        [made("zero-3", 2, "wire"), made("data", 2, "rest"), made("data", 1, "—")]
    )
    assert shown.splitlines()[4:] == [
        "| data | 1 | 1,234 | 50% | — |",
        "| data | 2 | 1,234 | 50% | rest |",
        "| zero-3 | 2 | 1,234 | 50% | wire |",
    ]
    assert scaling.table([]) == ""
