"""The drill is real: processes are told, killed and resumed, the loss curve is that of an uninterrupted run."""

import os
import sys
from dataclasses import replace
from datetime import date

import pytest
from made_setting import made_setting

from smml.aws import spot_drill
from smml.aws.spot_drill import CONFIGURATION, Drill, Stop, bill, drill
from smml.data import Quantity
from smml.errors import UserError
from smml.hardware import detect
from smml.hardware.ceiling_cache import cache_path

STEPS, EVERY = CONFIGURATION["steps"], CONFIGURATION["checkpoint-every"]
# What the drill needs of a training and nothing else, so that starting it takes no seconds: a step logged every 20 ms,
# checkpoints, SIGTERM, --resume.
STAND_IN = f"""
import json, pathlib, signal, sys, time
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
(out / "checkpoints").mkdir(parents=True, exist_ok=True)
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(None))
start = max((int(path.name[5:]) for path in (out / "checkpoints").iterdir()), default=0)
log = out / "log.jsonl"
lines = log.read_text().splitlines()[:start] if log.exists() else []
log.write_text("".join(line + chr(10) for line in lines))
for step in range(start + 1, {STEPS} + 1):
    time.sleep(0.02)
    with log.open("a") as file:
        file.write(json.dumps({{"step": step, "train": {{"loss": LOSS}}}}) + chr(10))
    if step % {EVERY} == 0 or asked:
        (out / "checkpoints" / f"step-{{step:08d}}").mkdir()
    if asked:
        sys.exit(143)
"""


@pytest.fixture
def stand_in(monkeypatch):
    """Trainings that only count; `loss` is an expression of `step` and `start`."""

    def put(loss: str) -> None:
        script = STAND_IN.replace("LOSS", loss)
        monkeypatch.setattr(spot_drill, "TRAINER", (sys.executable, "-c", script))

    put("1 / step")
    return put


def test_a_real_training_is_told_and_goes_on_with_the_curve_of_an_uninterrupted_one(
    tmp_path, monkeypatch
):
    # Ceilings made up, so that the trainings do not measure them first.
    path = cache_path(detect())
    path.parent.mkdir(parents=True)
    path.write_text(made_setting().ceilings.model_dump_json())
    run = drill(tmp_path / "run")
    (told,) = run.stops
    assert run.identical
    assert list(run.curve) == list(range(1, STEPS + 1))
    assert len(set(run.curve.values())) > STEPS / 2, "it trains"
    assert told.how == "notice"
    assert told.at_step >= 12
    assert told.steps_lost == 0, "the notice made it checkpoint where it was"
    words = (tmp_path / "run" / "interrupted.txt").read_text()
    assert f"stopped after step {told.at_step}, which a checkpoint holds" in words
    assert words.count(f"step {STEPS}/{STEPS}") == 1, "only the second one came to the end"
    assert len(run.instance_s) == 2
    assert 0 < told.to_checkpoint_s < run.instance_s[0]
    assert 0 < run.recovery_s < run.total_s == pytest.approx(sum(run.instance_s))


def test_the_notice_loses_no_step_and_a_kill_those_since_the_last_checkpoint(stand_in, tmp_path):
    run = drill(tmp_path / "run", (("notice", 3), ("kill", 12)))
    told, killed = run.stops
    assert (told.how, killed.how) == ("notice", "kill")
    assert told.at_step >= 3
    assert told.steps_lost == 0
    assert killed.at_step >= 12
    # A kill may come between a step's line and its checkpoint.
    newest = {at // EVERY * EVERY for at in (killed.at_step, killed.at_step - 1)}
    assert killed.checkpoint_step in newest
    assert killed.to_checkpoint_s is None
    assert all(stop.recover_s > 0 for stop in run.stops)
    assert len(run.instance_s) == 3
    assert run.identical
    assert set(run.curve) == set(range(1, STEPS + 1))


def test_a_curve_that_does_not_go_on_as_it_was_is_found(stand_in, tmp_path):
    stand_in("1 / step + (start > 0) * 1e-9")
    assert not drill(tmp_path / "run", (("kill", 12),)).identical


@pytest.fixture
def made_prices(monkeypatch):
    """0.5 USD an hour on spot and 1.0 on demand, made up."""

    def price(item: str, region: str, kind: str) -> Quantity:
        value = {"spot": 0.5, "on-demand": 1.0}[kind]
        cited = {"source": "made up", "url": "https://example.com", "date": date(2026, 1, 1)}
        return Quantity(value=value, unit="USD/h", checked=True, **cited)

    monkeypatch.setattr(spot_drill, "spot_price", lambda item, region: price(item, region, "spot"))
    monkeypatch.setattr(spot_drill, "price", lambda item, region: price(item, region, "on-demand"))


def made(instance_s: tuple[float, ...], recover_s: float) -> Drill:
    stops = tuple(Stop("kill", 20, 16, None, recover_s) for _ in instance_s[1:])
    return Drill(stops, {1: 1.0}, {1: 1.0}, instance_s)


def test_a_bill_counts_everything_that_was_done_twice(made_prices):
    run = made((3600.0, 1800.0, 3600.0), 600.0)
    found = bill(run, "g5.xlarge")
    assert found.spot_usd == pytest.approx(2.5 * 0.5)
    assert found.on_demand_usd == pytest.approx((9000 - 2 * 600) / 3600)
    assert found.saved == pytest.approx(1 - found.spot_usd / found.on_demand_usd)
    # The second instance was taken back in its first hour, for which EC2 does not charge.
    assert found.charged_usd == pytest.approx(2.0 * 0.5)
    longer = bill(replace(run, instance_s=(3600.0, 1800.0, 7200.0)), "g5.xlarge")
    assert longer.spot_usd > found.spot_usd
    assert longer.on_demand_usd > found.on_demand_usd


def test_a_curve_that_differs_anywhere_is_not_identical():
    run = made((1.0, 1.0), 0.5)
    assert run.identical
    assert not replace(run, curve={1: 1.0 + 1e-12}).identical
    assert not replace(run, curve={}).identical
    assert run.stops[0].steps_lost == 4


@pytest.mark.parametrize(
    ("stops", "said"),
    [
        ((), "stops are at steps []"),
        ((("kill", 0),), "stops are at steps [0]: give growing steps between 1 and 39"),
        ((("kill", 40),), "stops are at steps [40]"),
        ((("kill", 9), ("notice", 9)), "stops are at steps [9, 9]"),
        ((("kill", 9), ("notice", 4)), "stops are at steps [9, 4]"),
        ((("shout", 9),), "stops name ['shout']: allowed are notice and kill"),
    ],
)
def test_stops_that_cannot_be_are_named(tmp_path, stops, said):
    with pytest.raises(UserError) as error:
        drill(tmp_path / "run", stops)
    assert said in str(error.value)
    assert not os.listdir(tmp_path), "nothing was begun"


def test_a_training_that_fails_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setitem(CONFIGURATION, "batch-size", 0)
    with pytest.raises(UserError, match=r"the training ended early: .*batch_size"):
        drill(tmp_path / "run")


def test_an_unknown_price_is_named():
    with pytest.raises(UserError, match=r"q9\.large"):
        bill(made((1.0, 1.0), 0.5), "q9.large")
