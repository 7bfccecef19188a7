"""The matmul ladder: every rung right in every dtype and layout or refusing it, differentiable, and counted."""

import importlib

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, strategies as st
from kernel_cases import DTYPES, assert_close, beyond_int32, normal
from torch.library import opcheck
from torch.utils.flop_counter import FlopCounterMode

from smml.errors import UserError
from smml.kernels import resources
from smml.kernels.matmul import (
    LADDER,
    descriptors,
    l2_ordered,
    naive,
    persistent,
    pipelined,
    product,
    tiled,
    traffic,
)
from smml.kernels.matmul.product import linear, matmul

POINTERS = {m.__name__.split(".")[-1]: m for m in (naive, tiled, l2_ordered, pipelined)}
TMA = {"descriptors": descriptors, "persistent": persistent}
LAYOUTS = [(False, False), (False, True), (True, False), (True, True)]


def operands(m, n, k, dtype, transposed=(False, False)):
    """A [m, k] and B [k, n], each stored as it is or as its transpose."""
    a = normal(k, m, dtype=dtype).T if transposed[0] else normal(m, k, dtype=dtype)
    b = normal(n, k, dtype=dtype, seed=1).T if transposed[1] else normal(k, n, dtype=dtype, seed=1)
    return a, b


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [(torch.bfloat16, layout) for layout in LAYOUTS]
    + [(torch.float32, (False, True)), (torch.float16, (True, False))],
    ids=str,
)
@pytest.mark.parametrize("rung", [*POINTERS, *TMA])
def test_every_rung_is_right_in_every_dtype_and_layout(rung, dtype, layout):
    module = (POINTERS | TMA)[rung]
    # 16 bytes are 8 numbers of 16 bits: the least that TMA takes, and no multiple of a tile.
    m, n, k = {"naive": (3, 4, 300)}.get(rung, (136, 136, 40) if rung in TMA else (131, 140, 37))
    a, b = operands(m, n, k, dtype, layout)
    assert_close(module.matmul(a, b), a.double() @ b.double(), dtype)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 123, 123), (1, 8, 8), (3, 5, 0)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_product_is_right_at_odd_shapes(shape, dtype):
    a, b = operands(*shape, dtype, (False, True))
    assert_close(matmul(a, b), a.double() @ b.double(), dtype)


def test_several_rounds_of_a_persistent_program_are_right():
    a, b = operands(640, 512, 40, torch.float16)
    rounds = traffic.tiles(640, 512, persistent.TILE)
    assert rounds[0] * rounds[1] > persistent.programs(a)
    assert_close(persistent.matmul(a, b), a.double() @ b.double(), torch.float16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("transposed", LAYOUTS, ids=["AB", "ABᵀ", "AᵀB", "AᵀBᵀ"])
def test_gradients_equal_the_exact_ones_and_lie_as_their_operands(dtype, transposed):
    a, b = operands(24, 40, 32, dtype, transposed)
    a, b, dc = a.requires_grad_(), b.requires_grad_(), normal(24, 40, dtype=dtype, seed=2)
    exact = [x.detach().double().requires_grad_() for x in (a, b)]
    matmul(a, b).backward(dc)
    (exact[0] @ exact[1]).backward(dc.double())
    for x, right in zip((a, b), exact, strict=True):
        assert_close(x.grad, right.grad, dtype, factor=2)
        assert x.grad.stride() == x.stride()


def test_a_linear_layer_and_its_gradients_equal_pytorchs():
    x, weight = normal(2, 5, 33).requires_grad_(), normal(17, 33, seed=1).requires_grad_()
    y = linear(x, weight)
    wanted = torch.nn.functional.linear(x, weight)
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(
        torch.autograd.grad(y.square().sum(), (x, weight)),
        torch.autograd.grad(wanted.square().sum(), (x, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["every other", "expanded", "misaligned", "transposed", "column"])
def test_any_layout_is_right(name):
    x = {
        "every other": normal(8, 60)[::2, ::3],
        "expanded": normal(1, 24).expand(4, 24),
        "misaligned": normal(1 + 4 * 24)[1:].view(4, 24),
        "transposed": normal(24, 4).T,
        "column": normal(4, 1),
    }[name]
    for rung in (matmul, naive.matmul, tiled.matmul, l2_ordered.matmul, pipelined.matmul):
        torch.testing.assert_close(rung(x, x.T), x @ x.T, rtol=1e-4, atol=1e-4)


def test_an_expanded_gradient_is_right():
    a, b = (x.requires_grad_() for x in operands(6, 10, 8, torch.float32))
    matmul(a, b).sum().backward()  # its gradient is one number with stride 0
    torch.testing.assert_close(a.grad, b.sum(1).expand(6, 8), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(b.grad, a.sum(0)[:, None].expand(8, 10), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
def test_empty_operands_give_an_empty_or_a_zero_product(shape):
    a, b = operands(*shape, torch.float32)
    for rung in (matmul, *(module.matmul for module in POINTERS.values())):
        assert torch.equal(rung(a, b), torch.zeros(shape[0], shape[1]))


@pytest.mark.parametrize("rung", ["product", "tiled", "descriptors", "persistent"])
def test_offsets_beyond_32_bits_are_right(rung):
    a, b = beyond_int32(3, 64), normal(64, 16, dtype=torch.float16)
    call = matmul if rung == "product" else (POINTERS | TMA)[rung].matmul
    assert_close(call(a, b), a.double() @ b.double(), torch.float16)


def test_a_transposed_operand_beyond_32_bits_is_right():
    far = beyond_int32(3, 64)  # its rows lie 2³⁰ elements apart: columns of N, then rows of K
    for k, b in ((64, far.T), (3, far)):
        a = normal(5, k, dtype=far.dtype)
        assert_close(matmul(a, b), a.double() @ b.double(), torch.float16)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's, of Inf · 0
@pytest.mark.parametrize("rung", ["product", "tiled", "persistent"])
def test_nan_and_infinity_propagate_as_in_pytorch(rung):
    call = matmul if rung == "product" else (POINTERS | TMA)[rung].matmul
    a, b = operands(16, 24, 40, torch.float16)
    a[1, 3], a[2, 5], b[7, 4] = float("nan"), float("inf"), float("-inf")
    out, exact = call(a, b), a.double() @ b.double()
    assert torch.equal(out.isnan(), exact.isnan())
    assert torch.equal(out.isinf(), exact.isinf())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((torch.ones(3, 4), torch.ones(5, 2)), r"b has shape \[5, 2\]; it must be \[4, N\]"),
        ((torch.ones(3), torch.ones(3, 2)), r"a has shape \[3\]; it must be \[M, K\]"),
        ((torch.ones(2, 3), torch.ones(3, 2).half()), "b is float16 and a is float32"),
        ((torch.ones(2, 3), torch.ones(3, 2, device="meta")), "b is on meta and a on cpu"),
        ((torch.ones(2, 3).int(), torch.ones(3, 2).int()), "allowed are float32"),
    ],
    ids=["inner", "vector", "dtype", "device", "integers"],
)
@pytest.mark.parametrize("call", [matmul, tiled.matmul, persistent.matmul])
def test_what_does_not_fit_is_refused(call, arguments, said):
    with pytest.raises(UserError, match=said):
        call(*arguments)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (normal(8, 6), normal(6, 8), r"a has strides \[6, 1\]; .* multiple of 4 elements"),
        (normal(8, 8), normal(8, 6), r"b has strides \[6, 1\]"),
        (normal(1, 8).expand(8, 8), normal(8, 8), r"a has strides \[0, 1\]"),
        (normal(65)[1:].view(8, 8), normal(8, 8), "a starts at 0x"),
        (normal(8, 8), normal(6, 8).T, "C has rows of 6 elements"),
        (normal(0, 8), normal(8, 8), "an operand is empty"),
    ],
    ids=["row of A", "row of B", "expanded", "misaligned", "row of C", "empty"],
)
@pytest.mark.parametrize("module", TMA.values(), ids=TMA)
def test_what_tma_cannot_fetch_is_refused_and_the_product_takes_another_way(module, a, b, said):
    with pytest.raises(UserError, match=said):
        module.matmul(a, b)
    assert product.chosen(a, b) == "pipelined"
    torch.testing.assert_close(matmul(a, b), a @ b, rtol=1e-4, atol=1e-5)


def test_the_product_chooses_by_dtype_and_by_tiles():
    many, few = operands(264, 264, 64, torch.bfloat16), operands(8, 8, 64, torch.bfloat16)
    assert product.chosen(*many) == "persistent"
    assert product.chosen(*few) == "pipelined"
    assert product.chosen(*(x.float() for x in many)) == "pipelined"


def test_a_rung_alone_refuses_tensors_without_numbers():
    with pytest.raises(UserError, match="on meta, where there are no numbers"):
        tiled.matmul(torch.ones(2, 3, device="meta"), torch.ones(3, 2, device="meta"))
    assert matmul(torch.ones(2, 3, device="meta"), torch.ones(3, 4, device="meta")).shape == (2, 4)


def test_the_naive_rung_refuses_more_elements_than_programs(monkeypatch):
    monkeypatch.setattr(naive, "MOST_PROGRAMS", 15)
    with pytest.raises(UserError, match=r"C has 16 elements .* use a tiled rung"):
        naive.matmul(torch.ones(4, 2), torch.ones(2, 4))


@pytest.mark.parametrize("transposed", [(False, False), (True, True)], ids=["AB", "AᵀBᵀ"])
def test_registered_as_pytorchs_own(transposed):
    a, b = (x.requires_grad_() for x in operands(6, 9, 7, torch.float32, transposed))
    opcheck(product._matmul, (a.detach().requires_grad_(), b.detach().requires_grad_()))


def test_compiled_it_is_the_same():
    a, b = operands(9, 8, 12, torch.float32)
    compiled = torch.compile(lambda x, y: matmul(x + 1, y) * 2, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(a, b), (a + 1) @ b * 2, rtol=1e-4, atol=1e-4)


def test_work_counts_what_pytorch_counts():
    a, b = (x.requires_grad_() for x in operands(6, 10, 8, torch.float32))
    with FlopCounterMode(display=False) as counter:
        out = a @ b
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        out.sum().backward()
    assert product.work(6, 10, 8, 4).flops == forward
    assert product.backward_work(6, 10, 8, 4).flops == counter.get_total_flops()
    assert product.work(6, 10, 8, 4).bytes == 4 * (6 * 8 + 8 * 10 + 6 * 10)


@pytest.mark.parametrize("rung", ["naive", "tiled", "l2_ordered", "descriptors", "persistent"])
def test_bytes_asked_for_are_those_that_the_interpreted_kernel_loads(rung, monkeypatch):
    from triton.runtime.interpreter import InterpreterBuilder

    loaded = []

    def counted(name):
        plain = getattr(InterpreterBuilder, name)

        def load(self, pointers, mask, *rest, **more):
            loaded.append(int(np.broadcast_to(mask.data, pointers.data.shape).sum()))
            return plain(self, pointers, mask, *rest, **more)

        return load

    # A descriptor's load becomes a masked one, too.
    monkeypatch.setattr(InterpreterBuilder, "create_masked_load", counted("create_masked_load"))
    module = (POINTERS | TMA)[rung]
    m, n, k = (2, 4, 36) if rung == "naive" else (136, 140, 36)
    a, b = operands(m, n, k, torch.float32)
    module.matmul(a, b)  # tuned
    loaded.clear()
    module.matmul(a, b)
    tile = module.TILE
    if rung in TMA:
        tile = tuple(module.CONFIGS_32_BIT[0].kwargs[f"BLOCK_{letter}"] for letter in "MN")
    assert sum(loaded) * 4 == traffic.asked(m, n, k, 4, tile).bytes_read


def test_bytes_asked_for_shrink_with_the_tile():
    work = [traffic.asked(1024, 1024, 1024, 2, (t, t)) for t in (1, 64, 128, 1024)]
    assert work[0].bytes_read == 2 * 2 * 1024**3  # two elements a multiply-add
    assert work[1].bytes_read == 2 * work[2].bytes_read
    assert work[3] == product.work(1024, 1024, 1024, 2)
    with pytest.raises(UserError, match="covers nothing"):
        traffic.tiles(4, 4, (0, 1))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 50))
def test_every_order_visits_every_tile_once(rows, columns, group, programs):
    every = set(traffic.row_by_row(rows, columns))
    order = list(traffic.grouped(rows, columns, group))
    assert len(order) == len(every) == rows * columns
    assert set(order) == every
    waves = list(traffic.waves(order, programs))
    assert [tile for wave in waves for tile in wave] == order
    least = (rows + columns) * 128 * 64 * 2
    got = traffic.memory_bytes(order, programs, 64, (128, 128), 2)
    assert least <= got <= traffic.asked(rows * 128, columns * 128, 64, 2, (128, 128)).bytes_read


@triton.jit
def _where(out_ptr, tiles_m, tiles_n, GROUP_M: tl.constexpr):
    row, column = l2_ordered.tile_at(tl.program_id(0), tiles_m, tiles_n, GROUP_M)
    tl.store(out_ptr + 2 * tl.program_id(0), row)
    tl.store(out_ptr + 2 * tl.program_id(0) + 1, column)


def test_the_kernel_takes_tiles_in_the_order_that_is_counted():
    out = torch.full((7 * 5, 2), -1, dtype=torch.int32)
    _where[(7 * 5,)](out, 7, 5, GROUP_M=3)
    assert [tuple(x) for x in out.tolist()] == list(traffic.grouped(7, 5, 3))


def test_the_ladder_names_files_and_what_each_changes():
    assert next(iter(LADDER)) == "naive"
    for name, change in LADDER.items():
        module = importlib.import_module(f"smml.kernels.matmul.{name}")
        assert callable(module.matmul)
        assert change
        assert f"matmul.{name}" in resources.OPERATIONS


def test_hoppers_matrix_units_and_copy_engine_are_used():
    found = {r.name: r for r in resources.report(["matmul.tiled", "matmul.persistent"], [90])}
    tiled_, best = found["matmul/tiled/bf16"], found["matmul/persistent/bf16"]
    assert (tiled_.wgmma, tiled_.tma) == (True, False)
    assert (best.wgmma, best.tma, best.spill_bytes) == (True, True, 0)
