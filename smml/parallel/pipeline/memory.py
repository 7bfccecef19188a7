"""The most that a rank of a pipeline holds, predicted: weights, moments, and activations in flight when it is fullest. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from smml.llama import counts
from smml.llama.config import LlamaConfig
from smml.parallel.pipeline.schedules import FORWARD, Schedule


def activation_bytes(
    config: LlamaConfig,
    layers: range,
    last: bool,
    sequences: int,
    tokens: int,
    *,
    fused_norm: bool = False,
) -> int:
    """Bytes that a micro-batch keeps in a stage of these layers until its backward, float32; see counts.activation_bytes."""
    one, two = (
        counts.activation_bytes(
            replace(config, layers=n), sequences, tokens, fused_norm=fused_norm
        ).saved
        for n in (1, 2)
    )
    layer = two - one
    stream = 4 * sequences * tokens * config.dim  # what is sent on is kept as well
    return len(layers) * layer + (one - layer if last else stream)


def most_bytes(
    config: LlamaConfig,
    plan: Schedule,
    parts: Sequence[range],
    rank: int,
    held: dict[str, int],
    sequences: int,
    tokens: int,
    *,
    fused_norm: bool = False,
) -> int:
    """The most bytes at the end of any forward: `held` as Strategy.holds says, gradients only once a backward has been,
    and the activations in flight. What an operation needs while it runs is left out.
    """
    kept = {
        stage: activation_bytes(
            config,
            parts[stage],
            stage == plan.stages - 1,
            sequences,
            tokens,
            fused_norm=fused_norm,
        )
        for stage in plan.stages_of(rank)
    }
    flying = gradients = most = 0
    for action in plan.actions[rank]:
        if action.kind == FORWARD:
            flying += kept[action.stage]
            most = max(most, flying + gradients)
        else:
            flying -= kept[action.stage]
            gradients = held["gradients"]
    return held["parameters"] + held["optimizer"] + most
