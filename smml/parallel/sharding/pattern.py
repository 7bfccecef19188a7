"""The notation: `Ix_Jy` over a mesh. Parse it, write it, list every legal pattern, say which device holds which part.

    I_J        every device holds the whole matrix
    Ix_J       rows are cut along mesh axis x; devices that differ only in y hold the same rows
    Ixy_J      rows are cut along x, and each piece again along y: x is the major axis
    I_J{x}     whole, but a partial sum: the matrix is the sum over x of what the devices hold

An axis cuts one dimension at most, and not one that is summed over it. Sizes must be divisible. The idea follows J. Austin
et al., *How to scale your model*, 2025, chapter 3.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product

from smml.errors import UserError

Device = tuple[int, ...]  # a coordinate for each mesh axis, in the mesh's order
TEXT = re.compile(r"(?P<dims>[A-Z][a-z]*(_[A-Z][a-z]*)*)(\{(?P<partial>[a-z]+)\})?")
# The same in other hands: A[I_X, J_Y], Ix,Jy, "Ix Jy".
BRACKETS = re.compile(r"^[A-Za-z]?\s*\[(?P<inside>[^\]]*)\](?P<rest>.*)$")


@dataclass(frozen=True)
class Mesh:
    """Devices on a grid: the size of each axis by its one-letter name, in order; the last axis is the innermost."""

    axes: Mapping[str, int]

    def __post_init__(self) -> None:
        for name, size in self.axes.items():
            if not re.fullmatch("[a-z]", name) or size < 1:
                raise UserError(
                    f"mesh axis {name!r} of {size}: axes are lower-case letters with a size of 1 or more."
                )

    @property
    def size(self) -> int:
        """Number of devices."""
        return math.prod(self.axes.values())

    def devices(self) -> list[Device]:
        """Every device's coordinates, in the order of ranks."""
        return list(product(*map(range, self.axes.values())))


@dataclass(frozen=True)
class Dimension:
    """A dimension's one-letter name and the mesh axes that cut it, major axis first."""

    name: str
    axes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sharding:
    """How a tensor lies on a mesh. Raises UserError for what cannot lie so."""

    dimensions: tuple[Dimension, ...]
    mesh: Mesh
    partial: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        used = [axis for d in self.dimensions for axis in d.axes] + list(self.partial)
        unknown = sorted(set(used) - set(self.mesh.axes))
        if unknown:
            raise UserError(
                f"{self}: the mesh has no axis {', '.join(unknown)}; it has {', '.join(self.mesh.axes)}."
            )
        if twice := sorted({axis for axis in used if used.count(axis) > 1}):
            raise UserError(
                f"{self}: axis {', '.join(twice)} is used twice; an axis cuts one dimension, or is summed over."
            )

    def __str__(self) -> str:
        dims = "_".join(d.name + "".join(d.axes) for d in self.dimensions)
        return dims + (f"{{{''.join(self.partial)}}}" if self.partial else "")

    @property
    def names(self) -> tuple[str, ...]:
        """The dimensions' names."""
        return tuple(d.name for d in self.dimensions)

    def axes_of(self, name: str) -> tuple[str, ...]:
        """The axes that cut a dimension."""
        return next(d.axes for d in self.dimensions if d.name == name)

    def local_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape that each device holds. Raises UserError where a size is not divisible."""
        if len(shape) != len(self.dimensions):
            raise UserError(
                f"{self} has {len(self.dimensions)} dimensions, the shape {list(shape)} has not."
            )
        local = []
        for size, dimension in zip(shape, self.dimensions, strict=True):
            pieces = math.prod(self.mesh.axes[axis] for axis in dimension.axes)
            if size % pieces:
                raise UserError(
                    f"{self}: {dimension.name} = {size} cannot be cut into {pieces} equal pieces; "
                    f"take a multiple of {pieces}."
                )
            local.append(size // pieces)
        return tuple(local)

    def slices(self, shape: Sequence[int], device: Device) -> tuple[slice, ...]:
        """Which part of a tensor of `shape` the device holds."""
        at = dict(zip(self.mesh.axes, device, strict=True))
        found = []
        for size, dimension in zip(self.local_shape(shape), self.dimensions, strict=True):
            index = 0
            for axis in dimension.axes:
                index = index * self.mesh.axes[axis] + at[axis]
            found.append(slice(index * size, (index + 1) * size))
        return tuple(found)

    def bytes_per_device(self, shape: Sequence[int], itemsize: int) -> int:
        """Bytes that each device holds."""
        return math.prod(self.local_shape(shape)) * itemsize

    def same_place(self, other: "Sharding") -> bool:
        """Whether every device holds the same under both, whatever they are called."""
        if self.mesh != other.mesh or len(self.dimensions) != len(other.dimensions):
            return False
        real = {axis for axis, size in self.mesh.axes.items() if size > 1}
        shape = [self.mesh.size] * len(self.dimensions)
        return set(self.partial) & real == set(other.partial) & real and all(
            self.slices(shape, device) == other.slices(shape, device)
            for device in self.mesh.devices()
        )


def parse(text: str, mesh: Mesh) -> Sharding:
    """The sharding that a text says: `Ix_Jy`, and also `A[I_X, J_Y]`, `Ix,Jy` or `Ix Jy`.

    Raises UserError with what was meant to stand there.
    """
    plain = _plain(text)
    if not (match := TEXT.fullmatch(plain)):
        raise UserError(
            f"{text!r} is no sharding: write dimensions as capitals, each with the axes that cut it, such as Ix_Jy, "
            "I_Jxy or I_J{x}."
        )
    dims = tuple(Dimension(part[0], tuple(part[1:])) for part in match["dims"].split("_"))
    names = [d.name for d in dims]
    if len(set(names)) < len(names):
        raise UserError(f"{text!r} names a dimension twice; each has a letter of its own.")
    return Sharding(dims, mesh, tuple(match["partial"] or ""))


def _plain(text: str) -> str:
    """The text in this package's spelling."""
    text = text.strip()
    if match := BRACKETS.match(text):  # A[I_X, J_Y] {U_X}
        parts = [part.strip().replace("_", "") for part in match["inside"].split(",")]
        text = "_".join(part[:1] + part[1:].lower() for part in parts)
        text += match["rest"].strip().replace("U_", "").lower()
    text = re.sub(r"[\s,]+", "_", text)
    return re.sub(r"_(?=\{)", "", text)


def patterns(names: str, mesh: Mesh) -> Iterator[Sharding]:
    """Every legal sharding of dimensions `names` ("IJ") without partial sums, the whole tensor first.

    Each axis cuts one dimension or none; where several cut the same, every order of them.
    """
    axes = tuple(mesh.axes)
    for count in range(len(axes) + 1):
        for chosen in combinations(axes, count):
            for owners in product(range(len(names)), repeat=count):
                groups = [
                    [axis for axis, owner in zip(chosen, owners, strict=True) if owner == index]
                    for index in range(len(names))
                ]
                for orders in product(*(permutations(group) for group in groups)):
                    dims = tuple(Dimension(n, o) for n, o in zip(names, orders, strict=True))
                    yield Sharding(dims, mesh)
