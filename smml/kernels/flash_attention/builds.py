"""What is compiled without a GPU: the tiles that the kernels launch for 16-bit heads, and forward's for float32."""

from typing import Any

from smml.kernels.flash_attention import tiles
from smml.kernels.flash_attention.backward import _dk_dv, _dq
from smml.kernels.flash_attention.forward import _forward
from smml.kernels.resources import Build

POINTERS = ("out", "dq", "dk", "dv")
ROWS = {"q": "M", "do": "M", "k": "N", "v": "N"}


def builds() -> list[Build]:
    """Forward, dq and dk·dv by bulk copies on Hopper and Blackwell, and forward by plain loads on an A100."""
    hopper, ampere = (90, 100), (80,)
    return [
        _build("forward/128/bf16", _forward, 128, "bf16", (128, 128, 8, 2), hopper),
        _build("forward/64/fp16", _forward, 64, "fp16", (128, 128, 8, 2), hopper),
        _build("forward/64/fp32", _forward, 64, "fp32", (64, 64, 4, 2), hopper),
        _build("dq/128/bf16", _dq, 128, "bf16", (128, 64, 8, 2), hopper),
        _build("dk-dv/128/bf16", _dk_dv, 128, "bf16", (64, 128, 8, 2), hopper),
        _build("forward/128/bf16/loads", _forward, 128, "bf16", (128, 64, 8, 3), ampere, tma=False),
    ]


def _build(
    name: str,
    kernel: Any,
    head_dim: int,
    dtype: str,
    tile: tuple[int, int, int, int],
    targets: tuple[int, ...],
    *,
    tma: bool = True,
) -> Build:
    """One causal build with `tile`: rows of queries, rows of keys, warps, stages."""
    m, n, warps, stages = tile
    constants = {
        "HEAD_DIM": head_dim,
        "BLOCK_D": tiles.padded(head_dim),
        "CAUSAL": True,
        "TMA": tma,
        "WITH_DLSE": False,
        "TOGETHER": tiles.HEADS_TOGETHER,
        "M": m,
        "N": n,
    }
    signature = {}
    for argument in kernel.arg_names:
        if argument in ROWS and tma:
            rows = constants[ROWS[argument]]
            signature[argument] = f"tensordesc<{dtype}[1, 1, {rows}, {head_dim}]>"
        elif argument in ROWS or argument in POINTERS:
            signature[argument] = f"*{dtype}"
        elif argument in ("lse", "dlse", "delta"):
            signature[argument] = "*fp32"
        else:
            signature[argument] = "fp32" if argument.startswith("scale") else "i32"
    return Build(
        f"flash_attention/{name}",
        kernel,
        {name: kind for name, kind in signature.items() if name not in constants},
        {name: value for name, value in constants.items() if name in kernel.arg_names},
        warps,
        stages,
        targets,
        odd=("heads", "group", "T", "S", "all_heads"),
    )
