"""The model of the fourteen steps: which character follows which, trained by gradient descent in numpy within a second.

Small enough for every machine and real enough to have data, a loss that falls, checkpoints and an answer. The loss has
a known floor, the entropy of the counted pairs, so that the training can be judged.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np

# The most frequent characters; the last entry stands for all others.
VOCABULARY = 64
OTHER = "\N{REPLACEMENT CHARACTER}"
SHARD_TOKENS = 65_536
# One character in ten is held out.
HELD_OUT = 10


@dataclass(frozen=True)
class Settings:
    """What a tuning job may change, and how long the training is."""

    learning_rate: float = 30.0
    batch_size: int = 8_192
    steps: int = 150
    seed: int = 0


@lru_cache(maxsize=1)
def text() -> str:
    """Text that every Python ships: its own help topics, about half a million characters."""
    from pydoc_data.topics import topics

    return "".join(topics[name] for name in sorted(topics))


@lru_cache(maxsize=1)
def vocabulary() -> str:
    """The characters with a token of their own, most frequent first."""
    counted = Counter(text())
    return "".join(sorted(counted, key=lambda c: (-counted[c], c))[: VOCABULARY - 1])


def tokenise(passage: str) -> np.ndarray:
    """[characters] tokens as int16."""
    number = {character: token for token, character in enumerate(vocabulary())}
    return np.array([number.get(character, VOCABULARY - 1) for character in passage], np.int16)


def write_shards(folder: Path) -> list[Path]:
    """Tokens of the whole text as .npy files; those that stand are kept, so that an interrupted run goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, start in enumerate(range(0, len(text()), SHARD_TOKENS)):
        path = folder / f"shard-{number:03d}.npy"
        if not path.exists():
            save(path, tokenise(text()[start : start + SHARD_TOKENS]))
        written.append(path)
    return written


def split(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Tokens to train on, and those held out from the end."""
    tokens = np.concatenate([np.load(path) for path in sorted(folder.glob("shard-*.npy"))])
    cut = len(tokens) - len(tokens) // HELD_OUT
    return tokens[:cut], tokens[cut:]


def train(
    tokens: np.ndarray, settings: Settings, weights: np.ndarray | None = None, done: int = 0
) -> Iterator[tuple[int, np.ndarray, float]]:
    """After each step its number, the weights [V, V] and the loss of its batch; goes on from `weights` after `done` steps.

    A step's batch follows from seed and step alone, so that a resumed training is the uninterrupted one.
    """
    weights = np.zeros((VOCABULARY, VOCABULARY)) if weights is None else weights.copy()
    for step in range(done, settings.steps):
        random = np.random.default_rng([settings.seed, step])
        at = random.integers(0, len(tokens) - 1, settings.batch_size)
        counted = pairs(tokens[at], tokens[at + 1])
        rows = counted.sum(1, keepdims=True)
        logarithms = log_softmax(weights)
        loss = -(counted * logarithms).sum() / settings.batch_size
        gradient = (rows * np.exp(logarithms) - counted) / settings.batch_size
        weights -= settings.learning_rate * gradient
        yield step + 1, weights.copy(), float(loss)


def trained(tokens: np.ndarray, settings: Settings) -> np.ndarray:
    """The weights [V, V] after all steps."""
    *_, (_, weights, _) = train(tokens, settings)
    return weights


def pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[V, V] how often each token follows each."""
    flat = first.astype(np.int64) * VOCABULARY + second
    return np.bincount(flat, minlength=VOCABULARY**2).reshape(VOCABULARY, VOCABULARY).astype(float)


def log_softmax(weights: np.ndarray) -> np.ndarray:
    """[V, V] logarithms of the probabilities of the next token, a row for each token before it."""
    shifted = weights - weights.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def mean_loss(weights: np.ndarray, tokens: np.ndarray) -> float:
    """Nats a token on these tokens."""
    counted = pairs(tokens[:-1], tokens[1:])
    return float(-(counted * log_softmax(weights)).sum() / counted.sum())


def lowest_loss(tokens: np.ndarray) -> float:
    """Nats a token that no weights [V, V] can go below on these tokens: the entropy of their pairs."""
    counted = pairs(tokens[:-1], tokens[1:])
    seen = counted[counted > 0]
    share = (counted / np.maximum(counted.sum(1, keepdims=True), 1))[counted > 0]
    return float(-(seen * np.log(share)).sum() / counted.sum())


def following(weights: np.ndarray, passage: str) -> str:
    """The likeliest character after the passage."""
    token = int(weights[tokenise(passage[-1:])[0]].argmax())
    return (vocabulary() + OTHER)[token]


def save(path: Path, array: np.ndarray) -> Path:
    """Write an .npy file whole or not at all."""
    with NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
        np.save(file, array)
    os.replace(file.name, path)
    return path
