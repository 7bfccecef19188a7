"""How kernels run here: chosen before Triton is imported; where the interpreter differs, and that the shims mend it."""

import os
import subprocess
import sys

import pytest
import torch
import triton
import triton.language as tl
from kernel_cases import normal

from smml import triton_mode
from smml.errors import UserError
from smml.kernels import operands
from smml.kernels.interpreter import cast, dot
from smml.kernels.tuning import autotune

INTERPRETED = pytest.mark.skipif(
    not triton_mode.INTERPRETED,
    reason="kernels are compiled here; TRITON_INTERPRET=1 make test runs what is about the interpreter",
)


def test_the_mode_is_set_before_triton_and_without_torch():
    code = (
        "import os, sys, smml; "
        "print(os.environ['TRITON_INTERPRET'], 'torch' in sys.modules, 'triton' in sys.modules)"
    )
    environ = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environ["CUDA_VISIBLE_DEVICES"] = ""
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )
    assert out.stdout.split() == ["1", "False", "False"]


@pytest.mark.parametrize(("given", "expected"), [("1", True), ("true", True), ("0", False)])
def test_what_the_caller_set_stays(given, expected):
    environ = {"TRITON_INTERPRET": given}
    assert triton_mode.interpreted(environ) is expected
    assert environ == {"TRITON_INTERPRET": given}


@pytest.mark.parametrize(
    ("cuda", "device", "visible", "expected"),
    [
        ("'13.0'", True, "all", "0"),
        ("'13.0'", True, "", "1"),
        ("'13.0'", True, "-1", "1"),
        ("'13.0'", False, "all", "1"),
        ("None", True, "all", "1"),
    ],
    ids=["a GPU", "hidden", "hidden by -1", "none", "torch for CPUs"],
)
def test_a_gpu_counts_when_torch_can_use_it(tmp_path, monkeypatch, cuda, device, visible, expected):
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "version.py").write_text(f"cuda: Optional[str] = {cuda}\nhip = None\n")
    if device:
        (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(triton_mode, "DEVICES", (str(tmp_path / "nvidia[0-9]*"),))
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.syspath_prepend(tmp_path)
    environ = {"CUDA_VISIBLE_DEVICES": visible}
    triton_mode.interpreted(environ)
    assert environ["TRITON_INTERPRET"] == expected


def test_triton_imported_too_early_is_said():
    code = "import triton, smml.kernels"
    environ = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environ["CUDA_VISIBLE_DEVICES"] = ""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ)
    assert "triton was imported before smml had chosen how kernels run" in out.stderr


@triton.jit
def _product(a_ptr, b_ptr, c_ptr, N: tl.constexpr, MENDED: tl.constexpr):
    i = tl.arange(0, N)
    at = i[:, None] * N + i[None, :]
    a, b = tl.load(a_ptr + at), tl.load(b_ptr + at)
    c = dot(a, b, tl.zeros((N, N), tl.float32)) if MENDED else tl.dot(a, b)
    tl.store(c_ptr + at, c)


@INTERPRETED
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_product_is_right_with_the_shim(dtype):
    a, b, c = normal(16, 16, dtype=dtype), normal(16, 16, dtype=dtype, seed=1), torch.empty(16, 16)
    _product[(1,)](a, b, c, N=16, MENDED=True)
    torch.testing.assert_close(c.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-5)


@INTERPRETED
def test_the_shim_is_needed_for_bfloat16():
    a, b, c = normal(16, 16).bfloat16(), normal(16, 16, seed=1).bfloat16(), torch.empty(16, 16)
    _product[(1,)](a, b, c, N=16, MENDED=False)
    exact = a.double() @ b.double()
    wrong = not torch.allclose(c.double(), exact, rtol=0.1, atol=1.0)
    assert wrong, "Triton's interpreter multiplies bfloat16 rightly now: interpreter.dot can go"


@triton.jit
def _round(x_ptr, y_ptr, N: tl.constexpr, MENDED: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    if MENDED:
        tl.store(y_ptr + at, cast(x, y_ptr.dtype.element_ty))
    else:
        tl.store(y_ptr + at, x.to(y_ptr.dtype.element_ty))


@INTERPRETED
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_store_rounds_as_pytorch_does(dtype):
    x = torch.cat(
        (normal(1018), torch.tensor([float("inf"), -float("inf"), 0.0, -0.0, 6e4, 1e-30]))
    )
    y = torch.empty(1024, dtype=dtype)
    _round[(1,)](x, y, N=1024, MENDED=True)
    assert torch.equal(y, x.to(dtype))
    x[0] = float("nan")
    _round[(1,)](x, y, N=1024, MENDED=True)
    assert y[0].isnan()


@INTERPRETED
def test_rounding_needs_the_shim():
    x, y = normal(1024), torch.empty(1024, dtype=torch.bfloat16)
    _round[(1,)](x, y, N=1024, MENDED=False)
    assert not torch.equal(y, x.bfloat16()), "the interpreter rounds now: interpreter.cast can go"


def test_autotune_works_in_either_mode():
    @autotune([triton.Config({"BLOCK": n}) for n in (16, 32, 64)], key=["elements"])
    @triton.jit
    def double(x_ptr, y_ptr, elements, BLOCK: tl.constexpr):
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(y_ptr + at, 2 * tl.load(x_ptr + at, mask=at < elements), mask=at < elements)

    device = "cpu" if triton_mode.INTERPRETED else "cuda"
    x = normal(100).to(device)
    y = torch.empty_like(x)
    double[lambda meta: (triton.cdiv(100, meta["BLOCK"]),)](x, y, 100)
    assert torch.equal(y, 2 * x)
    assert double.best_config.kwargs["BLOCK"] in (16, 32, 64)


@INTERPRETED
def test_autotune_without_the_shim_finds_no_gpu():
    @triton.autotune([triton.Config({"BLOCK": n}) for n in (16, 32)], key=["elements"])
    @triton.jit
    def nothing(x_ptr, elements, BLOCK: tl.constexpr):
        tl.store(x_ptr, 0.0)

    with pytest.raises(RuntimeError, match="active drivers"):
        nothing[(1,)](torch.empty(1), 1)


@INTERPRETED
def test_a_gpu_tensor_is_refused_where_kernels_are_interpreted(monkeypatch):
    class OnGpu(torch.Tensor):
        device = torch.device("cuda", 0)

    with pytest.raises(UserError, match="unset TRITON_INTERPRET"):
        operands.check("softmax", x=torch.ones(2).as_subclass(OnGpu))
    monkeypatch.setattr(triton_mode, "INTERPRETED", False)
    with pytest.raises(UserError, match=r"move it with \.cuda\(\)"):
        operands.check("softmax", x=torch.ones(2))
