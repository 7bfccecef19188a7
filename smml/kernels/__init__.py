"""KERNELS: one operation a file: its Triton kernel, the plain PyTorch it must equal, its FLOPs and bytes.

The same file runs two ways (see `smml.triton_mode`): compiled on a GPU, interpreted on a CPU. A kernel computes in
float32 whatever it reads, with `interpreter.dot` and `interpreter.cast` where the interpreter needs help.
"""

from smml import triton_mode
from smml.errors import UserError

try:
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction
except ImportError as error:
    raise UserError(
        f"kernels need Triton ({error}), which is made for Linux: run this in Linux, WSL or a container."
    ) from error

# Triton's own functions were decorated when it was imported: in the other mode, kernels could not call them.
if isinstance(tl.zeros, InterpretedFunction) != triton_mode.INTERPRETED:
    raise UserError(
        "triton was imported before smml had chosen how kernels run: import smml first "
        f"(in a notebook, in an earlier cell), or set TRITON_INTERPRET={int(triton_mode.INTERPRETED)} "
        "before Python starts."
    )
