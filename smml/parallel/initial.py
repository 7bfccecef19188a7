"""The unsharded model's first weights, one at a time: for ranks of which none could hold them all."""

from collections.abc import Iterator

import torch
from torch import Tensor

from smml.llama.config import LlamaConfig
from smml.llama.model import Llama, initialise


def weights(
    config: LlamaConfig, seed: int, device: torch.device | str = "cpu"
) -> Iterator[tuple[str, Tensor]]:
    """Name and float32 value of every parameter of Llama(config, seed=seed), in its order, each made when asked for."""
    generator = torch.Generator(device=device).manual_seed(seed)
    for name, parameter in Llama(config, device="meta").named_parameters():
        weight = torch.empty(parameter.shape, device=device)
        yield name, initialise(weight, name, config, generator)


def rope_tables(config: LlamaConfig, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """cos and sin of every position, which every rank holds."""
    from smml.llama import model

    cos, sin = model.rope_tables(config, torch.float32)
    return cos.to(device), sin.to(device)
