"""Cross-entropy over a vocabulary that is cut among ranks: no rank ever sees all logits of a token.

Each knows the log-sum-exp of its own logits, and the target's logit where the target is its own. The whole log-sum-exp is
the log-sum-exp of all ranks', the target's logit is the sum: two numbers a token and rank, in one all-gather. (Megatron
reduces maximum, sum of exponentials and target's logit one after the other; a message costs more than eight bytes.)
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from smml.llama.ops import IGNORE_INDEX
from smml.parallel.differentiable import Sharing, entered, gathered, product_gradients


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, sharing: Sharing
) -> Tensor:
    """`llama.ops.linear_cross_entropy` with this rank's rows of weight [V/p, D]: the same loss on every rank.

    hidden [N, D], with sequence parallel [N/p, D]; targets [N], ids of the whole vocabulary.
    """
    return _LinearCrossEntropy.apply(hidden, weight, targets, sharing)


class _LinearCrossEntropy(Function):
    """Logits [N, V/p] become their gradient in place: one such tensor is held, and it is all that backward needs."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, sharing: Sharing
    ) -> Tensor:
        hidden, kept = entered(hidden, sharing)
        logits = F.linear(hidden, weight).float()  # [N, V/p]
        row = targets - sharing.rank * len(weight)
        mine = (row >= 0) & (row < len(weight))  # IGNORE_INDEX is below 0 and so nobody's
        column = row.where(mine, 0).unsqueeze(1)
        own_target = logits.gather(1, column).squeeze(1).where(mine, 0.0)
        largest = logits.amax(1)
        exponentials = logits.sub_(largest.unsqueeze(1)).exp_()
        own = torch.stack((exponentials.sum(1).log_() + largest, own_target))
        parts, coming = gathered(own.unsqueeze(0), sharing)  # [p, 2, N]
        coming.wait()
        log_sum = parts[:, 0].logsumexp(0)
        counted = targets != IGNORE_INDEX
        loss = (log_sum - parts[:, 1].sum(0)).where(counted, 0.0).sum() / counted.sum()

        share = counted / counted.sum()  # of each token in the mean
        gradient = exponentials.mul_(((largest - log_sum).exp_() * share).unsqueeze(1))
        gradient.scatter_add_(1, column, (share * -1.0).where(mine, 0.0).unsqueeze(1))
        ctx.sharing = sharing
        ctx.save_for_backward(gradient.to(weight.dtype), kept, weight)
        return loss

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor) -> tuple[Tensor | None, ...]:
        of_logits, kept, weight = ctx.saved_tensors
        # Both products are linear in the loss's gradient, a number: it need not go over the logits.
        of_hidden, of_weight = product_gradients(of_logits, kept * of_loss, weight, ctx.sharing)
        return of_hidden.mul_(of_loss), of_weight, None, None
