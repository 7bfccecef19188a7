"""The Triton kernels of RMSNorm, with or without a residual added first: rows in registers, wider ones in parts.

A row of up to 8192 (backward) or 16,384 (forward) columns stays in a program's registers between its sum and its result.
Of a wider one, each thread asks for all its parts at once, adds up their squares, and reads them again from the cache.
"""

import triton
import triton.language as tl

from smml.kernels.interpreter import cast


@triton.jit
def forward(
    x_ptr,
    residual_ptr,
    weight_ptr,
    y_ptr,
    total_ptr,
    x_stride,
    residual_stride,
    rows,
    columns,
    eps,
    ADD: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """y = x / √(mean(x²) + eps) · weight of ROWS rows; with ADD, x + residual takes x's place and is stored too."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]  # [ROWS, 1]
    column = tl.arange(0, BLOCK)[None, :]  # [1, BLOCK], BLOCK ≥ columns
    real = column < columns
    inside = (row < rows) & real
    x = tl.load(x_ptr + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        residual = tl.load(residual_ptr + row * residual_stride + column, mask=inside, other=0.0)
        # The norm is that of the sum as it is stored, rounded.
        total = cast(x + residual.to(tl.float32), total_ptr.dtype.element_ty)
        tl.store(total_ptr + row * columns + column, total, mask=inside)
        x = total.to(tl.float32)
    # Asked for before the mean, which waits for the row.
    weight = tl.load(weight_ptr + column, mask=real, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 1)[:, None] / columns + eps)  # [ROWS, 1]
    y = cast(x * scale * weight, y_ptr.dtype.element_ty)
    tl.store(y_ptr + row * columns + column, y, mask=inside)


@triton.jit
def wide_forward(
    x_ptr,
    residual_ptr,
    weight_ptr,
    y_ptr,
    total_ptr,
    x_stride,
    residual_stride,
    eps,
    columns: tl.constexpr,  # known, so that whole parts need no mask and offsets no registers
    ADD: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`forward` of one row in PARTS parts of BLOCK columns."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    x_row, y_row = x_ptr + row * x_stride + column, y_ptr + row * columns + column  # [BLOCK]
    if ADD:
        residual_row = residual_ptr + row * residual_stride + column
        total_row = total_ptr + row * columns + column
    squares = tl.zeros([BLOCK], tl.float32)
    for part in tl.static_range(PARTS):
        real = part * BLOCK + column < columns
        x = tl.load(x_row + part * BLOCK, mask=real, other=0.0).to(tl.float32)
        if ADD:
            residual = tl.load(residual_row + part * BLOCK, mask=real, other=0.0).to(tl.float32)
            total = cast(x + residual, total_ptr.dtype.element_ty)
            tl.store(total_row + part * BLOCK, total, mask=real)
            x = total.to(tl.float32)
        squares += x * x
    scale = tl.rsqrt(tl.sum(squares, 0) / columns + eps)
    for part in tl.static_range(PARTS):
        real = part * BLOCK + column < columns
        weight = tl.load(weight_ptr + column + part * BLOCK, mask=real, other=0.0)
        # A thread reads back what it stored itself. The hint keeps this load apart from the first one, whose
        # values would otherwise have to stay in registers.
        again = (total_row if ADD else x_row) + part * BLOCK
        x = tl.load(again, mask=real, other=0.0, eviction_policy="evict_first").to(tl.float32)
        y = cast(x * scale * weight.to(tl.float32), y_ptr.dtype.element_ty)
        tl.store(y_row + part * BLOCK, y, mask=real)


@triton.jit
def backward(
    x_ptr,
    dy_ptr,
    dtotal_ptr,
    weight_ptr,
    dx_ptr,
    sums_ptr,
    x_stride,
    dy_stride,
    dtotal_stride,
    rows,
    columns,
    eps,
    ADD: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """dx of every program_id-th ROWS rows, and this program's sum of dy · x / √(mean(x²) + eps) over them.

    With ADD, x is the sum that was normalised, and dtotal its other gradient. The rows to come are on their way
    (STAGES) while one is worked on; what its mean was is found again from the row, which is read anyway.
    """
    column = tl.arange(0, BLOCK)[None, :]  # [1, BLOCK], BLOCK ≥ columns
    real = column < columns
    weight = tl.load(weight_ptr + column, mask=real, other=0.0).to(tl.float32)
    sums = tl.zeros([ROWS, BLOCK], tl.float32)
    tiles = tl.cdiv(rows, ROWS)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), num_stages=STAGES):
        row = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]  # [ROWS, 1]
        inside = (row < rows) & real
        x = tl.load(x_ptr + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + row * dy_stride + column, mask=inside, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(x * x, 1)[:, None] / columns + eps)  # [ROWS, 1]
        scale = tl.where(row < rows, scale, 0.0)  # with an eps of 0, missing rows would add NaN
        normed, dnormed = x * scale, dy * weight
        dx = (dnormed - normed * (tl.sum(dnormed * normed, 1)[:, None] / columns)) * scale
        if ADD:
            dtotal = tl.load(dtotal_ptr + row * dtotal_stride + column, mask=inside, other=0.0)
            dx += dtotal.to(tl.float32)
        dx = cast(dx, dx_ptr.dtype.element_ty)
        tl.store(dx_ptr + row * columns + column, dx, mask=inside)
        sums += dy * normed
    own = tl.program_id(0).to(tl.int64) * columns + column
    tl.store(sums_ptr + own, tl.sum(sums, 0)[None, :], mask=real)


@triton.jit
def wide_backward(
    x_ptr,
    dy_ptr,
    dtotal_ptr,
    weight_ptr,
    dx_ptr,
    sums_ptr,
    x_stride,
    dy_stride,
    dtotal_stride,
    rows,
    eps,
    columns: tl.constexpr,
    ADD: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`backward` of one row at a time in PARTS parts of BLOCK columns; only the sums stay in registers."""
    column = tl.arange(0, BLOCK)
    sums = ()
    for _ in tl.static_range(PARTS):
        sums = sums + (tl.zeros([BLOCK], tl.float32),)  # noqa: RUF005 (Triton adds tuples)
    for index in tl.range(tl.program_id(0), rows, tl.num_programs(0), num_stages=1):
        row = tl.cast(index, tl.int64)
        x_row = x_ptr + row * x_stride + column
        dy_row = dy_ptr + row * dy_stride + column
        squares, products = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
        for part in tl.static_range(PARTS):
            real = part * BLOCK + column < columns
            x = tl.load(x_row + part * BLOCK, mask=real, other=0.0).to(tl.float32)
            dy = tl.load(dy_row + part * BLOCK, mask=real, other=0.0).to(tl.float32)
            weight = tl.load(weight_ptr + column + part * BLOCK, mask=real, other=0.0)
            squares += x * x
            products += x * dy * weight.to(tl.float32)
        scale = tl.rsqrt(tl.sum(squares, 0) / columns + eps)
        along = tl.sum(products, 0) * scale / columns
        grown = ()
        for part in tl.static_range(PARTS):
            real = part * BLOCK + column < columns
            x = tl.load(x_row + part * BLOCK, mask=real, other=0.0, eviction_policy="evict_first")
            dy = tl.load(dy_row + part * BLOCK, mask=real, other=0.0, eviction_policy="evict_first")
            weight = tl.load(
                weight_ptr + column + part * BLOCK,
                mask=real,
                other=0.0,
                eviction_policy="evict_last",
            )
            normed, dy = x.to(tl.float32) * scale, dy.to(tl.float32)
            dx = (dy * weight.to(tl.float32) - normed * along) * scale
            if ADD:
                dtotal_row = dtotal_ptr + row * dtotal_stride + column
                dtotal = tl.load(dtotal_row + part * BLOCK, mask=real, other=0.0)
                dx += dtotal.to(tl.float32)
            dx = cast(dx, dx_ptr.dtype.element_ty)
            tl.store(dx_ptr + row * columns + column + part * BLOCK, dx, mask=real)
            grown = grown + (sums[part] + dy * normed,)  # noqa: RUF005
        sums = grown
    own = tl.program_id(0).to(tl.int64) * columns + column
    for part in tl.static_range(PARTS):
        tl.store(sums_ptr + own + part * BLOCK, sums[part], mask=part * BLOCK + column < columns)


@triton.jit
def add_up(sums_ptr, dweight_ptr, programs, columns, PROGRAMS: tl.constexpr, BLOCK: tl.constexpr):
    """dweight [columns]: the sum of every program's row of sums [programs, columns], BLOCK columns of it."""
    program = tl.arange(0, PROGRAMS)[:, None]  # [PROGRAMS, 1], PROGRAMS ≥ programs
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]  # [1, BLOCK]
    inside = (program < programs) & (column < columns)
    offsets = program.to(tl.int64) * columns + column
    total = tl.sum(tl.load(sums_ptr + offsets, mask=inside, other=0.0), 0)[None, :]
    tl.store(dweight_ptr + column, cast(total, dweight_ptr.dtype.element_ty), mask=column < columns)
