"""What every kernel test shares: dtypes with their tolerances, inputs, and the bad ones that must be refused or right."""

import torch
from torch import Tensor

# Relative to the float64 reference's norm; bfloat16 has 8 significant bits, float16 11.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
DTYPES = tuple(TOLERANCE)


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Random-normal numbers, the same for one seed, in `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype)


def error(out: Tensor, exact: Tensor) -> float:
    """‖out − exact‖ ÷ ‖exact‖ in float64; NaN where `out` holds one."""
    out, exact = out.double(), exact.double()
    return float((out - exact).norm() / exact.norm().clamp_min(1e-30))


def assert_close(out: Tensor, exact: Tensor, dtype: torch.dtype, factor: float = 1.0) -> None:
    """Shape, dtype and value: within the tolerance of `dtype` (times `factor`) of the exact result."""
    assert out.shape == exact.shape
    assert out.dtype == dtype
    assert error(out, exact) <= TOLERANCE[dtype] * factor  # NaN fails
    assert torch.isfinite(out).all()


def beyond_int32(rows: int, columns: int, dtype: torch.dtype = torch.float16) -> Tensor:
    """A tensor [rows, columns] whose last rows start more than 2³¹ elements after its first.

    Memory that nobody touches is not taken: only the rows' own pages are.
    """
    stride = 2**31 // (rows - 1) + 64
    base = torch.empty((rows - 1) * stride + columns, dtype=dtype)
    return base.as_strided((rows, columns), (stride, 1)).copy_(normal(rows, columns, dtype=dtype))
