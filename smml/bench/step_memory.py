"""The most memory that a training step takes: measured from what torch allocates, predicted from the model's shape."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from smml.llama import counts
from smml.llama.config import LlamaConfig


@dataclass(frozen=True)
class Plan:
    """How a step on [batch, tokens] of a Llama keeps what backward needs; numbers of `itemsize` bytes, losses in float32.

    `attention`: "flash" keeps no scores, "math" their softmax. `loss`: "whole" holds all logits at once, "chunked" those
    of `chunk` rows, forward and again in backward; "fused" too, but finds both gradients in forward and keeps them.
    `fused`: norms and SwiGLU are one kernel each, which keeps its input alone; `fused_norm`: only the norms are.
    """

    shape: LlamaConfig
    batch: int
    tokens: int
    itemsize: int = 4
    attention: Literal["flash", "math"] = "flash"
    loss: Literal["whole", "chunked", "fused"] = "whole"
    chunk: int = 0
    fused: bool = False
    fused_norm: bool = False
    checkpointing: bool = False


def predict_peak(plan: Plan) -> int:
    """Most bytes of a step: of its largest moment."""
    return max(moments(plan).values())


def moments(plan: Plan) -> dict[str, int]:
    """Bytes at the moments of a step that can be its largest, in their order.

    Backward of the loss, of the last layer and of the first (in which SwiGLU's gradients exist beside what it kept),
    and the update. Gradients do not exist before backward makes them. Under autocast (itemsize 2) every matrix is there
    in that format too.
    """
    shape, rows = plan.shape, plan.batch * plan.tokens
    parameters, state = counts.parameters(shape), counts.training_state_bytes(shape)
    copies = parameters.total * plan.itemsize if plan.itemsize < 4 else 0
    output = shape.vocab_size * shape.dim * 4  # gradient of the output matrix
    at_loss = {
        # Log-probabilities, kept, and their gradient, from which the logits' is made.
        "whole": 3 * rows * shape.vocab_size * 4,
        "chunked": 3 * plan.chunk * shape.vocab_size * 4 + output,
        "fused": plan.chunk * shape.vocab_size * plan.itemsize,
    }[plan.loss]
    if plan.loss == "fused":
        at_loss += (rows + shape.vocab_size) * shape.dim * plan.itemsize
    fixed = state.total - state.gradients + copies
    layer, kept = layer_bytes(plan), kept_bytes(plan)
    recomputed = layer if plan.checkpointing else 0
    working = rows * (2 * shape.feed_forward_dim + 2 * shape.dim) * plan.itemsize
    one_layer = 4 * (parameters.total - parameters.embedding - parameters.output) // shape.layers
    return {
        "loss": fixed + kept + at_loss,
        "last layer": fixed + output + kept + recomputed + working,
        "first layer": fixed + state.gradients - one_layer + layer + working,
        "update": state.total + (output if shape.tie_embeddings else 0),
    }


def kept_bytes(plan: Plan) -> int:
    """Bytes of activations that forward keeps for backward, the loss's own aside."""
    shape, rows = plan.shape, plan.batch * plan.tokens
    if not plan.checkpointing:
        layers = shape.layers * layer_bytes(plan)
    else:
        layers = shape.layers * rows * shape.dim * plan.itemsize
    fused = plan.fused or plan.fused_norm
    last_norm = shape.dim * (2 * plan.itemsize if fused else plan.itemsize + 8) + 4
    return layers + rows * (last_norm + 2 * 8)


def layer_bytes(plan: Plan) -> int:
    """Bytes that one layer keeps for its backward where nothing is computed again."""
    shape, rows = plan.shape, plan.batch * plan.tokens
    sizes = replace(shape, layers=1), plan.batch, plan.tokens, plan.itemsize
    kept = counts.activation_bytes(
        *sizes, checkpointing=True, fused_norm=plan.fused or plan.fused_norm
    ).recomputed
    if plan.attention == "math":
        # Scores' softmax instead of a sum a row; queries once more, keys and values repeated for the heads that share.
        kept += plan.batch * shape.heads * plan.tokens**2 * plan.itemsize - 4 * rows * shape.heads
        repeated = 3 * shape.query_dim - (2 * shape.kv_dim if shape.heads == shape.kv_heads else 0)
        kept += rows * repeated * plan.itemsize
    if plan.fused:
        # silu(gate) is found again from gate, 1/rms from its row.
        kept -= rows * (shape.feed_forward_dim * plan.itemsize + 2 * 4)
    return kept


def peak_bytes(step: Callable[[], object], held: int, device: str) -> int:
    """Most bytes that torch held during `step`; `held` were there before it (a CPU does not say how many).

    On a CPU the results of operations are followed, not what one takes and gives back within itself.
    """
    import torch

    if device == "cpu":
        from smml.measure.live_bytes import LiveBytes

        with LiveBytes() as followed:
            step()
        return held + followed.most
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()
