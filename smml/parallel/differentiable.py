"""Collectives that autograd goes through: what one does in forward, its conjugate undoes in backward.

    forward            backward           where (arXiv:1909.08053, 2205.05198)
    all-reduce         nothing            after a row-parallel product: partial sums become the sum
    nothing            all-reduce         before a column-parallel one: each rank's gradient is a part of the sum
    reduce-scatter     all-gather         the first with sequence parallel
    all-gather         reduce-scatter     the second with sequence parallel

The second and the fourth are part of the product that follows, whose weight's gradient is computed while they travel.
Gathering and scattering is along the first dimension, where the parts of ranks lie one after the other: no copy is made.
"""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, distributed
from torch.autograd import Function
from torch.distributed import ProcessGroup, Work


@dataclass(frozen=True)
class Sharing:
    """Whose ranks share a model (None: all), and how.

    With `sequence` a rank holds only its rows [N/p, …] of what lies between the products; these are gathered before a
    product, and kept whole for its backward, or with `gather_again` gathered a second time there: p times less memory
    for one more all-gather.
    """

    group: ProcessGroup | None = None
    sequence: bool = False
    gather_again: bool = False

    @property
    def rank(self) -> int:
        """This rank's place among them."""
        return distributed.get_rank(self.group)

    @property
    def ranks(self) -> int:
        """How many they are."""
        return distributed.get_world_size(self.group)


def column_product(x: Tensor, weight: Tensor, bias: Tensor | None, sharing: Sharing) -> Tensor:
    """x · weightᵀ + bias with this rank's rows of weight [W/p, D] and of bias: x [N, …, D] → [N, …, W/p].

    With sequence parallel x is [N/p, …, D].
    """
    return _ColumnProduct.apply(x, weight, bias, sharing)


def partial_sum(x: Tensor, sharing: Sharing) -> Tensor:
    """The sum over ranks of x [N, …], in place; with sequence parallel this rank's rows [N/p, …] of it."""
    return (_ReduceScatter if sharing.sequence else _AllReduce).apply(x, sharing)


def used_by_all(x: Tensor, sharing: Sharing) -> Tensor:
    """x, which every rank holds alike and uses on rows of its own: its gradients are summed over ranks."""
    return _UsedByAll.apply(x, sharing)


def gathered(x: Tensor, sharing: Sharing) -> tuple[Tensor, Work]:
    """All ranks' rows [N, …] of x [N/p, …], there once the work is waited for; without gradient."""
    whole = x.new_empty((sharing.ranks * x.shape[0], *x.shape[1:]))
    return whole, distributed.all_gather_into_tensor(
        whole, x.contiguous(), sharing.group, async_op=True
    )


def scattered_sum(x: Tensor, sharing: Sharing) -> tuple[Tensor, Work]:
    """This rank's rows [N/p, …] of the sum of x [N, …], there once the work is waited for; without gradient."""
    rows = x.new_empty((x.shape[0] // sharing.ranks, *x.shape[1:]))
    return rows, distributed.reduce_scatter_tensor(
        rows, x.contiguous(), group=sharing.group, async_op=True
    )


def entered(x: Tensor, sharing: Sharing) -> tuple[Tensor, Tensor]:
    """What a product multiplies, [N, …, D], and what its backward has to keep of it."""
    if not sharing.sequence:
        return x, x
    whole, coming = gathered(x, sharing)
    coming.wait()
    return whole, x if sharing.gather_again else whole


def product_gradients(
    of_output: Tensor, kept: Tensor, weight: Tensor, sharing: Sharing
) -> tuple[Tensor, Tensor]:
    """Gradients of what entered a column product, and of its weight.

    The first is a part of a sum over ranks: it travels while the second is computed.
    """
    x, coming = gathered(kept, sharing) if sharing.gather_again else (kept, None)
    of_x = of_output @ weight
    if sharing.sequence:
        of_x, travelling = scattered_sum(of_x, sharing)
    else:
        travelling = distributed.all_reduce(of_x, group=sharing.group, async_op=True)
    if coming is not None:
        coming.wait()
    of_weight = of_output.flatten(0, -2).T @ x.flatten(0, -2)
    travelling.wait()
    return of_x, of_weight


class _ColumnProduct(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, sharing: Sharing
    ) -> Tensor:
        x, kept = entered(x, sharing)
        ctx.sharing, ctx.biased = sharing, bias is not None
        ctx.save_for_backward(kept, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_x, of_weight = product_gradients(gradient, *ctx.saved_tensors, ctx.sharing)
        return of_x, of_weight, gradient.flatten(0, -2).sum(0) if ctx.biased else None, None


class _AllReduce(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sharing: Sharing) -> Tensor:
        ctx.mark_dirty(x)
        distributed.all_reduce(x, group=sharing.group)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _ReduceScatter(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sharing: Sharing) -> Tensor:
        ctx.sharing = sharing
        rows, coming = scattered_sum(x, sharing)
        coming.wait()
        return rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        whole, coming = gathered(gradient, ctx.sharing)
        coming.wait()
        return whole, None


class _UsedByAll(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sharing: Sharing) -> Tensor:
        ctx.sharing = sharing
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone()  # what comes in may be another node's too
        distributed.all_reduce(total, group=ctx.sharing.group)
        return total, None
