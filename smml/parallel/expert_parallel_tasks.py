"""Tasks for workers: where a router sends its tokens, while it learns."""

from typing import Any

from smml.parallel.proof import batch_of
from smml.parallel.strategies import build
from smml.parallel.strategy_tasks import Options, config


def loads(
    model: Options, batch: int, tokens: int, options: Options | None = None, steps: int = 1
) -> list[list[list[int]]]:
    """Tokens of each expert, by step and layer, of all ranks together, in `steps` steps of expert parallel."""
    shape = config(model)
    strategy: Any = build("expert", shape, **(options or {}))
    found = []
    for step in range(steps):
        strategy.backward(batch_of(shape, batch, tokens, seed=step))
        strategy.update()
        found.append(strategy.module.loads().tolist())
    return found
