"""One training step: forward and backward over micro-batches, clip, update."""

import torch
from torch import Tensor

from smml.llama.model import Llama


def train_step(
    model: Llama,
    optimizer: torch.optim.Optimizer,
    batch: Tensor,
    *,
    micro_batch_size: int | None = None,
    clip_norm: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Update the model on batch [B, T + 1]; return the mean loss in nats and the gradient's norm before clipping.

    Micro-batches, of a size that divides B, give the gradient of the whole batch. `dtype` other than float32 computes
    the products in it (autocast), parameters and moments stay in float32. Both results are scalars on the device.
    """
    optimizer.zero_grad()
    parts = batch.split(micro_batch_size or len(batch))
    loss = torch.zeros((), device=batch.device)
    for part in parts:
        with torch.autocast(batch.device.type, dtype, enabled=dtype != torch.float32):
            part_loss = model(part[:, :-1], part[:, 1:]) / len(parts)
        part_loss.backward()
        loss += part_loss.detach()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss, norm
