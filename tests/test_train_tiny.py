"""The tiny model: its files, its record, and that the command which made it still makes it."""

import json
import math
from pathlib import Path

import pytest
import torch
import transformers

from smml.llama import weights
from smml.llama.config import CONFIGS
from smml.llama.folder import load_config
from smml.llama.tokenizer import Tokenizer
from smml.train import card, shards, text, topics
from smml.train.config import parse
from smml.train.evaluate import evaluate
from smml.train.loop import train

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "models" / "tiny"
GOLDEN = json.loads((ROOT / "tests" / "golden" / "tiny_loss.json").read_text())


@pytest.fixture(autouse=True)
def one_thread():
    """Beside other work, two threads that wait for each other at every product are the slower ones."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def band(of: str, training_text: str) -> float:
    """How far a loss may lie from the recorded one: Python versions differ in the text that they ship."""
    return GOLDEN[of][
        "band_same_text" if training_text == GOLDEN["training_text"] else "band_other_text"
    ]


def test_the_folder_is_small_and_whole():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 5_000_000
    assert load_config(FOLDER) == CONFIGS["tiny"]
    assert Tokenizer.load(FOLDER).vocab_size == CONFIGS["tiny"].vocab_size
    record = card.load_record(FOLDER)
    assert (FOLDER / card.CARD).read_text() == card.render(record)
    assert record["held_out"]["loss"] == pytest.approx(
        GOLDEN["stored_model"]["held_out_loss"], abs=1e-4
    )
    assert record["held_out"]["perplexity"] == pytest.approx(math.exp(record["held_out"]["loss"]))
    assert record["training_text"]["fingerprint"] == GOLDEN["training_text"]


def test_its_command_is_the_preset_that_is_recorded():
    record = card.load_record(FOLDER)
    arguments = record["command"].removeprefix("python -m smml.train ").split()
    fields = parse(arguments).model_dump(mode="json")
    assert {name: fields[name] for name in record["config"]} == record["config"]


def test_the_stored_model_predicts_held_out_text_as_recorded(tmp_path):
    _, held_out = topics.write(tmp_path)
    sources = [text.whole(held_out)]
    tokenizer = Tokenizer.load(FOLDER)
    tokens = shards.write(
        tmp_path / "t", text.pieces(sources), tokenizer, text.fingerprint(sources)
    )
    record = card.load_record(FOLDER)
    found = evaluate(weights.load(FOLDER), tokens, record["config"]["sequence_length"], 4)
    same = (tokens.text_bytes, tokens.count) == tuple(
        record["held_out_text"][k] for k in ("bytes", "tokens")
    )
    near = GOLDEN["stored_model"]["band_same_text" if same else "band_other_text"]
    assert found.loss == pytest.approx(record["held_out"]["loss"], rel=near)
    assert found.bits_per_byte == pytest.approx(record["held_out"]["bits_per_byte"], rel=near)


def test_a_short_version_of_the_command_reaches_the_recorded_loss(tmp_path):
    golden = GOLDEN["short_run"]
    run = train(parse([*golden["arguments"], "--out", str(tmp_path)]))
    near = band("short_run", run.data.train.fingerprint)
    assert run.losses[1] == pytest.approx(golden["first_loss"], rel=0.01)
    assert run.held_out.loss == pytest.approx(golden["held_out_loss"], rel=near)
    assert near > band(
        "short_run", GOLDEN["training_text"]
    ) or run.data.tokenizer.backend.to_str() == (Tokenizer.load(FOLDER).backend.to_str()), (
        "the same text gives the same tokenizer"
    )


def test_transformers_loads_it_unchanged():
    theirs = transformers.AutoModelForCausalLM.from_pretrained(FOLDER)
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    said = 'The "lambda" expression yields a function object.'
    ids = tokenizer(said, return_tensors="pt").input_ids
    assert ids[0].tolist() == Tokenizer.load(FOLDER).encode(said)
    ours = weights.load(FOLDER)
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, ours(ids), rtol=1e-4, atol=1e-4)
