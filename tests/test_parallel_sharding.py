"""The notation and its products: every pattern of a mesh, carried out device by device and against DTensor's places."""

import itertools

import numpy as np
import pytest

from smml.errors import UserError
from smml.parallel.sharding import Mesh, Sharding, parse, patterns, product
from smml.parallel.sharding.draw import draw, holders
from smml.parallel.sharding.place import all_gather, carry_out, collect, place
from smml.parallel.sharding.placements import from_placements, to_placements
from smml.parallel.sharding.quiz import judge, questions

SQUARE, FLAT, UNEVEN = Mesh({"x": 2, "y": 2}), Mesh({"x": 4}), Mesh({"x": 2, "y": 3})


def test_all_legal_patterns_of_a_matrix_on_a_square_mesh():
    found = [str(s) for s in patterns("IJ", SQUARE)]
    assert sorted(found) == sorted(
        [
            "I_J",
            "Ix_J",
            "I_Jx",
            "Iy_J",
            "I_Jy",
            "Ix_Jy",
            "Iy_Jx",
            "Ixy_J",
            "Iyx_J",
            "I_Jxy",
            "I_Jyx",
        ]
    )
    assert [str(s) for s in patterns("I", FLAT)] == ["I", "Ix"]


@pytest.mark.parametrize(
    "text",
    ["Ix_Jy", " Ix_Jy ", "Ix,Jy", "Ix, Jy", "Ix Jy", "A[Ix, Jy]", "A[I_X, J_Y]", "[I_x,J_y]"],
)
def test_spellings_of_the_same(text):
    assert parse(text, SQUARE) == parse("Ix_Jy", SQUARE)


def test_partial_sums_are_spelled():
    assert str(parse("I_J{x}", SQUARE)) == "I_J{x}"
    assert parse("A[I_X, J] {U_Y}", SQUARE) == parse("Ix_J{y}", SQUARE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no sharding"),
        ("ix_Jy", "is no sharding"),
        ("Ix_Jx", "axis x is used twice"),
        ("Ixx_J", "axis x is used twice"),
        ("Ix_J{x}", "axis x is used twice"),
        ("Iz_J", "the mesh has no axis z; it has x, y"),
        ("Ix_Iy", "names a dimension twice"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse(text, SQUARE)


def test_meshes_and_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="mesh axis 'X' of 2"):
        Mesh({"X": 2})
    with pytest.raises(UserError, match="size of 1 or more"):
        Mesh({"x": 0})
    with pytest.raises(UserError, match="J = 8 cannot be cut into 3 equal pieces"):
        parse("Ix_Jy", UNEVEN).local_shape((4, 8))
    with pytest.raises(UserError, match="has 2 dimensions"):
        parse("Ix_Jy", UNEVEN).local_shape((4,))


@pytest.mark.parametrize("mesh", [SQUARE, FLAT, UNEVEN], ids=str)
def test_pieces_make_the_whole_and_weigh_what_is_said(mesh):
    whole = np.arange(12 * 24.0).reshape(12, 24)
    for sharding in patterns("IJ", mesh):
        pieces = place(whole, sharding)
        assert np.array_equal(collect(pieces, sharding, whole.shape), whole)
        assert {p.nbytes for p in pieces.values()} == {
            sharding.bytes_per_device(whole.shape, whole.itemsize)
        }


def test_the_major_axis_stands_first():
    whole = np.arange(4.0)[:, None].repeat(4, 1)
    rows = {text: place(whole, parse(text, SQUARE)) for text in ("Ixy_J", "Iyx_J")}
    assert [rows["Ixy_J"][d][0, 0] for d in SQUARE.devices()] == [0, 1, 2, 3]
    assert [rows["Iyx_J"][d][0, 0] for d in SQUARE.devices()] == [0, 2, 1, 3]


@pytest.mark.parametrize("mesh", [SQUARE, UNEVEN], ids=str)
@pytest.mark.parametrize("scatter", [None, "I", "K"])
def test_every_product_of_two_patterns_is_right_when_carried_out(mesh, scatter):
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((12, 24)), generator.standard_normal((24, 36))
    for left, right in itertools.product(patterns("IJ", mesh), patterns("JK", mesh)):
        plan = product(left, right, (12, 24, 36), scatter=scatter)
        pieces = carry_out(plan, a, b)
        assert np.allclose(collect(pieces, plan.result, (12, 36)), a @ b), (left, right)
        assert not plan.result.partial


@pytest.mark.parametrize(
    ("a", "b", "collectives", "result", "moved"),
    [
        ("Ix_J", "J_Ky", (), "Ix_Ky", 0),
        ("I_Jx", "J_K", ("all-gather A over x",), "I_K", 4 * 8 * 16 / 2),
        ("I_Jx", "Jx_K", ("all-reduce C over x",), "I_K", 4 * 8 * 32),
        ("Ix_J", "J_Kx", ("all-gather A over x",), "I_Kx", 4 * 8 * 16 / 2),
        ("Iy_Jx", "Jx_K", ("all-reduce C over x",), "Iy_K", 4 * 8 * 32 / 2),
    ],
)
def test_the_four_cases(a, b, collectives, result, moved):
    plan = product(parse(a, SQUARE), parse(b, SQUARE), (8, 16, 32))
    assert plan.collectives == collectives
    assert str(plan.result) == result
    assert plan.bytes == moved


def test_reduce_scatter_moves_half_of_an_all_reduce():
    a, b = parse("I_Jx", SQUARE), parse("Jx_K", SQUARE)
    whole, scattered = (product(a, b, (8, 16, 32), scatter=s) for s in (None, "K"))
    assert scattered.bytes == whole.bytes / 2
    assert str(scattered.result) == "I_Kx"
    assert scattered.collectives == ("reduce-scatter C over x",)
    assert whole.flops_per_device == 2 * 8 * 16 * 32 / 2


def test_products_that_make_no_sense_are_refused():
    a = parse("Ix_J", SQUARE)
    for other, message in (("K_L", "whose last and first"), ("J_K{y}", "reduce it first")):
        with pytest.raises(UserError, match=message):
            product(a, parse(other, SQUARE), (4, 4, 4))
    with pytest.raises(UserError, match="the result has I and K"):
        product(a, parse("J_K", SQUARE), (4, 4, 4), scatter="J")
    with pytest.raises(UserError, match="cannot be cut into 2"):
        product(a, parse("J_K", SQUARE), (5, 4, 4))
    s = parse("Ixy_J", SQUARE)
    pieces = place(np.zeros((4, 4)), s)
    with pytest.raises(UserError, match="x is not the innermost axis of I"):
        all_gather(pieces, s, parse("Iy_J", SQUARE), "x")


def test_placements_go_to_dtensor_and_back():
    for sharding in patterns("IJ", SQUARE):
        if str(sharding) in ("Iyx_J", "I_Jyx"):
            with pytest.raises(UserError, match="in the order of the mesh"):
                to_placements(sharding)
            continue
        assert from_placements(to_placements(sharding), "IJ", SQUARE) == sharding
    partial = parse("Ix_J{y}", SQUARE)
    assert from_placements(to_placements(partial), "IJ", SQUARE) == partial
    with pytest.raises(UserError, match="1 placements for 2 mesh axes"):
        from_placements(to_placements(parse("Ix_J", FLAT)), "IJ", SQUARE)


def test_pictures_name_every_rank_once_a_copy():
    assert list(holders(parse("Ix_J", SQUARE)).values()) == [[0, 1], [2, 3]]
    assert len(holders(parse("I_J", SQUARE))) == 1
    figure = draw(*patterns("IJ", SQUARE))
    assert len(figure.axes) == 11
    with pytest.raises(UserError, match="give matrices"):
        draw(parse("Ix", SQUARE))


def test_the_quiz_takes_every_spelling_and_says_what_is_wrong():
    asked = questions(10, seed=3)
    assert [str(q) for q in asked] == [str(q) for q in questions(10, seed=3)]
    assert all(judge(q, str(q)) is None for q in asked)
    question = parse("Ix_Jy", SQUARE)
    assert judge(question, "A[I_X, J_Y]") is None
    assert "rank 0, at x = 0, y = 0, would hold another piece" in judge(question, "Ix_J")
    assert "names K_J" in judge(question, "Kx_Jy")
    assert "is no sharding" in judge(question, "?")
    assert "partial sum" in judge(parse("Ix_J", SQUARE), "Ix_J{y}")


def test_an_axis_of_one_device_changes_no_place():
    mesh = Mesh({"x": 2, "y": 1})
    assert parse("Ix_Jy", mesh).same_place(parse("Ix_J", mesh))
    assert not parse("Ix_J", mesh).same_place(parse("I_Jx", mesh))
    assert isinstance(parse("Ix_J", mesh), Sharding)
