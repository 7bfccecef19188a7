"""torch.compile of one function that is differentiated, its cache under the build folder."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from smml import paths
from smml.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# For one or two kernels: precompiled headers and worker processes cost more than they save, and the vector unit that
# the CPU names is taken as given (torch's own test of it hangs now and then).
ON_CPU = {
    "cpp_cache_precompile_headers": False,
    "compile_threads": 1,
    "cpp.vec_isa_ok": True,
}


def compile_trained(function: "Callable[[Tensor], Tensor]", x: "Tensor") -> "Callable[..., Tensor]":
    """`function` compiled, forward and backward, by calling and differentiating it once at x.

    Raises UserError where no C++ compiler is found for a CPU.
    """
    import torch
    from torch._inductor.exc import InvalidCxxCompiler

    # Set, not defaulted: by now torch may have put its own default, in /tmp, into the environment.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(paths.build() / "inductor")
    options = ON_CPU if x.device.type == "cpu" else {}
    compiled = torch.compile(function, dynamic=False, options=options)
    try:
        torch.autograd.grad(compiled(x).sum(), x)
    except torch._dynamo.exc.BackendCompilerFailed as error:
        if isinstance(error.inner_exception, InvalidCxxCompiler):
            raise UserError(
                "torch.compile finds no C++ compiler: install one (apt-get install g++, xcode-select --install), or "
                "name it in $CXX."
            ) from error
        raise
    return compiled
