"""Collectives on send and receive: torch.distributed's results, and the messages and bytes that the formulas say."""

import pytest

from smml.bench import collectives as bench
from smml.errors import UserError
from smml.parallel import links
from smml.parallel.launch import Workers
from smml.parallel.links import COLLECTIVES, Link, Sent

PROVE = "smml.parallel.collective_tasks:prove"


@pytest.fixture(scope="module", params=[4, 3])
def workers(request):
    """Four ranks, and three, which are no power of two."""
    with Workers(request.param) as started:
        yield started


@pytest.mark.parametrize(("elements", "root"), [(1000, 0), (1, 1), (7, 2), (120, 0)])
def test_results_are_those_of_torch_to_the_last_bit(workers, elements, root):
    for proof in workers.run(PROVE, elements=elements, root=root):
        assert {name: found["difference"] for name, found in proof.items()} == dict.fromkeys(
            COLLECTIVES, 0.0
        )


def test_what_is_sent_is_what_the_formulas_say(workers):
    elements, ranks = 120, workers.ranks
    by_rank = workers.run(PROVE, elements=elements)
    for name in COLLECTIVES:
        whole = name in ("broadcast", "reduce") or name.startswith("all-reduce")
        payload = 8 * elements * (1 if whole else ranks)
        messages = sum(proof[name]["messages"] for proof in by_rank)
        moved = sum(proof[name]["bytes"] for proof in by_rank)
        assert (messages, moved) == total(name, ranks, payload), name
        # What one rank sends, one message after the other, is never more than the path counted.
        path = links.sent(name, ranks, payload)
        assert max(proof[name]["messages"] for proof in by_rank) <= path.messages


def test_records_hold_the_bus_bandwidth_and_its_prediction(workers, setting):
    name, size = "all-reduce/ring", 4096
    timings = bench.sweep(workers, [name], [size])
    link = Link(1e-4, 1e-9)
    (record,) = bench.records(setting, workers, timings, {name: link})
    path = links.sent(name, workers.ranks, size)
    moved = size * links.bus_factor(name, workers.ranks)
    assert record.name == f"collective/{name}/hand/ranks-{workers.ranks}/bytes-{size}"
    assert record.value == pytest.approx(moved / timings[bench.Point(name, size, "hand")].p50)
    assert record.predicted == pytest.approx(moved / link.seconds(path))
    assert record.inputs["bound"] == "latency"
    (unknown,) = bench.records(setting, workers, timings, {})
    assert unknown.predicted is None


def total(name: str, ranks: int, payload: float) -> tuple[int, float]:
    """Messages and bytes of all ranks together, counted on paper."""
    part = payload / ranks
    power = 1 << (ranks.bit_length() - 1)
    log, extra = power.bit_length() - 1, ranks - power
    return {
        "broadcast": (ranks - 1, (ranks - 1) * payload),
        "reduce": (ranks - 1, (ranks - 1) * payload),
        "gather": (ranks - 1, (ranks - 1) * part),
        "scatter": (ranks - 1, (ranks - 1) * part),
        "all-gather": (ranks * (ranks - 1), ranks * (ranks - 1) * part),
        "reduce-scatter": (ranks * (ranks - 1), ranks * (ranks - 1) * part),
        # What a rank has for itself is copied, and counted as no message.
        "all-to-all": (ranks * (ranks - 1), ranks * (ranks - 1) * part),
        "all-reduce/ring": (2 * ranks * (ranks - 1), 2 * (ranks - 1) * payload),
        "all-reduce/doubling": (
            power * log + 2 * extra,
            power * log * payload + 2 * extra * payload,
        ),
        "all-reduce/halving": (
            2 * power * log + 2 * extra,
            2 * (power - 1) * payload + 2 * extra * payload,
        ),
    }[name]


def test_one_rank_has_nothing_to_send():
    for name in COLLECTIVES:
        assert links.sent(name, 1, 100.0) == Sent(0, 0.0)


def test_bandwidths_are_those_of_nccl_tests():
    assert links.bandwidths("all-reduce/ring", 4, 1e9, 0.5) == (2e9, 3e9)
    assert links.bandwidths("all-gather", 4, 1e9, 0.5) == (2e9, 1.5e9)
    assert links.bandwidths("broadcast", 8, 1e9, 0.5) == (2e9, 2e9)
    with pytest.raises(UserError, match="name one of broadcast"):
        links.bus_factor("all-talk", 4)
    with pytest.raises(UserError, match="at least 1 rank"):
        links.sent("broadcast", 0, 1.0)


def test_a_fit_finds_the_link_that_made_the_times():
    link = Link(5e-5, 1e-9)
    sizes = [links.sent("all-reduce/ring", 4, 4.0**k) for k in range(4, 14)]
    found = links.fit((s, link.seconds(s)) for s in sizes)
    assert found.latency_s == pytest.approx(link.latency_s)
    assert found.bandwidth_bytes_per_s == pytest.approx(1e9)
    with pytest.raises(UserError, match="cannot tell latency from bandwidth"):
        links.fit([(sizes[0], 1.0)])


def test_a_fit_never_gives_negative_costs():
    falling = [(Sent(1, 100.0), 2.0), (Sent(1, 1000.0), 1.0)]
    link = links.fit(falling)
    assert link.latency_s >= 0
    assert link.seconds_per_byte >= 0


def test_the_algorithm_switches_where_both_take_the_same_time():
    link, ranks = Link(5e-5, 1e-9), 8
    at = links.switch_bytes(link, ranks, "all-reduce/doubling", "all-reduce/ring")
    both = [link.seconds(links.sent(f"all-reduce/{a}", ranks, at)) for a in ("doubling", "ring")]
    assert both[0] == pytest.approx(both[1])
    names = ["all-reduce/doubling", "all-reduce/ring"]
    for payload, faster in ((at / 2, names[0]), (at * 2, names[1])):
        taken = {name: link.seconds(links.sent(name, ranks, payload)) for name in names}
        assert min(taken, key=taken.get) == faster
    assert links.switch_bytes(link, 2, names[1], names[0]) == 0.0
