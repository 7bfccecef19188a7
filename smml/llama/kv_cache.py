"""Keys and values of the tokens already seen: preallocated, or grown token by token."""

from typing import Protocol

import torch
from torch import Tensor

from smml.errors import UserError
from smml.llama.config import LlamaConfig


class KVCache(Protocol):
    """What the model asks of a cache: how long it is, and to take in a layer's new keys and values."""

    length: int

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take in keys and values [B, K, T, d]; return all of that layer [B, K, length + T, d]."""

    def advance(self, tokens: int) -> None:
        """Count `tokens` more as seen, once every layer has taken them in."""


class StaticCache:
    """Cache that owns [B, K, S, d] for keys and values of each layer from the start: a step copies only itself.

    Raises UserError when more than S tokens are written.
    """

    def __init__(
        self,
        config: LlamaConfig,
        batch: int,
        max_length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (batch, config.kv_heads, max_length, config.head_dim)
        self.keys = [torch.empty(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.values = [torch.empty(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.max_length = max_length
        self.length = 0

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Copy keys and values [B, K, T, d] in place; return views [B, K, length + T, d]."""
        tokens = keys.shape[2]
        end = self.length + tokens
        if end > self.max_length:
            raise UserError(
                f"the KV cache holds {self.max_length} tokens and {end} are needed: make it with a larger max_length."
            )
        self.keys[layer].narrow(2, self.length, tokens).copy_(keys)
        self.values[layer].narrow(2, self.length, tokens).copy_(values)
        return self.keys[layer].narrow(2, 0, end), self.values[layer].narrow(2, 0, end)

    def advance(self, tokens: int) -> None:
        """Count `tokens` more as seen."""
        self.length += tokens

    def memory_bytes(self) -> int:
        """Bytes allocated for keys and values of all layers."""
        return sum(tensor.nbytes for tensor in self.keys + self.values)


class GrowingCache:
    """Cache that holds exactly the tokens seen; every step copies the whole of it once more (torch.cat)."""

    def __init__(self, config: LlamaConfig) -> None:
        self.keys: list[Tensor | None] = [None] * config.layers
        self.values: list[Tensor | None] = [None] * config.layers
        self.length = 0

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values [B, K, T, d]; return all [B, K, length + T, d]."""
        if self.keys[layer] is None:
            # Copies, so that the cache does not keep alive the projections that these are views of.
            self.keys[layer] = keys.clone(memory_format=torch.contiguous_format)
            self.values[layer] = values.clone(memory_format=torch.contiguous_format)
        else:
            self.keys[layer] = torch.cat((self.keys[layer], keys), dim=2)
            self.values[layer] = torch.cat((self.values[layer], values), dim=2)
        return self.keys[layer], self.values[layer]

    def advance(self, tokens: int) -> None:
        """Count `tokens` more as seen."""
        self.length += tokens

    def memory_bytes(self) -> int:
        """Bytes allocated for keys and values of all layers; 0 before the first token."""
        return sum(tensor.nbytes for tensor in self.keys + self.values if tensor is not None)
