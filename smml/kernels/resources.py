"""What a compiled kernel takes of a GPU, found without one: registers, spills, shared memory, matrix instructions.

Triton compiles for any target; `ptxas -v` says the rest. Kernels of a process that interprets cannot be compiled in
it, so `report` starts one that compiles: `python -m smml.kernels.resources [NAME…] [90…]` prints a JSON line a build.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from smml.errors import UserError
from smml.triton_mode import INTERPRETED

# Modules of smml.kernels whose `builds()` lists what is compiled.
OPERATIONS = (
    "vector_add",
    "softmax",
    "decode_attention",
    "flash_attention",
    "int8",
    "int4",
    "rescale",
    "cross_entropy",
    "cross_entropy_in_place",
    "matmul.naive",
    "matmul.tiled",
    "matmul.l2_ordered",
    "matmul.pipelined",
    "matmul.descriptors",
    "matmul.persistent",
    "matmul.warp_specialised",
    "matmul.fp8",
    "rms_norm",
    "add_rms_norm",
    "rope",
    "swiglu",
)
TARGETS = (80, 90, 100)  # A100, H100/H200, B200


@dataclass(frozen=True)
class Build:
    """One specialisation of a kernel: argument types in order (e.g. "*bf16", "i32"), constants, launch options.

    Pointers and integers count as divisible by 16, as Triton finds them for aligned tensors of even shapes, but
    those named in `odd`. `spill_bytes` bounds what may go to local memory; `gluon` marks Gluon kernels.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 3
    targets: tuple[int, ...] = TARGETS
    odd: tuple[str, ...] = ()
    spill_bytes: int = 0
    gluon: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Resources:
    """Per thread: registers, bytes spilled (stores and loads). Per block: bytes of shared memory, warps, and columns
    of tensor memory, which Blackwell's matrix units add up in; a kernel that asks for more of it than there is traps.

    `wgmma`, `tma` and `warp_specialised`: whether the code holds Hopper's matrix instructions, bulk tensor copies,
    and warps that hand registers to each other.
    """

    name: str
    target: int
    registers: int
    spill_bytes: int
    spill_bytes_allowed: int
    shared_bytes: int
    tensor_memory_columns: int
    num_warps: int
    wgmma: bool
    tma: bool
    warp_specialised: bool


def report(
    operations: Iterable[str] = OPERATIONS, targets: Iterable[int] = TARGETS
) -> list[Resources]:
    """Compile every build of the named operations and read what each takes; about a second a build and target.

    Raises UserError for an unknown operation and where the compiler refuses one.
    """
    names = list(operations)
    unknown = [name for name in names if name not in OPERATIONS]
    if unknown:
        raise UserError(
            f"no kernels named {', '.join(unknown)}; there are: {', '.join(OPERATIONS)}."
        )
    done = subprocess.run(
        [sys.executable, "-m", "smml.kernels.resources", *names, *map(str, targets)],
        capture_output=True,
        text=True,
        env=os.environ | {"TRITON_INTERPRET": "0"},
    )
    if done.returncode:
        raise UserError(f"a kernel did not compile: {done.stderr.strip()[-2000:]}")
    return [Resources(**json.loads(line)) for line in done.stdout.splitlines()]


def compile_builds(
    builds: Iterable[Build], targets: Iterable[int] = TARGETS
) -> Iterator[Resources]:
    """Compile each build for those `targets` that are among its own, in this process, which must not interpret."""
    for build in builds:
        for target in set(targets).intersection(build.targets):
            yield _compile(build, target)


def _compile(build: Build, target: int) -> Resources:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if build.gluon:
        from triton.experimental.gluon._runtime import GluonASTSource

    source_type = GluonASTSource if build.gluon else ASTSource
    constants = {(build.kernel.arg_names.index(n),): v for n, v in build.constants.items()}
    signature = {
        name: "constexpr" if name in build.constants else build.signature[name]
        for name in build.kernel.arg_names
    }
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, (name, kind) in enumerate(signature.items())
        if (kind.startswith(("*", "i32", "i64"))) and name not in build.odd
    }
    compiled = triton.compile(
        source_type(build.kernel, signature, constants, aligned),
        target=GPUTarget("cuda", target, 32),
        options={
            "num_warps": build.num_warps,
            "num_stages": build.num_stages,
            **build.options,
        },
    )
    ptx = compiled.asm["ptx"]
    registers, spilled = _ptxas(ptx, target)
    return Resources(
        build.name,
        target,
        registers,
        spilled,
        build.spill_bytes,
        compiled.metadata.shared,
        getattr(compiled.metadata, "tmem_size", None) or 0,
        compiled.metadata.num_warps,
        "wgmma.mma_async" in ptx,
        "cp.async.bulk.tensor" in ptx,
        "setmaxnreg" in ptx,
    )


def _ptxas(ptx: str, target: int) -> tuple[int, int]:
    """Registers and spilled bytes of the only kernel in `ptx`, as the bundled assembler reports them."""
    from triton import knobs

    tool = knobs.nvidia.ptxas_blackwell if target >= 100 else knobs.nvidia.ptxas
    arch = re.search(r"^\.target (\w+)", ptx, re.MULTILINE).group(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        done = subprocess.run(
            [tool.path, "-v", f"--gpu-name={arch}", str(path), "-o", str(path.with_suffix(".o"))],
            capture_output=True,
            text=True,
            check=True,
        )
    used = int(re.search(r"Used (\d+) registers", done.stderr).group(1))
    spills = re.findall(r"(\d+) bytes spill", done.stderr)
    return used, sum(map(int, spills))


def main(arguments: list[str]) -> int:
    """Print one JSON line a build of the operations and targets (80, 90, 100) named, of all where none is."""
    if INTERPRETED:
        command = [sys.executable, "-m", "smml.kernels.resources", *arguments]
        return subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "0"}).returncode
    targets = [int(argument) for argument in arguments if argument.isdigit()]
    for name in [a for a in arguments if not a.isdigit()] or OPERATIONS:
        module = importlib.import_module(f"smml.kernels.{name}")
        for resources in compile_builds(module.builds(), targets or TARGETS):
            print(json.dumps(asdict(resources)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
