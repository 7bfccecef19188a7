"""The product of two sharded matrices: which collective each pattern of C = A·B needs, and the bytes that it moves.

A [I, J] and B [J, K]. Four cases, decided axis by axis:

    J is cut nowhere                    multiply; nothing is sent
    J is cut in one of them             all-gather that one along the axis first
    J is cut in both along one axis     multiply, then the result is a partial sum: all-reduce or reduce-scatter it
    I and K are cut along one axis      all-gather one of them first: an axis cuts one dimension
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from smml.errors import UserError
from smml.parallel.sharding.pattern import Dimension, Sharding


@dataclass(frozen=True)
class Step:
    """A collective over one mesh axis on an operand or the result; `bytes` that a device sends around a ring."""

    collective: str
    axis: str
    operand: str  # A, B or C
    bytes: float


@dataclass(frozen=True)
class Plan:
    """What a product takes: what is gathered before it, the shards that are multiplied, what the result then needs."""

    a: Sharding
    b: Sharding
    before: tuple[Step, ...]
    multiplied: tuple[Sharding, Sharding]
    raw: Sharding  # the result before the last steps, with its partial sums
    after: tuple[Step, ...]
    result: Sharding
    flops_per_device: float

    @property
    def bytes(self) -> float:
        """All bytes that a device sends."""
        return sum(step.bytes for step in (*self.before, *self.after))

    @property
    def collectives(self) -> tuple[str, ...]:
        """Names of the collectives, in order, an axis each."""
        return tuple(
            f"{step.collective} {step.operand} over {step.axis}"
            for step in (*self.before, *self.after)
        )


def product(
    a: Sharding,
    b: Sharding,
    sizes: Sequence[int],
    itemsize: int = 4,
    scatter: str | None = None,
) -> Plan:
    """The plan of C = A·B with `sizes` (I, J, K). `scatter` names the dimension of C that partial sums are scattered to.

    Where an operand must be gathered, it is the one whose gathering sends less. Raises UserError for dimensions that
    do not meet, partial operands, and sizes that are not divisible.
    """
    if len(a.names) != 2 or len(b.names) != 2 or a.names[1] != b.names[0] or a.mesh != b.mesh:
        raise UserError(
            f"{a} · {b}: give matrices on one mesh, whose last and first dimension is the same, such as Ix_J and J_Ky."
        )
    if a.partial or b.partial:
        raise UserError(f"{a} · {b}: an operand is a partial sum; reduce it first.")
    if scatter is not None and scatter not in (a.names[0], b.names[1]):
        raise UserError(f"scatter={scatter!r}: the result has {a.names[0]} and {b.names[1]}.")
    shapes = {"A": tuple(sizes[:2]), "B": tuple(sizes[1:])}
    held = {"A": a, "B": b}
    before: list[Step] = []

    def gather(operand: str, name: str, down_to: int) -> None:
        """Gather the innermost axes first: without the outer one, the pieces of an inner one do not lie together."""
        for axis in reversed(held[operand].axes_of(name)[down_to:]):
            step, held[operand] = _gathered(
                operand, held[operand], shapes[operand], name, axis, itemsize
            )
            before.append(step)

    inner = a.names[1]
    common = _common(a.axes_of(inner), b.axes_of(inner))
    for operand in ("A", "B"):
        gather(operand, inner, common)
    outer = {"A": a.names[0], "B": b.names[1]}
    while clash := set(held["A"].axes_of(outer["A"])) & set(held["B"].axes_of(outer["B"])):
        ends = {o: min(map(held[o].axes_of(name).index, clash)) for o, name in outer.items()}
        operand = min(outer, key=lambda o: _cost(held[o], shapes[o], outer[o], ends[o], itemsize))
        gather(operand, outer[operand], ends[operand])

    rows = held["A"].dimensions[0]
    columns = held["B"].dimensions[1]
    summed = held["A"].axes_of(inner)
    raw = Sharding((rows, columns), a.mesh, summed)
    after, result = _reduced(raw, (sizes[0], sizes[2]), itemsize, scatter)
    local = held["A"].local_shape(shapes["A"]), held["B"].local_shape(shapes["B"])
    flops = 2.0 * math.prod(local[0]) * local[1][1]
    return Plan(a, b, tuple(before), (held["A"], held["B"]), raw, after, result, flops)


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many axes both begin with."""
    same = [x == y for x, y in zip(one, other, strict=False)]
    return same.index(False) if False in same else len(same)


def _cost(
    sharding: Sharding, shape: Sequence[int], name: str, down_to: int, itemsize: int
) -> float:
    """Bytes that a device sends until the dimension keeps `down_to` of its axes."""
    part = sharding.bytes_per_device(shape, itemsize)
    gathered = math.prod(sharding.mesh.axes[axis] for axis in sharding.axes_of(name)[down_to:])
    return part * (gathered - 1)


def _gathered(
    operand: str, sharding: Sharding, shape: Sequence[int], name: str, axis: str, itemsize: int
) -> tuple[Step, Sharding]:
    """All-gather a dimension along one of its axes: p − 1 pieces of a device's part arrive, as many are sent."""
    part = sharding.bytes_per_device(shape, itemsize)
    ranks = sharding.mesh.axes[axis]
    dims = tuple(
        replace(d, axes=tuple(x for x in d.axes if x != axis)) if d.name == name else d
        for d in sharding.dimensions
    )
    return Step("all-gather", axis, operand, part * (ranks - 1)), Sharding(dims, sharding.mesh)


def _reduced(
    raw: Sharding, shape: Sequence[int], itemsize: int, scatter: str | None
) -> tuple[tuple[Step, ...], Sharding]:
    """Sum what is partial: all-reduce, or reduce-scatter to a dimension, which the axis then cuts innermost."""
    steps, now = [], raw
    for axis in raw.partial:
        ranks, part = raw.mesh.axes[axis], now.bytes_per_device(shape, itemsize)
        left = tuple(x for x in now.partial if x != axis)
        if scatter is None:
            steps.append(Step("all-reduce", axis, "C", 2 * part * (ranks - 1) / ranks))
            now = Sharding(now.dimensions, now.mesh, left)
        else:
            steps.append(Step("reduce-scatter", axis, "C", part * (ranks - 1) / ranks))
            dims = tuple(
                Dimension(d.name, (*d.axes, axis)) if d.name == scatter else d
                for d in now.dimensions
            )
            now = Sharding(dims, now.mesh, left)
    now.local_shape(shape)  # divisible, or it says which size is not
    return tuple(steps), now
