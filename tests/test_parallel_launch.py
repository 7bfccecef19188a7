"""Workers that stay up: results by rank, failures with the first traceback, hangs named, nobody left behind."""

import os
import signal
import time
from pathlib import Path

import pytest

from smml.errors import UserError
from smml.parallel.launch import WorkerError, Workers
from smml.parallel.links import COLLECTIVES

SUM = "smml.parallel.examples:sum_of_ranks"


@pytest.fixture(scope="module")
def workers():
    """Two ranks that find the tasks of `parallel_tasks.py`."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), before]))
    with Workers(2) as started:
        yield started
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ended(pids: list[int]) -> bool:
    """Whether all processes end within some seconds."""
    for _ in range(100):
        if not any(map(alive, pids)):
            return True
        time.sleep(0.1)
    return False


def test_one_start_serves_many_tasks_and_gives_each_ranks_output(workers):
    assert workers.run(SUM) == [1.0, 1.0]
    first = workers.run("parallel_tasks:process_id")
    assert workers.run(SUM, times=3) == [3.0, 3.0]
    assert workers.output(1) == "rank 1 of 2 adds up to 3.0\n"
    assert workers.run("parallel_tasks:process_id") == first
    assert len(set(first)) == 2


def test_records_come_back_as_records(workers):
    (record, other) = workers.run("parallel_tasks:a_record")
    assert record.name == "rank/0"
    assert other.name == "rank/1"


def test_a_failing_rank_ends_the_others_at_once(workers):
    pids = workers.run("parallel_tasks:process_id")
    with pytest.raises(WorkerError, match="rank 1 of 2 failed in parallel_tasks:fail") as caught:
        workers.run("parallel_tasks:fail", rank=1)
    assert caught.value.rank == 1
    assert "ValueError: no such layer" in caught.value.details
    assert "rank 0" not in str(caught.value)
    assert ended(pids)
    assert workers.run(SUM) == [1.0, 1.0], "the next task starts anew"


def test_a_killed_rank_is_named_not_the_one_that_missed_it(workers):
    with pytest.raises(WorkerError, match=r"rank 0 of 2 ended during .* without an answer"):
        workers.run("parallel_tasks:end", rank=0)


def test_a_hang_ends_in_time_and_says_who_is_missing(workers):
    with pytest.raises(WorkerError, match="ranks 0 wait in barrier; ranks 1 are in no") as caught:
        workers.run("parallel_tasks:hang", rank=1, timeout_s=2)
    assert caught.value.rank == 1
    assert "in hang" in caught.value.details


def test_ranks_that_call_different_collectives_are_told_apart(workers):
    with pytest.raises(WorkerError, match="ranks 0 wait in recv; ranks 1 wait in all_reduce"):
        workers.run("parallel_tasks:disagree", timeout_s=2)


def test_mistakes_that_every_rank_answers_cost_no_start(workers):
    pids = workers.run("parallel_tasks:process_id")
    for target, message in (
        ("parallel_tasks:nothing", "has no function 'nothing'"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        ("parallel_tasks:a_tensor", "a Tensor cannot be sent between processes"),
    ):
        with pytest.raises(UserError, match=message):
            workers.run(target)
    with pytest.raises(UserError, match="a object cannot be sent"):
        workers.run(SUM, times=object())
    assert workers.run("parallel_tasks:process_id") == pids


def test_workers_end_with_the_process_that_asked(workers):
    pids = workers.run("parallel_tasks:process_id")
    for channel in workers._channels.values():
        channel.close()  # as when a notebook's kernel is killed
    assert ended(pids)
    workers.close()
    assert workers.run(SUM) == [1.0, 1.0]


def test_a_start_that_fails_says_why(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setattr("smml.parallel.launch.worker.__name__", "smml.parallel.nothing")
    with pytest.raises(WorkerError, match="ranks 0, 1 of 2 did not start") as caught:
        Workers(2).run(SUM)
    assert "smml.parallel.nothing" in caught.value.details


def test_a_start_that_fails_after_a_mistake_leaves_nothing_to_wait_for(workers, monkeypatch):
    with pytest.raises(UserError, match="has no function"):
        workers.run("parallel_tasks:nothing")
    workers.close()
    monkeypatch.setattr("smml.parallel.launch.worker.__name__", "smml.parallel.nothing")
    with pytest.raises(WorkerError, match="did not start"):
        workers.run(SUM)
    monkeypatch.undo()
    assert workers.run(SUM) == [1.0, 1.0]


def test_no_ranks_are_refused():
    with pytest.raises(UserError, match="0 ranks: give at least 1"):
        Workers(0)


def test_one_rank_is_a_group_too():
    with Workers(1) as alone:
        assert alone.run(SUM, times=2) == [0.0]
        (proof,) = alone.run("smml.parallel.collective_tasks:prove", elements=5)
        assert {name: proof[name]["messages"] for name in COLLECTIVES} == dict.fromkeys(
            COLLECTIVES, 0
        )


def test_a_signal_of_the_agent_does_not_leave_ranks(workers):
    pids = workers.run("parallel_tasks:process_id")
    workers._agent.send_signal(signal.SIGTERM)
    assert ended(pids)
    workers.close()
