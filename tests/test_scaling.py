"""What limits a strategy on more ranks: counted causes, and the rest named as unexplained."""

import pytest

from smml.bench import scaling
from smml.parallel.links import Link

LINKS = {name: Link(0.0, 1e-9) for name in scaling.WIRE}


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(scaling.os, "sched_getaffinity", lambda _: {0, 1})


def test_ranks_that_share_cores_are_limited_by_them(two_cores):
    limits = scaling.limits_of("data", 1.0, 0.52, 4, "gloo", LINKS)
    assert limits.cores == pytest.approx(0.25), "half a second on two cores, a quarter on four"
    assert limits.largest == "cores"
    assert sum(vars(limits).values()) == pytest.approx(0.52 - 0.25)


def test_a_gpu_a_rank_is_a_core_a_rank(two_cores):
    limits = scaling.limits_of("data", 1.0, 0.27, 4, "nccl", LINKS)
    assert limits.cores == 0.0
    assert limits.largest in ("wire", "unexplained")


def test_a_pipeline_waits_for_its_first_and_last_micro_batch(two_cores):
    limits = scaling.limits_of("pipeline-1f1b", 1.0, 0.63, 2, "gloo", LINKS)
    assert limits.bubble == pytest.approx(0.5 / scaling.MICRO)
    assert scaling.limits_of("data", 1.0, 0.63, 2, "gloo", LINKS).bubble == 0.0


def test_zero_3_sends_half_as_much_again_as_data_parallel():
    data, zero = (scaling.wire_s(name, 4, LINKS) for name in ("data", "zero-3"))
    assert 1.4 * data < zero < 1.5 * data, "the root is gathered once a step"


def test_one_rank_loses_nothing(two_cores):
    assert vars(scaling.limits_of("tensor", 1.0, 1.0, 1, "gloo", {})) == {
        "cores": 0.0,
        "bubble": 0.0,
        "wire": 0.0,
        "unexplained": 0.0,
    }
