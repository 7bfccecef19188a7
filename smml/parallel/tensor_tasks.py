"""A task for workers: what a rank of a strategy really holds of a layer."""

from collections.abc import Mapping
from typing import Any

from smml.parallel.strategies import build
from smml.parallel.strategy import local
from smml.parallel.strategy_tasks import config


def shapes(
    strategy: str, model: Mapping[str, Any], layer: int = 0, **options: Any
) -> dict[str, list[int]]:
    """Shape of this rank's part of every parameter of a layer, by its name in it."""
    prefix = f"layers.{layer}."
    named = build(strategy, config(model), **options).module.named_parameters()
    return {
        name.removeprefix(prefix): list(local(p).shape)
        for name, p in named
        if name.startswith(prefix)
    }
