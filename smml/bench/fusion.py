"""What compiling a chain of elementwise operations saves: the function that torch.compile makes, its kernel, its passes."""

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smml import paths
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.hardware.reach import thread_count
from smml.measure import Record, record, time_call, time_interleaved

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

SHAPES = {"cpu": (4096, 1024), "cuda": (65_536, 4096)}  # tokens × width


@dataclass(frozen=True)
class Compiled:
    """A compiled function, the whole text that Inductor generated for it, and the seconds of its first call."""

    call: Callable[..., Any]
    generated: str
    first_call_s: float

    @property
    def kernels(self) -> list[str]:
        """The generated kernels, C++ on a CPU and Triton on a GPU; casts and vector types written short."""
        texts = re.findall(r"async_compile\.\w+\(.*?'''\n(.*?)'''", self.generated, re.DOTALL)
        return [_short(text) for text in texts]


def compile_function(function: Callable[..., Any], *arguments: Any) -> Compiled:
    """torch.compile of `function`, called once with `arguments`; its cache stands under the build folder.

    Raises UserError where no compiler is found, or one that fails: on a CPU, Inductor writes C++.
    """
    import torch
    from torch._inductor import config
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler
    from torch._inductor.utils import run_and_get_code

    # Set, not defaulted: by now torch may have put its own default, in /tmp, into the environment.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(paths.build() / "inductor")
    compiled = torch.compile(function)
    start = time.perf_counter()
    settings = {
        # Precompiled headers pay for a whole model; for one kernel they take longer than the kernel.
        "cpp_cache_precompile_headers": False,
        "compile_threads": 1,
        # The vector unit that the CPU names is taken as given: torch would load a test library in a child process,
        # which now and then hangs for a minute, and then compiles vector code without the flags for it.
        "cpp.vec_isa_ok": True,
    }
    with config.patch(settings):
        try:
            with torch.inference_mode():
                _, generated = run_and_get_code(compiled, *arguments)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            if isinstance(error.inner_exception, InvalidCxxCompiler):
                raise UserError(
                    "torch.compile finds no C++ compiler: install one (apt-get install g++, xcode-select "
                    "--install), or name it in $CXX."
                ) from error
            if isinstance(error.inner_exception, CppCompileError):
                raise UserError(
                    "the C++ compiler cannot compile what torch.compile wrote for this CPU: install g++ 12 or newer, "
                    "or name such a compiler in $CXX."
                ) from error
            raise
    return Compiled(compiled, "\n".join(generated), time.perf_counter() - start)


def arrays(setting: Setting) -> "tuple[Tensor, Tensor]":
    """x [tokens, D], too large for the inner caches, and weight [D], random-normal in the profile's dtype."""
    import torch

    generator = torch.Generator(setting.device).manual_seed(0)
    dtype = getattr(torch, setting.profile.dtype)
    tokens, width = SHAPES[setting.device]
    return tuple(
        torch.randn(shape, generator=generator, device=setting.device).to(dtype)
        for shape in ((tokens, width), (width,))
    )


def pass_seconds(setting: Setting, x: "Tensor", weight: "Tensor") -> float:
    """Seconds of one pass, x · weight: reads the array, writes a new one; median."""
    with thread_count(setting.threads("memory")):
        return time_call(lambda: x * weight, device=setting.device).p50


def measure_passes(
    setting: Setting,
    calls: Mapping[str, tuple[Callable[[], object], float]],
    x: "Tensor",
    pass_s: float,
) -> list[Record]:
    """Time calls in turns, each predicted as its number of passes over `x` times `pass_s`; a pass is 2 · x bytes."""
    import torch

    def plain(call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode():
                for _ in range(setting.slowdown):
                    call()

        return run

    with thread_count(setting.threads("memory")):
        timings = time_interleaved(
            {name: plain(call) for name, (call, _) in calls.items()}, device=setting.device
        )
    physical = setting.physical_roof()
    return [
        record(
            f"{name}/{x.shape[0]}x{x.shape[1]}/{setting.profile.dtype}",
            timings[name],
            machine=setting.machine_id,
            source=setting.source,
            unit="B/s",
            amount=passes * 2 * x.nbytes,
            predicted_s=passes * pass_s,
            measured_ceiling=2 * x.nbytes / pass_s,
            physical_ceiling=physical.bandwidth_bytes_per_s if physical else None,
            inputs={"bound": "memory", "passes": passes, "profile": setting.profile.name},
            bytes=passes * 2 * x.nbytes,
            environment=setting.machine.environment(),
        )
        for name, (_, passes) in calls.items()
    ]


def _short(kernel: str) -> str:
    """C++ without its casts, guards, lambdas and lone braces, two spaces a level, so that it can be read; Triton as it is."""
    if "#include" not in kernel:
        return kernel
    start = kernel.rfind("\n", 0, kernel.index("for(")) + 1
    text = kernel[start:].replace("int64_t", "long").replace("at::vec::", "")
    text = re.sub(r"static_cast<\w+>\(([^()]*)\)", r"\1", text)
    text = re.sub(r"\(\[\]\(.*?\) \{.*?\}, ", "(", text)  # the lambda that a reduction is handed
    text = re.sub(r"\b(\d+)L\b", r"\1", text.replace("Vectorized<float>", "Vec"))
    dropped = re.compile(r"\s*[{}]?|.*(LIKELY|integer_div_error|#pragma).*")
    shown, levels = [], []
    for line in text.splitlines():
        if dropped.fullmatch(line):
            continue
        indent = len(line) - len(line.lstrip())
        while levels and levels[-1] > indent:
            levels.pop()
        if not levels or indent > levels[-1]:
            levels.append(indent)
        shown.append("  " * (len(levels) - 1) + line.strip())
    return "\n".join(shown)
