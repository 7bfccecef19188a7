"""Batches of sequences in a shuffled order that one number resumes."""

import numpy as np
import torch
from torch import Tensor

from smml.errors import UserError
from smml.train.shards import Tokens


class Batches:
    """Endless batches of tokens [B, T + 1]: all windows of T in an order drawn for each epoch, then the next epoch.

    `position` counts the sequences drawn; a new object with the same seed and position goes on with the same batches.
    Each epoch also shifts the windows' borders, so that a token is not always seen with the same context.
    """

    def __init__(
        self, tokens: Tokens, sequence_length: int, batch_size: int, seed: int, position: int = 0
    ) -> None:
        self.tokens, self.sequence_length, self.batch_size = tokens, sequence_length, batch_size
        self.seed, self.position = seed, position
        # One window fewer than would fit, so that the borders have room to shift.
        self.windows = (tokens.count - 1) // sequence_length - 1
        if self.windows < 1:
            raise UserError(
                f"the text has {tokens.count} tokens and sequence_length is {sequence_length}: at least "
                f"{2 * sequence_length + 1} tokens are needed. Give more text or shorter sequences."
            )
        self._epoch = -1
        self._starts = np.empty(0, np.int64)

    @property
    def epoch(self) -> float:
        """Passes over the data so far."""
        return self.position / self.windows

    def next(self) -> Tensor:
        """The next batch, int64 [B, T + 1] on the CPU."""
        rows = np.stack([self._row(self.position + i) for i in range(self.batch_size)])
        self.position += self.batch_size
        return torch.from_numpy(rows)

    def _row(self, position: int) -> np.ndarray:
        epoch, index = divmod(position, self.windows)
        if epoch != self._epoch:
            random = np.random.default_rng((self.seed, epoch))
            shift = random.integers(self.sequence_length)
            self._starts = shift + self.sequence_length * random.permutation(self.windows)
            self._epoch = epoch
        start = int(self._starts[index])
        return self.tokens.read(start, start + self.sequence_length + 1)
