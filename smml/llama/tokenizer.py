"""A byte-level BPE tokenizer in a Hugging Face folder: train, load, save, encode, decode."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from smml.errors import UserError
from smml.llama.config import LlamaConfig
from smml.llama.folder import load_config, read_json, write_json

BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"
# Embeddings are often padded to a round size, so up to this many of their ids may stand for no token.
MAX_PADDING = 255


class Tokenizer:
    """Text to token ids and back; `bos_id` and `eos_id` are None where the folder names none."""

    def __init__(
        self, backend: tokenizers.Tokenizer, bos_token: str | None, eos_token: str | None
    ) -> None:
        self.backend, self.bos_token, self.eos_token = backend, bos_token, eos_token
        self.bos_id = None if bos_token is None else backend.token_to_id(bos_token)
        self.eos_id = None if eos_token is None else backend.token_to_id(eos_token)

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Byte-level BPE of exactly `vocab_size` tokens: two special ones (ids 0 and 1), 256 bytes, the rest merges.

        Raises UserError when the text is too short for so many, or vocab_size is below 258.
        """
        if vocab_size < 258:
            raise UserError(
                f"vocab_size is {vocab_size}: 256 bytes and 2 special tokens need 258 or more."
            )
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[BEGIN, END],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        if backend.get_vocab_size() != vocab_size:
            raise UserError(
                f"the text yields {backend.get_vocab_size()} tokens and vocab_size is {vocab_size}: "
                "give more text or a smaller vocab_size."
            )
        return cls(backend, BEGIN, END)

    @classmethod
    def load(cls, folder: Path | str) -> "Tokenizer":
        """Tokenizer of a Hugging Face folder, checked against its config.json where there is one.

        Raises UserError for a missing or damaged tokenizer.json and for a vocabulary that config.json does not fit.
        """
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.exists():
            raise UserError(f"{folder} has no tokenizer.json: give a folder with one.")
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"{path} is no tokenizer ({error}): fetch it again.") from error
        path = folder / "tokenizer_config.json"
        special = read_json(path) if path.exists() else {}
        # Older files spell a token as an object with its flags.
        names = (special.get(name) for name in ("bos_token", "eos_token"))
        tokenizer = cls(
            backend, *(name["content"] if isinstance(name, dict) else name for name in names)
        )
        if (folder / "config.json").exists():
            tokenizer.check(load_config(folder))
        return tokenizer

    def check(self, config: LlamaConfig) -> None:
        """UserError, naming both values, unless every token has an embedding and nearly every embedding a token."""
        if not 0 <= config.vocab_size - self.vocab_size <= MAX_PADDING:
            raise UserError(
                f"the tokenizer has {self.vocab_size} tokens and the config's vocab_size is {config.vocab_size}: "
                "they do not belong together. Take both from the same model."
            )
        if (
            self.eos_id is not None
            and config.eos_token_ids
            and self.eos_id not in config.eos_token_ids
        ):
            raise UserError(
                f"the tokenizer's end of text is token {self.eos_id} and the config's eos_token_id is "
                f"{list(config.eos_token_ids)}: they do not belong together. Take both from the same model."
            )

    def save(self, folder: Path | str, max_sequence_length: int) -> None:
        """Write tokenizer.json and the tokenizer_config.json with which transformers' AutoTokenizer loads it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(folder / "tokenizer.json"))
        fields = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "model_max_length": max_sequence_length,
            "clean_up_tokenization_spaces": False,
        }
        write_json(folder / "tokenizer_config.json", fields)

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Token ids of `text`, with the begin and end tokens where asked; those written in the text count as tokens."""
        ids = self.backend.encode(text, add_special_tokens=False).ids
        return [self.bos_id] * bos + ids + [self.eos_id] * eos

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out; bytes that are no UTF-8 become U+FFFD."""
        return self.backend.decode(list(ids), skip_special_tokens=True)
