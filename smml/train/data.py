"""From the files of a configuration to a tokenizer and two streams of tokens, made once for each run folder."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from smml.errors import UserError
from smml.llama.config import LlamaConfig, named_config
from smml.llama.folder import load_config
from smml.llama.tokenizer import Tokenizer
from smml.train import shards, text, topics
from smml.train.config import TOPICS, TrainConfig


@dataclass(frozen=True)
class Data:
    """What a run trains on; `held_out` is None where nothing is evaluated."""

    tokenizer: Tokenizer
    train: shards.Tokens
    held_out: shards.Tokens | None


def sources(config: TrainConfig) -> tuple[list[text.Source], list[text.Source]]:
    """Training and held-out parts of the configuration's files."""
    if TOPICS in config.data:
        if len(config.data) > 1 or config.held_out:
            raise UserError(
                f"data is {list(config.data)}: {TOPICS} stands alone and brings its held-out part."
            )
        train, held_out = topics.write(config.out / "text")
        return [text.whole(train)], [text.whole(held_out)]
    wholes = [text.whole(path) for path in config.data]
    if config.held_out:
        return wholes, [text.whole(path) for path in config.held_out]
    if not config.held_out_share:
        return wholes, []
    parts = [text.split(source, config.held_out_share) for source in wholes]
    return [train for train, _ in parts], [held_out for _, held_out in parts]


def prepare(config: TrainConfig, model_config: LlamaConfig) -> Data:
    """Tokenizer (the init folder's, else trained on the training part) and token shards in `config.out`.

    What an earlier run left there is used where text and tokenizer are the same.
    """
    train, held_out = sources(config)
    of_text = text.fingerprint(train)
    tokenizer = _tokenizer(config, model_config, train, of_text)
    of_tokenizer = sha256(tokenizer.backend.to_str().encode()).hexdigest()
    streams = []
    for name, parts in (("train", train), ("held_out", held_out)):
        fingerprint = sha256(f"{text.fingerprint(parts)} {of_tokenizer}".encode()).hexdigest()
        folder = config.out / "data" / name
        streams.append(_tokens(folder, config, parts, tokenizer, fingerprint) if parts else None)
    return Data(tokenizer, streams[0], streams[1])


def model_config(config: TrainConfig) -> LlamaConfig:
    """Shape of the model that is trained; UserError where its context is shorter than the sequences."""
    shape = load_config(config.init) if config.init else named_config(config.model)
    if config.sequence_length > shape.max_sequence_length:
        raise UserError(
            f"sequence_length is {config.sequence_length} and the model's max_sequence_length is "
            f"{shape.max_sequence_length}: shorten the sequences."
        )
    return shape


def _tokenizer(
    config: TrainConfig, model_config: LlamaConfig, train: list[text.Source], of_text: str
) -> Tokenizer:
    if config.init:
        return Tokenizer.load(config.init)
    folder = config.out / "tokenizer" / f"{of_text[:16]}-{model_config.vocab_size}"
    if not (folder / "tokenizer_config.json").exists():
        texts = (piece.text for piece in text.pieces(train, config.text_field))
        trained = Tokenizer.train(texts, model_config.vocab_size)
        trained.save(folder, model_config.max_sequence_length)
    tokenizer = Tokenizer.load(folder)
    tokenizer.check(model_config)
    return tokenizer


def _tokens(
    folder: Path,
    config: TrainConfig,
    parts: list[text.Source],
    tokenizer: Tokenizer,
    fingerprint: str,
) -> shards.Tokens:
    if (folder / shards.HEADER).exists() and (
        found := shards.Tokens.open(folder)
    ).fingerprint == fingerprint:
        return found
    return shards.write(folder, text.pieces(parts, config.text_field), tokenizer, fingerprint)
