"""Text and JSONL files as documents, read piece by piece; a part of each held out where no other files are."""

import codecs
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from smml.errors import UserError

PIECE_BYTES = 2**20  # what is held in memory of a text file at once


@dataclass(frozen=True)
class Source:
    """Bytes start … end of a file, whole lines; a .jsonl file holds a document a line, any other one document."""

    path: Path
    start: int
    end: int


@dataclass(frozen=True)
class Piece:
    """Consecutive text of a document, and whether it begins and ends there."""

    text: str
    begins: bool
    ends: bool


def whole(path: Path | str) -> Source:
    """All of a file; UserError where it is missing or empty."""
    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}. Give a text or JSONL file."
        ) from error
    if not path.is_file() or size == 0:
        raise UserError(
            f"{path} is {'empty' if path.is_file() else 'no file'}: give a text or JSONL file with text in it."
        )
    return Source(path, 0, size)


def split(source: Source, share: float) -> tuple[Source, Source]:
    """The source without its last `share`, and that share, cut at the end of a line."""
    cut = source.start + int((source.end - source.start) * (1 - share))
    with source.path.open("rb") as file:
        file.seek(cut)
        cut += len(file.readline())
        if cut >= source.end:  # the last line is longer than the share: hold out just that line
            file.seek(source.start)
            lengths = [len(line) for line in file]
            cut = source.end - lengths[-1]
    if not source.start < cut < source.end:
        raise UserError(
            f"{source.path} is one line of {source.end - source.start} bytes, of which {share:.0%} cannot be held "
            "out: give --held-out FILE, or --held-out-share 0."
        )
    return Source(source.path, source.start, cut), Source(source.path, cut, source.end)


def pieces(sources: Iterable[Source], text_field: str = "text") -> Iterator[Piece]:
    """Documents of the sources in order; UserError names file and place of what is no text."""
    for source in sources:
        yield from _lines(source, text_field) if source.path.suffix == ".jsonl" else _text(source)


def fingerprint(sources: Iterable[Source]) -> str:
    """sha256 over the bytes of the sources, in order."""
    digest = sha256()
    for source in sources:
        with source.path.open("rb") as file:
            file.seek(source.start)
            left = source.end - source.start
            while left and (block := file.read(min(left, PIECE_BYTES))):
                digest.update(block)
                left -= len(block)
    return digest.hexdigest()


def _text(source: Source) -> Iterator[Piece]:
    """One document, cut at ends of lines where it is longer than a piece."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    position, pending, begins = source.start, "", True
    with source.path.open("rb") as file:
        file.seek(position)
        while position < source.end:
            block = file.read(min(PIECE_BYTES, source.end - position))
            last = position + len(block) >= source.end or not block
            pending += _decoded(decoder, block, last, source.path, position)
            position += len(block) or source.end
            cut = len(pending) if last else pending.rfind("\n") + 1
            if cut:
                yield Piece(pending[:cut], begins, last)
                pending, begins = pending[cut:], False


def _lines(source: Source, text_field: str) -> Iterator[Piece]:
    """One document a line; empty lines are passed over."""
    position = source.start
    with source.path.open("rb") as file:
        file.seek(position)
        while position < source.end:
            line = file.readline()
            place = f"{source.path}, byte {position}"
            position += len(line) or source.end
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise UserError(
                    f"{place}: the line is no JSON ({error}). Correct or remove it."
                ) from error
            text = entry.get(text_field) if isinstance(entry, dict) else None
            if not isinstance(text, str):
                found = ", ".join(entry) if isinstance(entry, dict) else type(entry).__name__
                raise UserError(
                    f"{place}: the line has no text in field {text_field!r}, it has {found}: give --text-field NAME."
                )
            yield Piece(text, True, True)


def _decoded(
    decoder: codecs.IncrementalDecoder, block: bytes, last: bool, path: Path, position: int
) -> str:
    # A NUL is valid UTF-8 and stands in no text: model weights and archives are full of them.
    null = block.find(b"\0")
    if null >= 0:
        raise UserError(
            f"{path} is binary (a zero at byte {position + null}): give a text or JSONL file."
        )
    try:
        return decoder.decode(block, last)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is no UTF-8 text (near byte {position + error.start}): convert it to UTF-8 first."
        ) from error
