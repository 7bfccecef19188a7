"""Tasks for workers: the notation's places beside DTensor's, and a product that really is sharded."""

from collections.abc import Sequence

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor

from smml.parallel.sharding import Mesh, parse, product
from smml.parallel.sharding.placements import from_placements, to_placements


def held_like_dtensor(axes: dict[str, int], texts: Sequence[str], size: int = 12) -> list[bool]:
    """For each sharding of a [size, size] matrix whether this rank's piece is DTensor's."""
    mesh, devices = _meshes(axes)
    whole = torch.arange(float(size * size), device=devices.device_type).view(size, size)
    at = mesh.devices()[distributed.get_rank()]
    found = []
    for text in texts:
        sharding = parse(text, mesh)
        theirs = distribute_tensor(whole, devices, to_placements(sharding)).to_local()
        found.append(torch.equal(whole[sharding.slices(whole.shape, at)], theirs))
    return found


def product_like_dtensor(
    axes: dict[str, int], a: str, b: str, sizes: Sequence[int] = (8, 16, 32)
) -> dict[str, object]:
    """DTensor's product of two sharded matrices: its places and its error, and which collectives it then called."""
    from torch.distributed.tensor.debug import CommDebugMode

    mesh, devices = _meshes(axes)
    generator = torch.Generator().manual_seed(0)
    wholes = [
        torch.randn(shape, generator=generator).to(devices.device_type)
        for shape in (sizes[:2], sizes[1:])
    ]
    left, right = (parse(text, mesh) for text in (a, b))
    one, other = (
        distribute_tensor(whole, devices, to_placements(sharding))
        for whole, sharding in zip(wholes, (left, right), strict=True)
    )
    planned = product(left, right, tuple(sizes))
    with CommDebugMode() as traffic:
        result = (one @ other).redistribute(devices, to_placements(planned.result))
    whole = result.full_tensor()
    called = {str(op).split(".")[-1]: n for op, n in traffic.get_comm_counts().items()}
    return {
        "places": str(from_placements(result.placements, left.names[0] + right.names[1], mesh)),
        "error": float((whole - wholes[0] @ wholes[1]).abs().max()),
        "planned": list(planned.collectives),
        "called": called,
    }


def _meshes(axes: dict[str, int]) -> "tuple[Mesh, distributed.device_mesh.DeviceMesh]":
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    return Mesh(axes), init_device_mesh(device, tuple(axes.values()), mesh_dim_names=tuple(axes))
