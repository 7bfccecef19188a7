"""Ranks on a grid: which of them share a sequence, a layer, a stage or a gradient.

The last axis is the innermost: its ranks are neighbours, on the fastest links. So tensor parallel, which sends in every layer,
comes last, and the pipeline, which sends least, first.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from smml.errors import UserError

if TYPE_CHECKING:  # torch takes seconds to import
    from torch.distributed.device_mesh import DeviceMesh

AXES = ("pipeline", "data", "context", "tensor")


def mesh(axes: Mapping[str, int]) -> "DeviceMesh":
    """torch's DeviceMesh over all ranks with the given sizes of AXES, those left out being 1; all ranks must call.

    `mesh.get_group(axis)` is the group of the ranks that differ from this one in that axis alone. Raises UserError for an
    unknown axis, or where the sizes do not multiply to the number of ranks.
    """
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh

    sizes = grid(axes, distributed.get_world_size())
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    return init_device_mesh(device, tuple(sizes.values()), mesh_dim_names=tuple(sizes))


def grid(axes: Mapping[str, int], ranks: int) -> dict[str, int]:
    """Size of each of AXES, in their order. Raises UserError as `mesh` does."""
    if unknown := [axis for axis in axes if axis not in AXES]:
        raise UserError(f"mesh axis {', '.join(unknown)} is none of {', '.join(AXES)}.")
    sizes = {axis: axes.get(axis, 1) for axis in AXES}
    needed = math.prod(sizes.values())
    if min(sizes.values()) < 1 or needed != ranks:
        told = " × ".join(f"{axis} {size}" for axis, size in axes.items()) or "nothing"
        raise UserError(
            f"a mesh of {told} needs {needed} ranks, and there are {ranks}: "
            "start as many, or change an axis until the sizes multiply to them."
        )
    return sizes


def place(axes: Mapping[str, int], rank: int) -> dict[str, int]:
    """Coordinates of a rank on the grid."""
    sizes, found = grid(axes, math.prod(axes.values())), {}
    for axis in reversed(AXES):
        rank, found[axis] = divmod(rank, sizes[axis])
    return {axis: found[axis] for axis in AXES}
