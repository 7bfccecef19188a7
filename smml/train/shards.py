"""Tokens on disk: flat files of uint16 or uint32 with a JSON header, written whole or not at all, memory-mapped."""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from smml.errors import UserError
from smml.llama.folder import read_json, whole_folder, write_json
from smml.llama.tokenizer import Tokenizer
from smml.train.text import Piece

HEADER = "tokens.json"
SCHEMA = 1
SHARD_TOKENS = 2**28


class Tokens:
    """One stream of `count` tokens, which encode `text_bytes` bytes of text, over one or several shards."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        self.folder, self.header = folder, header
        self.fingerprint: str = header["fingerprint"]
        self.text_bytes: int = header["text_bytes"]
        counts = [shard["tokens"] for shard in header["shards"]]
        self.count = sum(counts)
        self._ends = list(accumulate(counts))
        dtype = np.dtype(header["dtype"])
        self._shards = []
        for shard in header["shards"]:
            path = folder / shard["file"]
            size = path.stat().st_size if path.exists() else 0
            if size != shard["tokens"] * dtype.itemsize:
                raise UserError(
                    f"{path} is {size} bytes and its header says {shard['tokens'] * dtype.itemsize}: "
                    f"delete {folder}, it is then made again."
                )
            self._shards.append(np.memmap(path, dtype, mode="r"))

    @classmethod
    def open(cls, folder: Path | str) -> "Tokens":
        """Tokens of a folder that `write` made; UserError where header and files do not agree."""
        header = read_json(Path(folder) / HEADER)
        if header.get("schema") != SCHEMA:
            raise UserError(
                f"{folder} has schema {header.get('schema')!r}, this version reads {SCHEMA}: delete the folder."
            )
        return cls(Path(folder), header)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens start … stop − 1 as int64 [stop − start]."""
        parts = []
        while start < stop:
            shard = bisect_right(self._ends, start)
            first = self._ends[shard - 1] if shard else 0
            end = min(stop, self._ends[shard])
            parts.append(self._shards[shard][start - first : end - first].astype(np.int64))
            start = end
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def write(
    folder: Path | str,
    pieces: Iterable[Piece],
    tokenizer: Tokenizer,
    fingerprint: str,
    *,
    shard_tokens: int = SHARD_TOKENS,
) -> Tokens:
    """Encode documents, each between the tokenizer's begin and end tokens where it has them, into `folder`.

    UserError where there is no text in any of them, or the disk is full.
    """
    folder = Path(folder)
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<u4")
    shards: list[dict[str, Any]] = []
    pending: list[int] = []
    text_bytes = 0
    with whole_folder(folder, overwrite=True) as partial:

        def flush(least: int) -> None:
            """Write full shards until fewer than `least` tokens are pending."""
            while len(pending) >= least:
                name = f"{len(shards):05d}.bin"
                np.array(pending[:shard_tokens], dtype).tofile(partial / name)
                shards.append({"file": name, "tokens": min(len(pending), shard_tokens)})
                del pending[:shard_tokens]

        for piece in pieces:
            begins = piece.begins and tokenizer.bos_id is not None
            ends = piece.ends and tokenizer.eos_id is not None
            pending += tokenizer.encode(piece.text, bos=begins, eos=ends)
            text_bytes += len(piece.text.encode())
            flush(shard_tokens)
        if not text_bytes:
            raise UserError("the text is empty: give files with text in them.")
        flush(1)
        header = {
            "schema": SCHEMA,
            "fingerprint": fingerprint,
            "dtype": dtype.str,
            "vocab_size": tokenizer.vocab_size,
            "text_bytes": text_bytes,
            "shards": shards,
        }
        write_json(partial / HEADER, header)
    return Tokens.open(folder)
