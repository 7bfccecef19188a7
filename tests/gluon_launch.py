"""Launches the warp-specialised kernel as `matmul` does, up to the GPU: binds its arguments, describes its tensors, compiles.

Run with TRITON_INTERPRET=0, in a process of its own; prints a JSON line a launch.
"""

import json

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from smml.kernels.matmul import hopper, warp_specialised

FP8 = torch.float8_e4m3fn


class NoGpu:
    """What a launch asks of the driver before it compiles."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0


class Compiled:
    """In the place of the kernel: compiles instead of launching."""

    def __init__(self, kernel) -> None:
        self.kernel = kernel

    def __getitem__(self, grid):
        def launch(*arguments, **constants):
            compiled = self.kernel.warmup(*arguments, grid=grid, **constants)
            threads = 32 * compiled.metadata.num_warps
            print(
                json.dumps(
                    {"grid": grid, "threads": threads, "wgmma": "wgmma" in compiled.asm["ptx"]}
                )
            )

        return launch


def main() -> None:
    driver.set_active(NoGpu())
    hopper.gemm = Compiled(hopper.gemm)
    warp_specialised.multiprocessors = lambda device: 132
    a, weight = torch.empty(4096, 64).bfloat16(), torch.empty(2048, 64).bfloat16()
    out = torch.empty(4096, 2048).bfloat16()
    warp_specialised.launch(a, False, weight, True, out, 256)
    wide = torch.empty(2048, 4096).bfloat16()
    warp_specialised.launch(a, True, wide, True, torch.empty(64, 2048).bfloat16(), 128)
    one_row = torch.zeros(1, 64).to(FP8)  # Triton makes constants of sizes that are 1
    scales = torch.ones(1), torch.ones(2048)
    out = torch.empty(1, 2048).bfloat16()
    warp_specialised.launch(one_row, False, weight.to(FP8), True, out, 128, scales, promoted=True)


if __name__ == "__main__":
    main()
