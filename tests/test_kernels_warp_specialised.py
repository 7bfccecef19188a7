"""The warp-specialised product: its source run on a model of Hopper's asynchronous parts, compiled for it, and strict on input.

The kernel itself runs on a Hopper GPU only: `pytest -m gpu tests/test_kernels_warp_specialised.py` checks it there.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gluon_model import Descriptor, Model, Pointer, modelled
from gluon_scheduler import Barrier, Fault
from hypothesis import given, settings, strategies as st
from kernel_cases import normal

from smml.errors import UserError
from smml.kernels import resources
from smml.kernels.matmul import hopper, warp_specialised
from smml.kernels.matmul.warp_specialised import addressable, available, matmul, tile_columns

CONSTANTS = {"BLOCK_N": 128, "BLOCK_K": 8, "STAGES": 3, "GROUP": 2, "SCALED": False}


def whole(*shape, seed):
    """Small whole numbers, whose sums are exact in any order."""
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed)).float()


def run(m, n, k, *, programs=1, seed=0, changed=None, transposed=(False, False), **constants):
    """C of the modelled kernel, how often each element was written, and A · B; `changed` breaks the model."""
    constants = CONSTANTS | {"PROMOTED": False} | constants
    block_n, block_k = constants["BLOCK_N"], constants["BLOCK_K"]
    a, b = whole(m, k, seed=1), whole(k, n, seed=2)
    scales = whole(m, seed=3), whole(n, seed=4)
    out = Descriptor(torch.full((m, n), torch.nan), (64, 64))
    described = [
        Descriptor(x.T.contiguous(), box[::-1]) if flip else Descriptor(x, box)
        for x, box, flip in zip(
            (a, b), ((64, block_k), (block_k, block_n)), transposed, strict=True
        )
    ]
    for program in range(programs):
        model = Model(program, programs, seed + program)
        with modelled(hopper, model, **(changed(model) if changed else {})):
            hopper.gemm(
                *described, out, *map(Pointer, scales), 1, 1, m, n, k, **constants,
                A_TRANSPOSED=transposed[0], B_TRANSPOSED=transposed[1],
            )  # fmt: skip
    exact = a @ b
    return out, exact * scales[0][:, None] * scales[1] if constants["SCALED"] else exact


@given(
    tiles=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 9)),
    ragged=st.tuples(*[st.integers(0, 7)] * 3),
    stages=st.integers(2, 5),
    group=st.integers(1, 4),
    programs=st.integers(1, 4),
    seed=st.integers(0, 1000),
    promoted=st.booleans(),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_number_of_tiles_and_stages_is_right_in_any_order_of_events(
    tiles, ragged, stages, group, programs, seed, promoted
):
    m, n, k = (
        size * count - less for size, count, less in zip((128, 128, 8), tiles, ragged, strict=True)
    )
    out, exact = run(
        m, n, k,
        programs=programs, seed=seed, STAGES=stages, GROUP=group, PROMOTED=promoted,
    )  # fmt: skip
    assert torch.equal(out.matrix, exact)
    assert torch.equal(out.written, torch.ones_like(out.written))


@pytest.mark.parametrize("transposed", [(False, True), (True, False), (True, True)])
@pytest.mark.parametrize("columns", [128, 256])
def test_operands_are_read_where_they_lie(transposed, columns):
    out, exact = run(200, 300, 40, transposed=transposed, BLOCK_N=columns)
    assert torch.equal(out.matrix, exact)


@pytest.mark.parametrize("promoted", [False, True])
def test_scales_are_those_of_their_row_and_column(promoted):
    out, exact = run(200, 300, 24, SCALED=True, PROMOTED=promoted)
    assert torch.equal(out.matrix, exact)


def _released_too_early(model):
    def init(barrier: Barrier, count: int) -> None:
        model.init(barrier, 1)

    return {"mbarrier": _with(model, "mbarrier", init=init)}


def _with(model, space, **changed):
    return type(model.names()[space])(**(vars(model.names()[space]) | changed))


BROKEN = {
    "parity of the first round": lambda model: {"ring_parity": lambda step, stages: 0},
    "the next buffer": lambda model: {"ring_stage": lambda step, stages: (step // 2) % stages},
    "one of two consumers frees a buffer": _released_too_early,
    "no wait for the producer's bytes": lambda model: {
        "mbarrier": _with(
            model,
            "mbarrier",
            wait=lambda barrier, parity: barrier.count == 2 and model.wait(barrier, parity),
        )
    },
    "no wait for free buffers": lambda model: {
        "mbarrier": _with(
            model,
            "mbarrier",
            wait=lambda barrier, parity: barrier.count == 1 and model.wait(barrier, parity),
        )
    },
    "no fence": lambda model: {"fence_async_shared": lambda: None},
    "no wait for the sums": lambda model: {
        "warpgroup_mma_wait": lambda num_outstanding, deps: deps[0]
    },
    "too many products in flight": lambda model: {
        "warpgroup_mma_wait": lambda num_outstanding, deps: model.mma_wait(
            2 * num_outstanding, deps
        )
    },
    "no wait for stores": lambda model: {
        "tma": _with(
            model, "tma", store_wait=lambda pendings: model.store_wait(3 if pendings else 0)
        )
    },
    "no wait at the end": lambda model: {
        "tma": _with(model, "tma", store_wait=lambda pendings: model.store_wait(pendings or 9))
    },
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_model_finds_what_would_break_the_kernel(broken):
    """Each fault is seen as a deadlock, a race or a wrong number under one of a few orders of events."""

    def found(seed):
        try:
            out, exact = run(256, 256, 80, seed=seed, changed=BROKEN[broken], BLOCK_N=256)
        except Fault:
            return True
        return not torch.equal(out.matrix, exact)

    assert any(found(seed) for seed in range(8))


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), group=st.integers(1, 20))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_order_visits_each_tile_once(rows, columns, group):
    visited = {hopper.tile_origin.fn(t, rows, columns, group) for t in range(rows * columns)}
    assert visited == {(r, c) for r in range(rows) for c in range(columns)}


def test_tiles_that_run_at_once_share_operands():
    at_once = [hopper.tile_origin.fn(t, 64, 32, warp_specialised.GROUP) for t in range(128)]
    rows, columns = ({tile[axis] for tile in at_once} for axis in (0, 1))
    assert (len(rows), len(columns)) == (16, 8)


def test_narrow_tiles_are_chosen_where_wide_ones_leave_multiprocessors_idle():
    assert tile_columns(4096, 4096, 132) == 256
    assert tile_columns(128, 4096, 132) == 128


@pytest.fixture(scope="module")
def compiled():
    return resources.report(["matmul.warp_specialised"])


def test_hoppers_compiler_takes_it_without_spills_and_within_shared_memory(compiled):
    assert compiled
    for found in compiled:
        assert found.target == 90
        assert found.spill_bytes == 0
        assert found.shared_bytes <= 232_448
        assert found.registers * found.num_warps * 32 <= 65_536
        assert found.num_warps == 12
        assert found.wgmma
        assert found.tma
        assert found.warp_specialised


def test_a_launch_compiles_what_it_is_given():
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("gluon_launch.py"))],
        capture_output=True,
        text=True,
        env=os.environ | {"TRITON_INTERPRET": "0"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    launches = [json.loads(line) for line in done.stdout.splitlines()]
    assert [found["grid"] for found in launches] == [[132], [16], [16]], "a program each, or a tile"
    assert all(found["threads"] == 12 * 32 and found["wgmma"] for found in launches)


def test_off_hopper_it_names_the_way_out():
    assert not available("cpu")
    with pytest.raises(UserError, match=r"Hopper GPU only.*on cpu: use smml\.kernels\.matmul\.pip"):
        matmul(normal(16, 16).half(), normal(16, 16).half())


@pytest.mark.parametrize(
    ("x", "transposed", "copied"),
    [
        (torch.zeros(24, 16).half(), False, False),
        (torch.zeros(16, 24).half().T, True, False),
        (torch.zeros(24, 64).half()[:, :16], False, False),
        (torch.zeros(24, 20).half()[:, :16], False, True),
        (torch.zeros(24 * 16 + 1).half()[1:].view(24, 16), False, True),
        (torch.zeros(24, 32).half()[:, ::2], False, True),
        (torch.zeros(1, 16).half().expand(24, 16), False, True),
        (torch.zeros(24, 1).half().expand(24, 16), False, True),
        (torch.zeros(64).half().as_strided((1, 16), (3, 1)), False, True),
    ],
    ids=["rows", "transposed", "part", "odd stride", "misaligned", "every other", "one row", "one column", "short"],
)  # fmt: skip
def test_what_the_copy_engine_cannot_address_is_copied(x, transposed, copied):
    memory, flipped = addressable(x)
    assert flipped is transposed
    assert (memory.data_ptr() != x.data_ptr()) is copied
    assert torch.equal(memory.T if flipped else memory, x)
    assert memory.stride(1) == 1
    assert memory.stride(0) % 8 == 0
    assert memory.data_ptr() % 16 == 0


@pytest.mark.gpu
@pytest.mark.skipif(not available(), reason="needs a Hopper GPU: run pytest -m gpu on one")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("transposed", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (128, 256, 64), (1000, 1048, 1032), (4096, 2048, 4096), (129, 8192, 8)]
)
def test_the_kernel_equals_the_exact_product(shape, transposed, dtype):
    m, n, k = shape
    a = normal(*((k, m) if transposed[0] else (m, k)), dtype=dtype).cuda()
    b = normal(*((n, k) if transposed[1] else (k, n)), dtype=dtype, seed=1).cuda()
    a, b = (x.T if flip else x for x, flip in zip((a, b), transposed, strict=True))
    exact = a.double() @ b.double()
    for _ in range(3):  # a race shows as an error that changes
        c = matmul(a, b)
        assert c.shape == exact.shape
        assert c.dtype == dtype
        assert (c.double() - exact).norm() / exact.norm() < 1e-2
        assert ((c.double() - exact).abs() <= 0.02 * exact.abs() + 0.02 * k**0.5).all()


@pytest.mark.gpu
@pytest.mark.skipif(not available(), reason="needs a Hopper GPU: run pytest -m gpu on one")
def test_bad_input_on_a_gpu():
    x = normal(16, 16).half().cuda()
    with pytest.raises(UserError, match="K is 12; it must be a multiple of 8"):
        matmul(x[:, :12], x[:12])
    with pytest.raises(UserError, match="allowed are bfloat16, float16"):
        matmul(x.float(), x.float())
    assert matmul(x[:0], x).shape == (0, 16)
    assert not matmul(x[:, :0], x[:0]).any()
    nan = x.clone()
    nan[3, 5] = torch.nan
    assert matmul(nan, x).isnan().any(1).nonzero().flatten().tolist() == [3]
