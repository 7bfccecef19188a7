"""From files to batches: what is no text is refused by name, shards hold every token, a position resumes the order."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from smml.errors import UserError
from smml.llama.tokenizer import Tokenizer
from smml.train import shards, text, topics
from smml.train.batches import Batches

WORDS = "one step at a time, said the model; and it was quiet for a while.\n"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([WORDS * 50], 270)


def tokens_of(folder, tokenizer, *texts, **options) -> shards.Tokens:
    pieces = [text.Piece(one, True, True) for one in texts]
    return shards.write(folder, pieces, tokenizer, "f", **options)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "a.txt is empty"),
        ("a.txt", b"text\0more", "binary (a zero at byte 4)"),
        ("a.txt", b"caf\xe9 au lait", "no UTF-8 text (near byte 3)"),
        ("a.jsonl", b'{"text": "x"}\n{"text": ', "byte 14: the line is no JSON"),
        ("a.jsonl", b'{"body": "x"}\n', "no text in field 'text', it has body: give --text-field"),
        ("a.jsonl", b"[1, 2]\n", "it has list"),
        ("a.jsonl", b"\x00\xff\x00\n", "the line is no JSON"),
    ],
)
def test_what_is_no_text_is_refused(name, content, said, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        list(text.pieces([text.whole(path)]))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_an_empty_text(tmp_path, tokenizer):
    with pytest.raises(UserError, match="no-such-file"):
        text.whole(tmp_path / "no-such-file")
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"text": ""}\n')
    with pytest.raises(UserError, match="the text is empty"):
        shards.write(tmp_path / "t", text.pieces([text.whole(path)]), tokenizer, "f")
    assert not (tmp_path / "t").exists()


@given(
    st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1)
)
@settings(max_examples=40)
def test_a_text_file_comes_back_whole_in_pieces(tmp_path_factory, lines):
    content = "\n".join(lines)
    if not content:
        return
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "PIECE_BYTES", 7)
        pieces = list(text.pieces([text.whole(path)]))
    assert "".join(piece.text for piece in pieces) == content
    assert [piece.begins for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_the_end_of_a_file_is_held_out_at_a_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"line {i}\n" for i in range(100)))
    train, held_out = text.split(text.whole(path), 0.1)
    assert train.end == held_out.start
    parts = ["".join(p.text for p in text.pieces([part])) for part in (train, held_out)]
    assert "".join(parts) == path.read_text()
    assert parts[1].startswith("line 9")
    assert len(parts[1]) == pytest.approx(0.1 * len(path.read_text()), rel=0.2)
    path.write_text("one line")
    with pytest.raises(UserError, match="--held-out FILE"):
        text.split(text.whole(path), 0.1)


def test_python_s_own_text_is_split_without_leaks():
    train, held_out = topics.documents()
    paragraphs = [
        [" ".join(p.split()) for d in part for p in d.split("\n\n")] for part in (train, held_out)
    ]
    assert not set(paragraphs[0]) & set(paragraphs[1])
    assert all(len(part) == len(set(part)) for part in paragraphs)
    size = [sum(map(len, part)) for part in (train, held_out)]
    assert size[0] > 250_000
    assert 0.05 < size[1] / sum(size) < 0.2
    assert topics.documents() == (train, held_out)


@pytest.mark.parametrize("shard_tokens", [10**6, 97, 1])
def test_shards_hold_every_token(shard_tokens, tmp_path, tokenizer):
    documents = [WORDS * 3, "x", WORDS]
    written = tokens_of(tmp_path / "t", tokenizer, *documents, shard_tokens=shard_tokens)
    expected = [i for one in documents for i in tokenizer.encode(one, bos=True, eos=True)]
    again = shards.Tokens.open(tmp_path / "t")
    assert written.count == again.count == len(expected)
    assert again.read(0, again.count).tolist() == expected
    assert again.read(5, 40).tolist() == expected[5:40]
    assert again.text_bytes == sum(len(one.encode()) for one in documents)
    header = json.loads((tmp_path / "t" / shards.HEADER).read_text())
    assert header["dtype"] == "<u2"
    assert len(header["shards"]) == -(-len(expected) // shard_tokens)


def test_damaged_shards_are_refused(tmp_path, tokenizer):
    tokens_of(tmp_path / "t", tokenizer, WORDS)
    path = tmp_path / "t" / "00000.bin"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=rf"is {size - 3} bytes and its header says {size}"):
        shards.Tokens.open(tmp_path / "t")


def test_an_epoch_shows_every_window_once_and_a_position_resumes(tmp_path, tokenizer):
    tokens = tokens_of(tmp_path / "t", tokenizer, WORDS * 40)
    stream = tokens.read(0, tokens.count)
    batches = Batches(tokens, 16, 1, seed=3)
    first = [batches.next() for _ in range(batches.windows)]
    assert batches.epoch == 1
    starts = set()
    for batch in first:
        assert batch.shape == (1, 17)
        assert batch.dtype == torch.int64
        hits = np.flatnonzero(
            (np.lib.stride_tricks.sliding_window_view(stream, 17) == batch.numpy()).all(1)
        )
        starts.add(int(hits[0]) % 16 if len(hits) == 1 else -1)
    assert len(starts - {-1}) <= 1, "one shift an epoch"
    covered = torch.cat([b[:, :16].flatten() for b in first])
    assert len(covered) == 16 * batches.windows

    later = [batches.next() for _ in range(5)]
    resumed = Batches(tokens, 16, 1, seed=3, position=batches.windows)
    assert all(torch.equal(a, resumed.next()) for a in later)
    pairs = Batches(tokens, 16, 2, seed=3)
    assert torch.equal(pairs.next(), torch.cat(first[:2]))
    other = Batches(tokens, 16, 1, seed=4)
    assert not all(torch.equal(a, other.next()) for a in first)


def test_too_little_text_for_one_sequence(tmp_path, tokenizer):
    tokens = tokens_of(tmp_path / "t", tokenizer, "x")
    with pytest.raises(
        UserError, match=f"the text has {tokens.count} tokens and sequence_length is 128"
    ):
        Batches(tokens, 128, 1, 0)
