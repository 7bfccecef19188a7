"""Compiling a function: the same values, a readable kernel, a cache under the build folder; passes as predictions."""

import shutil

import pytest
import torch
from made_setting import made_setting

from smml import paths
from smml.bench import fusion
from smml.hardware.free_memory import free_memory_bytes

needs_compiler = pytest.mark.skipif(
    not shutil.which("g++") and not shutil.which("clang++"),
    reason="torch.compile needs a C++ compiler: apt-get install g++",
)
CPP = """
#include <torch/csrc/inductor/cpp_prefix.h>
extern "C"  void  kernel(const float* in_ptr0)
{
    {
        for(int64_t x0=static_cast<int64_t>(0L); x0<static_cast<int64_t>(32L); x0+=static_cast<int64_t>(8L))
        {
            if(C10_LIKELY(x0 >= static_cast<int64_t>(0)))
            {
                auto tmp0 = at::vec::Vectorized<float>::loadu(in_ptr0 + static_cast<int64_t>(x0 + 32L*x1), static_cast<int64_t>(8));
            }
        }
    }
}
"""


def swish(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


@needs_compiler
def test_a_compiled_function_returns_the_same_and_shows_its_kernel(monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/nonexistent")
    x = torch.linspace(-3, 3, 4096)
    compiled = fusion.compile_function(swish, x)
    torch.testing.assert_close(compiled.call(x), swish(x))
    assert compiled.first_call_s > 0
    (kernel,) = compiled.kernels
    assert kernel.startswith("for(")
    assert "static_cast" not in kernel
    assert "4096" in kernel
    assert any((paths.build() / "inductor").rglob("*.so"))


def test_a_kernel_is_written_short():
    generated = f"kernel = async_compile.cpp_pybinding(['const float*'], r'''{CPP}''')"
    compiled = fusion.Compiled(swish, generated, 1.0)
    assert compiled.kernels == [
        "for(long x0=0; x0<32; x0+=8)\n  auto tmp0 = Vec::loadu(in_ptr0 + x0 + 32*x1, 8);"
    ]


def test_a_triton_kernel_stays_as_it_is():
    text = "import triton\n@triton.jit\ndef kernel(): ...\n"
    generated = f"kernel = async_compile.triton('kernel', '''\n{text}''', device_str='cuda')"
    assert fusion.Compiled(swish, generated, 1.0).kernels == [text]


def test_calls_are_predicted_by_their_passes():
    setting = made_setting()
    x, weight = torch.ones(64, 64), torch.ones(64)
    pass_s = fusion.pass_seconds(setting, x, weight)
    calls = {"one": (lambda: x * weight, 1.0), "two": (lambda: x * weight * weight, 2.0)}
    one, two = fusion.measure_passes(setting, calls, x, pass_s)
    assert one.name == "one/64x64/float32"
    assert one.bytes == 2 * x.nbytes
    assert two.bytes == 2 * one.bytes
    assert one.predicted == pytest.approx(one.bytes / pass_s)
    assert two.predicted == pytest.approx(one.predicted)  # twice the bytes in twice the time


def test_free_memory_is_within_the_containers_limit(tmp_path):
    everything = free_memory_bytes("cpu", tmp_path)
    assert everything > 0
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("1048576\n")
    assert free_memory_bytes("cpu", tmp_path) == 0, "this process holds more than that limit"
