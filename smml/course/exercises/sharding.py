"""Exercises of 02_multi_accelerator/02_sharding."""

from collections.abc import Callable, Mapping

from smml.course.checking import WrongAnswer, attempt, exercise
from smml.parallel.sharding import Mesh, parse, product
from smml.parallel.sharding.quiz import QUIZ_MESH, judge, questions

CASES = (
    ("I_Jx", "Jx_K", "all-reduce"),
    ("Ix_J", "J_Ky", "nothing"),
    ("Ix_J", "Jx_K", "all-gather"),
    ("Ix_J", "J_Kx", "all-gather"),
    ("Iy_Jx", "Jx_K", "all-reduce"),
    ("I_J", "J_Kxy", "nothing"),
)


@exercise(
    lambda: [str(q) for q in questions()][:9],
    lambda: ["Ix_Jy"] * 10,
    lambda: [str(q)[::-1] for q in questions()],
)
def ten_in_a_row(answer: Callable[[], list[str]]) -> str:
    """The ten drawn shardings by name, in any spelling that places every piece the same."""
    asked, given = questions(), attempt(answer)
    if not isinstance(given, list | tuple) or len(given) != len(asked):
        raise WrongAnswer(
            f"a list of {len(asked)} texts such as 'Ix_Jy' is asked for, not {given!r}."
        )
    for number, (question, text) in enumerate(zip(asked, given, strict=True), 1):
        if problem := judge(question, str(text)):
            raise WrongAnswer(
                f"picture {number}: {problem} On this mesh the ranks 0 1 2 3 stand at x y = 00 01 10 11."
            )
    return "ten in a row"


@exercise(
    lambda a, b: "all-reduce",
    lambda a, b: "nothing" if a[-1] == b[0] else "all-gather",
    lambda a, b: {"I_Jx": "all-reduce"}.get(a, "all-gather"),
)
def collective(answer: Callable[[str, str], str]) -> str:
    """What C = A·B needs: "nothing", "all-gather" of an operand, or "all-reduce" of the result."""
    mesh = Mesh(QUIZ_MESH.axes)
    for a, b, right in CASES:
        given = attempt(answer, a, b)
        if given != right:
            plan = product(parse(a, mesh), parse(b, mesh), (4, 4, 4))
            hint = ", ".join(plan.collectives) or "each device has what its part of C needs"
            raise WrongAnswer(
                f"collective({a!r}, {b!r}) is not {given!r}. Look at J first: cut in both, every device has a part of the "
                f"sum; cut in one, it must be whole. Then at I and K. Here: {hint}."
            )
    return "J decides, then I and K"


@exercise(
    lambda parameters, mesh: 2 * parameters,
    lambda parameters, mesh: 2 * parameters / sum(mesh.values()),
    lambda parameters, mesh: parameters / (mesh["x"] * mesh["y"]),
)
def weight_bytes(answer: Callable[[float, Mapping[str, int]], float]) -> str:
    """Bytes of bfloat16 weights a device holds where every matrix is cut as Ix_Jy."""
    for parameters, x, y in ((8e9, 2, 4), (1e6, 1, 1), (70e9, 8, 8)):
        given = attempt(answer, parameters, {"x": x, "y": y})
        if given != 2 * parameters / (x * y):
            raise WrongAnswer(
                f"weight_bytes({parameters:g}, {{'x': {x}, 'y': {y}}}) is not {given!r}. 2 bytes a parameter; x cuts the "
                "rows, and y each of these pieces again."
            )
    return "two bytes a parameter over all devices of the mesh"
