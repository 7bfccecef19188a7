"""The loop: resumed curves are the same bit for bit, kills leave checkpoints whole, other configurations are refused."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from llama_variants import GROUPED

from smml.errors import UserError
from smml.llama import weights
from smml.llama.config import LlamaConfig
from smml.llama.model import Llama
from smml.llama.tokenizer import Tokenizer
from smml.train import card, checkpoint, log
from smml.train.config import TrainConfig, read
from smml.train.evaluate import evaluate
from smml.train.loop import Stopped, train
from smml.train.optimizer import adamw
from smml.train.precision import Peak
from smml.train.shards import Tokens
from smml.train.step import train_step

TEXT = "".join(f"the {i}th line says that {i} and {i + 1} make {2 * i + 1}.\n" for i in range(400))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A folder with a text and a small random model, vocabulary 300, to start from."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "text.txt").write_text(TEXT)
    config = LlamaConfig(**{**vars(GROUPED), "vocab_size": 300})
    weights.save(Llama(config, seed=1), folder / "model", tokenizer=Tokenizer.train([TEXT], 300))
    return folder


def config_of(base: Path, out: Path, **changes) -> TrainConfig:
    values = {"init": base / "model", "data": [str(base / "text.txt")], "out": out}
    values |= {"steps": 12, "warmup_steps": 2, "sequence_length": 24, "batch_size": 4}
    values |= {"log_every": 4, "evaluate_every": 6, "checkpoint_every": 4, "learning_rate": 1e-2}
    return read(values | changes)


def test_a_resumed_run_has_the_same_curve_bit_for_bit(base, tmp_path, capsys):
    whole = train(config_of(base, tmp_path / "whole"), peak=Peak(1e12, "measured"))
    assert list(whole.losses) == list(range(1, 13))
    assert whole.losses[12] < whole.losses[1] - 0.5, "it learns"
    shown = capsys.readouterr().out
    for part in ("step 12/12", "loss ", "tok/s", "of the measured ceiling", "memory", "left 0:00"):
        assert part in shown

    part = tmp_path / "part"
    shutil.copytree(tmp_path / "whole", part)
    shutil.rmtree(
        part / "checkpoints" / "step-00000012"
    )  # back to step 8; the log knows of later steps
    torch.manual_seed(99)
    resumed = train(config_of(base, part, resume=True, checkpoint_every=5))
    assert "MFU unknown" in capsys.readouterr().out
    assert resumed.losses == whole.losses
    assert log.curve(part, "held_out") == log.curve(tmp_path / "whole", "held_out")
    assert resumed.held_out == whole.held_out
    pairs = zip(resumed.model.parameters(), whole.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    names = [path.name for path in checkpoint.steps(part / "checkpoints")]
    assert names == ["step-00000010", "step-00000012"], "the newest two are kept"
    assert list((part / "tensorboard").glob("events*"))


@pytest.mark.parametrize("after", [1, 6, 11])
def test_a_run_that_is_asked_to_stop_leaves_a_checkpoint_and_goes_on_with_the_same_curve(
    base, tmp_path, after
):
    whole = train(config_of(base, tmp_path / "whole"))
    steps_seen = []

    def stop() -> bool:
        # Asked after every step: the log of earlier steps may not be written yet, the count is.
        steps_seen.append(None)
        return len(steps_seen) >= after

    part = config_of(base, tmp_path / "part", evaluate_every=12, checkpoint_every=12, log_every=5)
    with pytest.raises(Stopped, match="stopped after step") as stopped:
        train(part, stop=stop)
    kept = [path.name for path in checkpoint.steps(tmp_path / "part" / "checkpoints")]
    assert kept == [f"step-{stopped.value.step:08d}"]
    assert 1 <= stopped.value.step <= after
    assert max(log.curve(tmp_path / "part")) == stopped.value.step
    resumed = train(config_of(base, tmp_path / "part", resume=True))
    assert resumed.losses == whole.losses


def test_a_run_that_is_asked_to_stop_at_its_last_step_ends_as_usual(base, tmp_path):
    asked = []

    def stop() -> bool:
        asked.append(None)
        return len(asked) >= 12

    late = dict.fromkeys(("log_every", "evaluate_every", "checkpoint_every"), 100)
    run = train(config_of(base, tmp_path / "r", **late), stop=stop)
    assert list(run.losses) == list(range(1, 13))
    assert run.held_out is not None


def test_a_finished_run_can_be_resumed_and_does_nothing(base, tmp_path):
    first = train(config_of(base, tmp_path / "r"))
    again = train(config_of(base, tmp_path / "r", resume=True))
    assert again.losses == first.losses
    assert again.held_out == first.held_out


def test_a_folder_with_a_run_is_not_written_over_by_accident(base, tmp_path):
    train(config_of(base, tmp_path / "r", steps=4))
    with pytest.raises(UserError, match="holds a run at step-00000004: add --resume"):
        train(config_of(base, tmp_path / "r", steps=4))
    anew = train(config_of(base, tmp_path / "r", steps=5, overwrite=True))
    assert list(anew.losses) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 0.02}, "learning_rate = 0.01 and this run has 0.02"),
        ({"steps": 16}, "steps = 12 and this run has 16"),
        ({"seed": 7}, "seed = 0 and this run has 7"),
        ({"dtype": "bfloat16"}, "dtype = 'float32' and this run has 'bfloat16'"),
        ({"held_out_share": 0.5}, "training text = "),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(base, tmp_path, changes, said):
    train(config_of(base, tmp_path / "r"))
    with pytest.raises(UserError) as error:
        train(config_of(base, tmp_path / "r", resume=True, **changes))
    assert said in str(error.value)


def test_a_checkpoint_of_another_model_is_refused(base, tmp_path):
    train(config_of(base, tmp_path / "r"))
    wider = LlamaConfig(**{**vars(GROUPED), "vocab_size": 300, "feed_forward_dim": 128})
    weights.save(Llama(wider), tmp_path / "wider", tokenizer=Tokenizer.load(base / "model"))
    with pytest.raises(UserError, match=r"model.feed_forward_dim = 96 and this run has 128"):
        train(config_of(base, tmp_path / "r", resume=True, init=tmp_path / "wider"))


KILLED = """
import os, signal, sys
from smml.train import checkpoint
from smml.train.config import read
from smml.train.loop import train
import json
written = checkpoint.write_json
def killed(path, content):
    if content.get("step") == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    written(path, content)
checkpoint.write_json = killed
train(read(json.loads(sys.argv[1])))
"""


def test_a_kill_during_a_checkpoint_leaves_the_previous_one_and_the_run_goes_on(base, tmp_path):
    whole = train(config_of(base, tmp_path / "whole"))
    config = config_of(base, tmp_path / "r")
    fields = json.dumps(config.model_dump(mode="json"))
    died = subprocess.run([sys.executable, "-c", KILLED, fields], capture_output=True, timeout=120)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    folder = tmp_path / "r" / "checkpoints"
    assert [path.name for path in checkpoint.steps(folder)] == ["step-00000004"]
    assert list(folder.glob(".step-00000008*")), "the kill came in the middle of writing"
    assert max(log.curve(tmp_path / "r")) == 8
    resumed = train(config_of(base, tmp_path / "r", resume=True))
    assert resumed.losses == whole.losses
    assert not list(folder.glob(".*")), "what the killed writer left is gone"


def test_accumulated_gradients_are_those_of_the_whole_batch(base, tmp_path):
    batch = torch.randint(300, (6, 17), generator=torch.Generator().manual_seed(0))
    config = config_of(base, tmp_path)
    results = []
    for micro in (None, 2, 1):
        model = weights.load(base / "model")
        loss, norm = train_step(
            model, adamw(model, config), batch, micro_batch_size=micro, clip_norm=0.1
        )
        results.append((loss, norm, [p.grad for p in model.parameters()]))
    for loss, norm, gradients in results[1:]:
        assert loss.item() == pytest.approx(results[0][0].item(), rel=1e-5)
        assert norm.item() == pytest.approx(results[0][1].item(), rel=1e-4)
        for a, b in zip(gradients, results[0][2], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    total = torch.stack([g.norm() for g in results[0][2]]).norm()
    assert total.item() == pytest.approx(0.1, rel=1e-3), "clipped"


def test_only_matrices_decay(base):
    model = weights.load(base / "model")
    decayed, rest = adamw(model, config_of(base, Path("r"))).param_groups
    assert decayed["weight_decay"] > 0 == rest["weight_decay"]
    assert {p.dim() for p in decayed["params"]} == {2}
    assert len(rest["params"]) == 2 * GROUPED.layers + 1


@pytest.mark.parametrize("changes", [{"activation_checkpointing": True}, {"dtype": "bfloat16"}])
def test_other_ways_to_compute_give_nearly_the_same_curve(base, tmp_path, changes):
    plain = train(config_of(base, tmp_path / "a", steps=6))
    other = train(config_of(base, tmp_path / "b", steps=6, **changes))
    tolerance = 1e-6 if "activation_checkpointing" in changes else 0.02
    assert list(other.losses.values()) == pytest.approx(list(plain.losses.values()), rel=tolerance)
    assert all(p.dtype == torch.float32 for p in other.model.parameters())


def test_evaluation_counts_every_token_once(base, tmp_path):
    run = train(config_of(base, tmp_path / "r", steps=4))
    tokens = run.data.held_out
    assert run.held_out.tokens == tokens.count - 1
    stream = torch.from_numpy(tokens.read(0, tokens.count))
    nats = 0.0
    with torch.no_grad():
        for start in range(0, tokens.count - 1, 24):
            window = stream[start : start + 25]
            logits = run.model(window[None, :-1])[0].double()
            nats -= logits.log_softmax(-1).gather(1, window[1:, None]).sum().item()
    assert run.held_out.loss == pytest.approx(nats / (tokens.count - 1), rel=1e-5)
    assert run.held_out.bits_per_byte == pytest.approx(
        nats / 0.6931471805599453 / tokens.text_bytes
    )
    shorter = evaluate(run.model, tokens, 24, 1)
    assert shorter.loss == pytest.approx(run.held_out.loss, rel=1e-6), (
        "the batch makes no difference"
    )


def test_jsonl_fine_tuning_and_export(base, tmp_path):
    lines = [json.dumps({"body": line}) for line in TEXT.splitlines()]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    changes = {
        "data": [str(tmp_path / "a.jsonl")],
        "text_field": "body",
        "export": tmp_path / "tuned",
    }
    run = train(config_of(base, tmp_path / "r", steps=4, **changes))
    record = card.record(run, "python -m smml.train …", "a machine")
    folder = card.export(run, record)
    again = weights.load(folder)
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), run.model.parameters(), strict=True)
    )
    text = (folder / card.CARD).read_text()
    assert text == card.render(json.loads((folder / card.RECORD).read_text()))
    assert f"{run.held_out.perplexity:.2f}" in text
    assert "fine-tuned from" in text
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([run.data.tokenizer.encode("the 7th line says")])
    torch.testing.assert_close(theirs(ids).logits, run.model(ids), rtol=1e-4, atol=1e-5)

    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="exists and holds no model"):
        card.export(train(config_of(base, tmp_path / "s", steps=4, export=other)), record)
    assert (other / "thesis.txt").exists()


def test_sequences_longer_than_the_context_and_a_diverging_loss(base, tmp_path):
    with pytest.raises(
        UserError, match="sequence_length is 65 and the model's max_sequence_length is 64"
    ):
        train(config_of(base, tmp_path / "r", sequence_length=65))
    broken = weights.load(base / "model")
    with torch.no_grad():
        broken.norm.weight.fill_(float("nan"))
    weights.save(broken, tmp_path / "broken", tokenizer=Tokenizer.load(base / "model"))
    with pytest.raises(UserError, match="the loss is no number after step 4"):
        train(config_of(base, tmp_path / "s", init=tmp_path / "broken"))


def test_tokens_are_made_once(base, tmp_path):
    train(config_of(base, tmp_path / "r", steps=4))
    folder = tmp_path / "r" / "data" / "train"
    made = (folder / "00000.bin").stat().st_mtime_ns
    train(config_of(base, tmp_path / "r", steps=4, overwrite=True))
    assert (folder / "00000.bin").stat().st_mtime_ns == made
    train(config_of(base, tmp_path / "r", steps=4, overwrite=True, held_out_share=0.2))
    assert (folder / "00000.bin").stat().st_mtime_ns != made
    assert Tokens.open(folder).count > 0
