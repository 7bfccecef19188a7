"""The text that every Python ships, pydoc_data.topics, without repetitions and with a fixed part held out.

It differs a little from one Python version to the next; the split follows the topics' names, so that a topic held out
under one version is held out under all.
"""

import json
from hashlib import sha256
from pathlib import Path

from smml import atomic

HELD_OUT_ONE_IN = 10


def documents() -> tuple[list[str], list[str]]:
    """Texts to train on and texts held out, by topic; a paragraph that stood before, held-out ones first, is left out.

    About a fifth of the text repeats itself, so that without this the held-out topics would stand in the others.
    """
    from pydoc_data.topics import topics

    held_out = {
        name for name in topics if int(sha256(name.encode()).hexdigest(), 16) % HELD_OUT_ONE_IN == 0
    }
    seen: set[str] = set()
    split: tuple[list[str], list[str]] = ([], [])
    for name in sorted(topics, key=lambda name: (name not in held_out, name)):
        kept = []
        for paragraph in topics[name].split("\n\n"):
            words = " ".join(paragraph.split())
            if words not in seen:
                seen.add(words)
                kept.append(paragraph)
        if kept:
            split[name in held_out].append("\n\n".join(kept).strip("\n") + "\n")
    return split


def write(folder: Path) -> tuple[Path, Path]:
    """The two parts as train.jsonl and held_out.jsonl in `folder`."""
    paths = folder / "train.jsonl", folder / "held_out.jsonl"
    for path, texts in zip(paths, documents(), strict=True):
        atomic.write_text(path, "".join(json.dumps({"text": text}) + "\n" for text in texts))
    return paths
