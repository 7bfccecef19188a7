"""Arrays cut as a sharding says, and a product done device by device: what a plan claims, carried out without devices."""

import numpy as np

from smml.errors import UserError
from smml.parallel.sharding.pattern import Device, Sharding
from smml.parallel.sharding.product import Plan

Pieces = dict[Device, np.ndarray]


def place(whole: np.ndarray, sharding: Sharding) -> Pieces:
    """Device → its piece of the array. Raises UserError for partial sums, which do not say how they add up."""
    if sharding.partial:
        raise UserError(f"{sharding} is a partial sum: many pieces add up to the same array.")
    return {
        device: whole[sharding.slices(whole.shape, device)].copy()
        for device in sharding.mesh.devices()
    }


def collect(pieces: Pieces, sharding: Sharding, shape: tuple[int, ...]) -> np.ndarray:
    """The whole array from the pieces, partial ones added. Raises UserError where copies of a piece differ."""
    axes = list(sharding.mesh.axes)
    whole = np.full(shape, np.nan)
    for device in pieces:
        group = [
            pieces[other]
            for other in pieces
            if all(
                other[axes.index(x)] == device[axes.index(x)]
                for x in axes
                if x not in sharding.partial
            )
        ]
        total, at = sum(group), sharding.slices(shape, device)
        if not np.isnan(whole[at]).all() and not np.allclose(whole[at], total):
            raise UserError(f"devices of {sharding} hold different copies of the same piece.")
        whole[at] = total
    return whole


def carry_out(plan: Plan, a: np.ndarray, b: np.ndarray) -> Pieces:
    """The pieces of the result, each from what its device holds after the plan's gathering."""
    held = {"A": (a, place(a, plan.a), plan.a), "B": (b, place(b, plan.b), plan.b)}
    for step in plan.before:
        whole, pieces, sharding = held[step.operand]
        dims = tuple(
            type(d)(d.name, tuple(x for x in d.axes if x != step.axis)) for d in sharding.dimensions
        )
        after = Sharding(dims, sharding.mesh)
        held[step.operand] = (whole, all_gather(pieces, sharding, after, step.axis), after)
    shape = (a.shape[0], b.shape[1])
    raw = {device: held["A"][1][device] @ held["B"][1][device] for device in held["A"][1]}
    if not plan.after:
        return raw
    whole = collect(raw, plan.raw, shape)
    return place(whole, plan.result)


def all_gather(pieces: Pieces, before: Sharding, after: Sharding, axis: str) -> Pieces:
    """Every device joins the pieces of those that differ from it along `axis` only, in order."""
    index = list(before.mesh.axes).index(axis)
    (dim,) = (n for n, d in enumerate(before.dimensions) if axis in d.axes)
    if before.dimensions[dim].axes[-1] != axis:
        raise UserError(
            f"{before}: {axis} is not the innermost axis of {before.dimensions[dim].name}; gather that first."
        )
    return {
        device: np.concatenate(
            [
                pieces[(*device[:index], n, *device[index + 1 :])]
                for n in range(before.mesh.axes[axis])
            ],
            axis=dim,
        )
        for device in after.mesh.devices()
    }
