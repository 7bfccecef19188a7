"""The contract of strategies: the proof finds every mistake, no speed without it, bytes counted, and a memory cap."""

import pytest
import torch

from smml.bench import strategies as bench
from smml.errors import UserError
from smml.measure.live_bytes import LiveBytes, MemoryLimit
from smml.parallel.equal_shares import must_divide
from smml.parallel.launch import WorkerError
from smml.parallel.strategies import STRATEGIES, kind

HERE = "broken_strategies"
SMALL = {"dim": 64, "layers": 2, "heads": 4, "head_dim": 16, "kv_heads": 2, "vocab_size": 256}


@pytest.mark.parametrize("name", ["alone", "data", "torch-data"])
def test_strategies_are_proved(two, name):
    for proof in bench.prove(two, name):
        assert proof["loss"] <= 1e-5
        assert proof["gradient"] <= 1e-5
        assert proof["sent"] == proof["expected"]
        assert (name == "alone") == (proof["sent"] == {})


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        ("Summed", "the gradient of"),
        ("LossOfOneRank", "the loss is"),
        ("Unsent", "it sent nothing, counted were all-reduce"),
        ("SentTwice", "it sent all-reduce"),
        ("ForgetsToUpdate", "a parameter after its updates is"),
        ("HoldsMore", "it holds parameters"),
    ],
)
def test_a_proof_finds_each_mistake(two, strategy, told):
    for problems in two.run(f"{HERE}:problems", strategy=strategy):
        assert any(told in problem for problem in problems), problems


def test_no_speed_without_a_proof(two):
    with pytest.raises(UserError, match=r"SentTwice: on rank 0 it sent .*mend it before timing"):
        two.run(f"{HERE}:seconds", strategy="SentTwice")


def test_proved_strategies_are_timed_in_turns(two):
    timings = bench.seconds(
        two, {"data": {}, "data#small": {"bucket_bytes": 1000}}, SMALL, 4, 16, samples=5
    )
    assert {name: len(t.samples_s) for name, t in timings.items()} == {"data": 5, "data#small": 5}


def test_the_wire_counts_payloads_by_nccl_tests_definitions(two):
    for found in two.run(f"{HERE}:wire"):
        sent = found.pop("send")
        assert sent in ({"send": 12}, {})
        assert found.pop("barrier") == {}
        for name, counted in found.items():
            collective = name.removeprefix("functional ").partition(",")[0]
            whole = collective in ("all-gather", "reduce-scatter", "all-to-all")
            assert counted == {collective: 24 if whole else 12}, name


def test_a_collective_that_nobody_counts_is_no_silent_zero(two):
    for told in two.run(f"{HERE}:unknown_collective"):
        assert "c10d::gather_" in told


def test_a_cap_fails_every_rank_of_a_model_that_is_too_large_and_ends_nobody(two):
    free = bench.peak(two, "alone", SMALL, 4, 16)
    limit = free[0]["most"]
    assert bench.peak(two, "alone", SMALL, 4, 16, limit=limit) == free
    process = two.run("parallel_tasks:process_id")
    with pytest.raises(UserError, match=r"out of memory: .* asked for .* bytes, .* are taken"):
        bench.peak(two, "alone", SMALL, 4, 16, limit=limit - 1)
    assert two.run("parallel_tasks:process_id") == process


def test_a_batch_that_ranks_do_not_divide_is_named(two):
    with pytest.raises(UserError, match="2 ranks cannot share batch = 3 equally") as caught:
        bench.peak(two, "data", SMALL, 3, 16)
    assert not isinstance(caught.value, WorkerError)


def test_what_ranks_do_not_divide_is_named_all_at_once():
    must_divide(4, heads=8, batch=4)
    with pytest.raises(UserError, match="3 ranks cannot share heads = 8, batch = 4 equally"):
        must_divide(3, heads=8, batch=4, layers=6)


def test_strategies_have_their_modules():
    for name in STRATEGIES:
        assert kind(name).sends, name
    with pytest.raises(UserError, match=r"'zero' is no strategy: name one of alone, data, zero-1"):
        kind("zero")


def test_live_bytes_rise_and_fall_with_tensors():
    with LiveBytes() as followed:
        a = torch.zeros(1000)
        b = a.view(10, 100)
        assert followed.now == 4000, "a view holds nothing of its own"
        c = b + 1
        assert followed.now == followed.most == 8000
        del c
        assert followed.now == 4000
        del a
        assert followed.now == 4000, "its view is alive"
        del b
        assert followed.now == 0
        assert followed.most == 8000


def test_live_bytes_hold_what_was_there_before_and_stop_at_their_limit():
    before = torch.zeros(500)
    with LiveBytes(limit=6000) as followed:
        followed.hold([before, before.view(5, 100)])
        assert followed.now == 2000
        kept = before * 2
        with pytest.raises(MemoryLimit, match="asked for 4,000 bytes, 4,000 of 6,000 are taken"):
            torch.cat([kept, before])
        assert followed.now == 4000
        assert torch.empty(10**9, device="meta").numel() == 10**9, "shapes take no memory"
