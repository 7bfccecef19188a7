"""The warp-specialised product for Hopper, in Gluon: one warp loads, two warpgroups multiply, each in its own program.

A ring of STAGES buffers joins them. The producer fills it through the tensor memory accelerator (TMA); each consumer
issues the matrix instruction (wgmma) of 64 rows while the one before still runs. Two barriers guard a buffer: `full`
completes when its bytes have landed, `empty` when both consumers have read it.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

# A warpgroup's matrix instruction has 64 rows; two warpgroups share each tile of B, which halves its traffic.
CONSUMERS = gl.constexpr(2)
ROWS = gl.constexpr(64)
# Columns handed to TMA at once: 128 bytes of bf16, one swizzled row. Each consumer writes one while another leaves.
SLICE = gl.constexpr(64)
STAGING = gl.constexpr(2)


@gluon.jit
def ring_stage(step, STAGES: gl.constexpr):
    """The buffer of a step; steps are counted through all tiles of a program."""
    return step % STAGES


@gluon.jit
def ring_parity(step, STAGES: gl.constexpr):
    """Parity of the round: consumers wait for it in `full`, the producer for the other one in `empty`."""
    return (step // STAGES) % 2


@gluon.jit
def tile_origin(tile, row_tiles, column_tiles, GROUP: gl.constexpr):
    """Tile's row and column in tiles. GROUP rows are walked column by column: what runs at once is near a square in L2."""
    in_group = GROUP * column_tiles
    first = tile // in_group * GROUP
    height = min(row_tiles - first, GROUP)
    return first + tile % in_group % height, tile % in_group // height


@gluon.jit
def halves(x):
    """x [M, N] as its left and its right half [M, N/2]: other names for registers, nothing moves."""
    return x.reshape([x.shape[0], 2, x.shape[1] // 2]).permute([0, 2, 1]).split()


@gluon.jit
def slices(x):
    """x [ROWS, 128 or 256] as a tuple of slices [ROWS, SLICE]."""
    left, right = halves(x)
    if x.shape[1] == 2 * SLICE:
        return left, right
    else:  # noqa: RET505 (traced: only one branch exists in a compiled kernel)
        first, second = halves(left)
        third, fourth = halves(right)
        return first, second, third, fourth


@gluon.jit
def produce(
    a_desc,
    b_desc,
    rings,
    barriers,
    sizes,
    BLOCK_N: gl.constexpr,
    BLOCK_K: gl.constexpr,
    A_TRANSPOSED: gl.constexpr,
    B_TRANSPOSED: gl.constexpr,
    GROUP: gl.constexpr,
):
    """One warp: fills the ring, tile after tile, as far ahead as it has buffers."""
    a_ring, b_ring = rings
    full, empty = barriers
    row_tiles, column_tiles, steps = sizes
    STAGES: gl.constexpr = b_ring.shape[0]
    step = 0
    for tile in range(gl.program_id(0), row_tiles * column_tiles, gl.num_programs(0)):
        row_tile, column_tile = tile_origin(tile, row_tiles, column_tiles, GROUP)
        row = row_tile * (CONSUMERS * ROWS)
        column = column_tile * BLOCK_N
        for k in range(steps):
            stage = ring_stage(step, STAGES)
            landed = full.index(stage)
            # A fresh barrier counts as having completed parity 1: the first round waits for nobody.
            mbarrier.wait(empty.index(stage), ring_parity(step, STAGES) ^ 1)
            # TMA counts whole boxes, those beyond the matrix too: it fills them with zeros.
            mbarrier.expect(landed, CONSUMERS * a_desc.block_type.nbytes + b_desc.block_type.nbytes)
            depth = k * BLOCK_K
            for half in gl.static_range(CONSUMERS):
                a_row = row + half * ROWS
                a_at = [depth, a_row] if A_TRANSPOSED else [a_row, depth]
                a = a_ring.index(stage * CONSUMERS + half)
                tma.async_copy_global_to_shared(a_desc, a_at, landed, a)
            b_at = [column, depth] if B_TRANSPOSED else [depth, column]
            tma.async_copy_global_to_shared(b_desc, b_at, landed, b_ring.index(stage))
            step += 1


@gluon.jit
def consume(
    half: gl.constexpr,
    c_desc,
    scales,
    rings,
    staging,
    barriers,
    sizes,
    BLOCK_N: gl.constexpr,
    A_TRANSPOSED: gl.constexpr,
    B_TRANSPOSED: gl.constexpr,
    GROUP: gl.constexpr,
    SCALED: gl.constexpr,
    PROMOTED: gl.constexpr,
):
    """One warpgroup: multiplies the rows `half` of each tile, rounds the sums and hands them to TMA."""
    a_scale_ptr, a_scale_stride, b_scale_ptr, b_scale_stride, M, N = scales
    a_ring, b_ring = rings
    full, empty = barriers
    row_tiles, column_tiles, steps = sizes
    STAGES: gl.constexpr = b_ring.shape[0]
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0],
        warps_per_cta=[4, 1],
        instr_shape=[16, BLOCK_N, 256 // a_ring.dtype.primitive_bitwidth],
    )
    slice_layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, SLICE, 16]
    )
    step = 0
    for tile in range(gl.program_id(0), row_tiles * column_tiles, gl.num_programs(0)):
        acc = gl.zeros([ROWS, BLOCK_N], gl.float32, layout)
        for k in range(steps):
            stage = ring_stage(step, STAGES)
            a = a_ring.index(stage * CONSUMERS + half)
            b = b_ring.index(stage)
            if A_TRANSPOSED:
                a = a.permute([1, 0])
            if B_TRANSPOSED:
                b = b.permute([1, 0])
            mbarrier.wait(full.index(stage), ring_parity(step, STAGES))
            if PROMOTED:
                # fp8 sums lose bits inside the matrix unit: BLOCK_K products at most are added there. Meanwhile
                # the other warpgroup has the unit.
                part = gl.zeros([ROWS, BLOCK_N], gl.float32, layout)
                part = warpgroup_mma(a, b, part, use_acc=False, is_async=True)
                part = warpgroup_mma_wait(num_outstanding=0, deps=(part,))
                mbarrier.arrive(empty.index(stage), count=1)
                acc += part
            else:
                acc = warpgroup_mma(a, b, acc, is_async=True)
                # This product stays in flight; the one before is done, and its buffer is free.
                acc = warpgroup_mma_wait(num_outstanding=1, deps=(acc,))
                before = ring_stage(step + STAGES - 1, STAGES)
                mbarrier.arrive(empty.index(before), count=1, pred=k > 0)
            step += 1

        row_tile, column_tile = tile_origin(tile, row_tiles, column_tiles, GROUP)
        row = (row_tile * CONSUMERS + half) * ROWS
        column = column_tile * BLOCK_N
        if SCALED:  # loaded here, they arrive while the last product runs
            rows = row + gl.arange(0, ROWS, gl.SliceLayout(1, layout))
            columns = column + gl.arange(0, BLOCK_N, gl.SliceLayout(0, layout))
            a_scale = gl.load(a_scale_ptr + rows * a_scale_stride, mask=rows < M, other=0.0)
            b_scale = gl.load(b_scale_ptr + columns * b_scale_stride, mask=columns < N, other=0.0)
        if not PROMOTED:
            acc = warpgroup_mma_wait(num_outstanding=0, deps=(acc,))
            mbarrier.arrive(empty.index(ring_stage(step + STAGES - 1, STAGES)), count=1)
        if SCALED:
            acc = acc * a_scale[:, None] * b_scale[None, :]
        parts = slices(acc)
        for i in gl.static_range(BLOCK_N // SLICE):
            part = gl.convert_layout(parts[i], slice_layout, assert_trivial=True)  # [ROWS, SLICE]
            out = staging.index(half * STAGING + i % STAGING)
            tma.store_wait(pendings=STAGING - 1)  # what this buffer held before has left it
            out.store(part.to(c_desc.dtype))
            fence_async_shared()
            tma.async_copy_shared_to_global(c_desc, [row, column + i * SLICE], out)
    tma.store_wait(pendings=0)


@gluon.jit
def gemm(
    a_desc,
    b_desc,
    c_desc,
    a_scale_ptr,
    b_scale_ptr,
    a_scale_stride,
    b_scale_stride,
    M,
    N,
    K,
    BLOCK_N: gl.constexpr,
    BLOCK_K: gl.constexpr,
    A_TRANSPOSED: gl.constexpr,
    B_TRANSPOSED: gl.constexpr,
    STAGES: gl.constexpr,
    GROUP: gl.constexpr,
    SCALED: gl.constexpr,
    PROMOTED: gl.constexpr,
):
    """C [M, N] = A [M, K] · B [K, N] (SCALED: times a_scale [M] and b_scale [N]), one program a multiprocessor."""
    a_ring = gl.allocate_shared_memory(
        a_desc.dtype,
        [STAGES * CONSUMERS] + a_desc.block_type.shape,  # noqa: RUF005 (Triton traces no star)
        a_desc.layout,
    )
    b_ring = gl.allocate_shared_memory(
        b_desc.dtype,
        [STAGES] + b_desc.block_type.shape,  # noqa: RUF005 (Triton traces no star)
        b_desc.layout,
    )
    staging = gl.allocate_shared_memory(
        c_desc.dtype,
        [CONSUMERS * STAGING] + c_desc.block_type.shape,  # noqa: RUF005 (Triton traces no star)
        c_desc.layout,
    )
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=CONSUMERS)
    fence_async_shared()  # TMA must see the barriers as they were made

    rings = (a_ring, b_ring)
    barriers = (full, empty)
    sizes = (gl.cdiv(M, CONSUMERS * ROWS), gl.cdiv(N, BLOCK_N), gl.cdiv(K, BLOCK_K))
    scales = (a_scale_ptr, a_scale_stride, b_scale_ptr, b_scale_stride, M, N)
    # Two more partitions, of 4 warps and of 1. Of the registers, the loader leaves its own to those who hold the sums.
    # fmt: off
    gl.warp_specialize(
        [
            (consume, (0, c_desc, scales, rings, staging, barriers, sizes, BLOCK_N, A_TRANSPOSED, B_TRANSPOSED, GROUP, SCALED, PROMOTED)),
            (consume, (1, c_desc, scales, rings, staging, barriers, sizes, BLOCK_N, A_TRANSPOSED, B_TRANSPOSED, GROUP, SCALED, PROMOTED)),
            (produce, (a_desc, b_desc, rings, barriers, sizes, BLOCK_N, BLOCK_K, A_TRANSPOSED, B_TRANSPOSED, GROUP)),
        ],
        worker_num_warps=[4, 1],
        worker_num_regs=[240, 24],
    )
    # fmt: on
