"""To and from PyTorch's DTensor placements: one a mesh axis, Shard(dim), Replicate() or Partial()."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from smml.errors import UserError
from smml.parallel.sharding.pattern import Dimension, Mesh, Sharding

if TYPE_CHECKING:  # torch takes seconds to import
    from torch.distributed.tensor.placement_types import Placement


def to_placements(sharding: Sharding) -> "tuple[Placement, ...]":
    """DTensor's placements, in the order of the mesh's axes.

    DTensor cuts a dimension in the order of the mesh's axes. Raises UserError for the other order (Iyx_J on a mesh x, y).
    """
    from torch.distributed.tensor import Partial, Replicate, Shard

    order = list(sharding.mesh.axes)
    for dimension in sharding.dimensions:
        if list(dimension.axes) != sorted(dimension.axes, key=order.index):
            raise UserError(
                f"{sharding}: DTensor cuts {dimension.name} in the order of the mesh ({', '.join(order)}); "
                "reorder the axes or the mesh."
            )
    of_axis = {axis: Shard(n) for n, d in enumerate(sharding.dimensions) for axis in d.axes}
    of_axis |= {axis: Partial() for axis in sharding.partial}
    return tuple(of_axis.get(axis, Replicate()) for axis in order)


def from_placements(placements: "Sequence[Placement]", names: str, mesh: Mesh) -> Sharding:
    """The sharding that DTensor's placements say, for dimensions `names` ("IJ").

    Raises UserError for another number of placements than axes, and for placements that the notation has no word for.
    """
    if len(placements) != len(mesh.axes):
        raise UserError(
            f"{len(placements)} placements for {len(mesh.axes)} mesh axes: give one an axis."
        )
    cuts: list[list[str]] = [[] for _ in names]
    partial = []
    for axis, placement in zip(mesh.axes, placements, strict=True):
        if type(placement).__name__ == "Shard" and -len(names) <= placement.dim < len(names):
            cuts[placement.dim].append(axis)
        elif placement.is_partial() and getattr(placement, "reduce_op", "sum") == "sum":
            partial.append(axis)
        elif not placement.is_replicate():
            raise UserError(
                f"{placement} over {axis} has no word here: Shard, Replicate and sums have."
            )
    dims = tuple(Dimension(name, tuple(axes)) for name, axes in zip(names, cuts, strict=True))
    return Sharding(dims, mesh, tuple(partial))
