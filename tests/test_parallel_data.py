"""Data parallel by hand: one process's loss and gradients, whatever the buckets; only gradients travel."""

import pytest

from smml.bench import data_parallel as bench
from smml.errors import UserError
from smml.parallel.launch import WorkerError
from smml.parallel.links import Link

TASKS = "smml.parallel.data_parallel_tasks"
SMALL = {
    "dim": 64,
    "layers": 2,
    "heads": 4,
    "head_dim": 16,
    "kv_heads": 2,
    "feed_forward_dim": 128,
    "vocab_size": 256,
}


@pytest.mark.parametrize(
    ("bucket_bytes", "micro", "buckets"), [(2**25, 1, 1), (20_000, 1, 12), (1, 2, None)]
)
def test_loss_and_every_gradient_are_the_unsharded_models(two, bucket_bytes, micro, buckets):
    given = {"batch": 8, "tokens": 32, "bucket_bytes": bucket_bytes, "micro": micro}
    for proof in two.run(f"{TASKS}:prove", model=SMALL, **given):
        assert proof["gradient"] < 1e-5
        assert proof["loss"] < 1e-6
        assert proof["reduced"] == proof["expected"], "every gradient once, also of micro-batches"
        assert buckets in (None, proof["buckets"])


def test_a_parameter_that_takes_no_part_is_said_not_waited_for(two):
    with pytest.raises(WorkerError, match="of a bucket never came"):
        two.run(f"{TASKS}:leave_one_out")


def test_a_batch_that_ranks_do_not_divide_is_refused(two):
    with pytest.raises(WorkerError, match="a batch of 7 cannot be cut into 2 equal parts"):
        two.run(f"{TASKS}:prove", model=SMALL, batch=7, tokens=8)


def test_every_kind_of_step_is_timed_in_turns(two):
    (found, _) = two.run(f"{TASKS}:step_seconds", model=SMALL, batch=2, tokens=8, samples=3)
    assert {name: len(samples) for name, samples in found.items()} == {
        "alone": 3,
        "smml": 3,
        "torch": 3,
    }


@pytest.fixture
def small(monkeypatch):
    """The bench at sizes of a test."""
    for name, value in (("MODEL", SMALL), ("BATCH", 2), ("TOKENS", 8)):
        monkeypatch.setattr(bench, name, value)
    return bench


def test_records_say_tokens_a_second_and_the_ratio_to_torch(two, setting, small):
    timings = small.seconds(two)
    predicted = small.predicted_s(two, timings["alone"], Link(1e-3, 1e-9))
    ours, torchs, ratio = small.records(setting, two, timings, predicted)
    assert ours.value == pytest.approx(2 * 2 * 8 / timings["smml"].p50)
    assert ours.predicted == torchs.predicted == pytest.approx(2 * 2 * 8 / predicted)
    assert ours.bytes == small.gradient_bytes(), "two ranks send 2(p − 1)/p = 1 of them"
    assert ratio.name == "data-parallel/ranks-2/micro-1/smml-to-torch"
    scaling = small.scaling(setting, 2, timings["alone"], timings["smml"])
    assert scaling.value == pytest.approx(2 * timings["alone"].p50 / timings["smml"].p50, rel=0.5)


def test_a_strategy_whose_proof_fails_reports_no_speed(two, small, monkeypatch):
    monkeypatch.setattr(small, "TOLERANCE", 0.0)
    with pytest.raises(UserError, match="its speed would mean nothing"):
        small.prove(two)
