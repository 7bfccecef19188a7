"""Questions on shardings, and a judge that takes every spelling that says the same."""

import random

from smml.errors import UserError
from smml.parallel.sharding.pattern import Mesh, Sharding, parse, patterns

QUIZ_MESH = Mesh({"x": 2, "y": 2})


def questions(count: int = 10, seed: int = 0, mesh: Mesh = QUIZ_MESH) -> list[Sharding]:
    """Shardings of a matrix I × J to be read off their pictures; none twice in a row. The same for a seed."""
    chooser = random.Random(seed)
    known = list(patterns("IJ", mesh))
    chosen: list[Sharding] = []
    while len(chosen) < count:
        new = chooser.choice(known)
        if not chosen or str(new) != str(chosen[-1]):
            chosen.append(new)
    return chosen


def judge(question: Sharding, answer: str) -> str | None:
    """None where the answer places every piece as the question does; else what is wrong with it, in one line."""
    try:
        given = parse(answer, question.mesh)
    except UserError as error:
        return str(error)
    if given.names != question.names:
        return f"{answer!r} names {'_'.join(given.names)}; the picture shows {'_'.join(question.names)}."
    if given.same_place(question):
        return None
    shape = [question.mesh.size] * len(question.dimensions)
    for rank, device in enumerate(question.mesh.devices()):
        if given.slices(shape, device) != question.slices(shape, device):
            return (
                f"under {given} rank {rank}, at {_at(question.mesh, device)}, would hold another piece than the "
                "picture shows."
            )
    return f"under {given} every device would hold a partial sum; the picture shows none."


def _at(mesh: Mesh, device: tuple[int, ...]) -> str:
    return ", ".join(f"{axis} = {n}" for axis, n in zip(mesh.axes, device, strict=True))
