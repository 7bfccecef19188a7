"""The tokenizer gives back every text, is the same each time, and is the one that transformers loads."""

import pydoc_data.topics
from dataclasses import replace
from pathlib import Path

import pytest
import transformers
from hypothesis import given, strategies as st
from llama_variants import GROUPED, random_model

from smml.errors import UserError
from smml.llama import weights
from smml.llama.tokenizer import BEGIN, END, Tokenizer

TEXT = list(pydoc_data.topics.topics.values())[:12]
SAMPLES = [
    "",
    "def f(x):\n    return x",
    "naïve €5 – ¿qué?",
    "\x00\ufffd",
    "  spaces   here ",
    f"a{END}b",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXT, 400)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory) -> Path:
    model = random_model(replace(GROUPED, vocab_size=400))
    return weights.save(model, tmp_path_factory.mktemp("tokenizer") / "m", tokenizer=tokenizer)


@given(st.text())
def test_every_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert max(ids, default=0) < tokenizer.vocab_size == 400
    if BEGIN not in text and END not in text:
        assert tokenizer.decode(ids) == text


def test_special_tokens(tokenizer):
    assert (tokenizer.bos_id, tokenizer.eos_id) == (0, 1)
    ids = tokenizer.encode("text", bos=True, eos=True)
    assert ids == [0, *tokenizer.encode("text"), 1]
    assert tokenizer.decode(ids) == "text"


def test_merges_shorten_and_training_repeats(tokenizer):
    text = TEXT[3]
    assert len(tokenizer.encode(text)) < 0.7 * len(text.encode())
    assert Tokenizer.train(TEXT, 400).backend.to_str() == tokenizer.backend.to_str()


def test_transformers_loads_the_same(tokenizer, folder):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer.load(folder)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.model_max_length) == (0, 1, 64)
    assert (ours.bos_id, ours.eos_id) == (0, 1)
    for text in (*SAMPLES, TEXT[5][:3000]):
        ids = tokenizer.encode(text)
        assert ours.encode(text) == ids
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids)


def test_too_little_text_or_too_small_a_vocabulary():
    with pytest.raises(UserError, match=r"yields \d+ tokens and vocab_size is 1000"):
        Tokenizer.train(["a few words"], 1000)
    with pytest.raises(UserError, match="vocab_size is 200"):
        Tokenizer.train(TEXT, 200)


def test_missing_or_damaged_files(folder, tmp_path):
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text((folder / "tokenizer.json").read_text()[:500])
    with pytest.raises(UserError, match="is no tokenizer"):
        Tokenizer.load(tmp_path)


def test_must_fit_the_config(tokenizer):
    config = replace(GROUPED, vocab_size=400)
    tokenizer.check(config)
    tokenizer.check(replace(config, vocab_size=512))  # padded
    for size in (399, 32_000):
        with pytest.raises(
            UserError, match=f"has 400 tokens and the config's vocab_size is {size}"
        ):
            tokenizer.check(replace(config, vocab_size=size))
    with pytest.raises(UserError, match=r"is token 1 and the config's eos_token_id is \[2\]"):
        tokenizer.check(replace(config, eos_token_ids=(2,)))


def test_token_named_by_an_object(folder, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text((folder / name).read_text())
    path = tmp_path / "tokenizer_config.json"
    path.write_text(path.read_text().replace(f'"{END}"', f'{{"content": "{END}"}}'))
    assert Tokenizer.load(tmp_path).eos_id == 1
