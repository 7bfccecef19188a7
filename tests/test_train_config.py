"""The configuration: preset, TOML file and command line, and errors that name field and values."""

import subprocess
import sys

import pytest

from smml.errors import UserError
from smml.train.config import PRESETS, TrainConfig, parse, read
from smml.train.optimizer import learning_rate

BASE = {"model": "tiny", "data": ("a.txt",)}


def test_the_command_line_wins_over_file_and_preset(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('model = "tiny"\ndata = ["a.txt", "b.txt"]\nsteps = 70\nlearning_rate = 0.01\n')
    config = parse([str(path), "--steps", "90", "--activation-checkpointing"])
    assert (config.steps, config.learning_rate) == (90, 0.01)
    assert config.data == ("a.txt", "b.txt")
    assert config.activation_checkpointing
    assert parse(["tiny", "--seed", "5"]).seed == 5
    assert parse(["tiny"]).steps == PRESETS["tiny"]["steps"]
    assert (
        parse(["--model", "tiny", "--data", "a.txt"]).steps
        == TrainConfig.model_fields["steps"].default
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"steps": "many"}, "steps is 'many'"),
        ({"steps": 0}, "steps is 0: Input should be greater than or equal to 1"),
        ({"stepz": 3}, "no field is called 'stepz': there are model, init"),
        ({"batch_size": 8, "micro_batch_size": 3}, "batch_size is 8 and micro_batch_size is 3"),
        ({"steps": 10, "warmup_steps": 10}, "warmup_steps is 10 and steps is 10"),
        ({"init": "folder"}, "model is tiny and init is folder"),
        ({"model": None}, "model is None and init is None"),
        ({"model": None, "init": "x", "export": "x"}, "init and export are both x"),
        ({"data": ()}, "data is empty"),
        ({"resume": True, "overwrite": True}, "resume and overwrite"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"device": "tpu"}, "device is 'tpu'"),
    ],
)
def test_errors_name_field_and_values(values, said):
    with pytest.raises(UserError) as error:
        read(BASE | values)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_no_preset_and_no_file(tmp_path):
    with pytest.raises(UserError, match=r"neither a preset \(tiny\) nor a .toml file"):
        parse(["large"])
    with pytest.raises(UserError, match="cannot read"):
        parse([str(tmp_path / "no.toml")])
    (tmp_path / "bad.toml").write_text("steps = = 3")
    with pytest.raises(UserError, match="cannot read"):
        parse([str(tmp_path / "bad.toml")])


def test_the_rate_warms_up_and_follows_a_cosine():
    config = read(
        BASE
        | {"steps": 110, "warmup_steps": 10, "learning_rate": 1.0, "final_learning_rate_share": 0.1}
    )
    rates = [learning_rate(config, step) for step in range(110)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert sum(rates[10:]) / 100 == pytest.approx(0.55)


def test_help_lists_every_field_and_a_mistake_is_one_line():
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "smml.train", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )

    shown = call("--help").stdout
    assert all("--" + name.replace("_", "-") in shown for name in TrainConfig.model_fields)
    mistake = call("tiny", "--steps", "-1")
    assert mistake.returncode == 2
    assert mistake.stderr.startswith("smml.train: steps is '-1'")
    assert mistake.stderr.count("\n") == 1
