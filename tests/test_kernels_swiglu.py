"""SwiGLU: right in every dtype and layout, differentiable, registered, and strict on bad input."""

import pytest
import torch
from kernel_cases import DTYPES, assert_close, beyond_int32, normal
from torch.library import opcheck

from smml.errors import UserError
from smml.kernels import swiglu as module
from smml.kernels.swiglu import swiglu

SHAPES = [(2,), (7, 10), (5, 13, 246), (3, 2 * 2049)]  # of gate and up together


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_gradient_equal_the_exact_ones(shape, dtype):
    x = normal(*shape, dtype=dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    y, wanted = swiglu(x), module.reference(exact)
    assert_close(y.detach(), wanted.detach(), dtype)
    dy = normal(*y.shape, dtype=dtype, seed=1)
    y.backward(dy)
    wanted.backward(dy.double())
    assert_close(x.grad, exact.grad, dtype)


@pytest.mark.parametrize("layout", ["transposed", "every other row", "expanded", "misaligned"])
def test_any_layout_is_right(layout):
    x = {
        "transposed": normal(40, 30).T,
        "every other row": normal(60, 40)[::2],
        "expanded": normal(1, 40).expand(30, 40),
        "misaligned": normal(1 + 30 * 40)[1:].view(30, 40),
    }[layout]
    torch.testing.assert_close(swiglu(x), module.reference(x))
    ours, wanted = (normal(30, 80, seed=1).requires_grad_() for _ in range(2))
    swiglu(ours).backward(x)
    module.reference(wanted).backward(x)
    torch.testing.assert_close(ours.grad, wanted.grad)


def test_an_expanded_gradient_is_right():
    ours, wanted = (normal(3, 50).requires_grad_() for _ in range(2))
    swiglu(ours).sum().backward()  # its gradient is one number with stride 0
    module.reference(wanted).sum().backward()
    torch.testing.assert_close(ours.grad, wanted.grad)


@pytest.mark.parametrize("shape", [(0,), (0, 8), (8, 0), (3, 0, 4)])
def test_empty_tensors_give_empty_ones(shape):
    x = torch.empty(shape).requires_grad_()
    y = swiglu(x)
    assert y.shape == (*shape[:-1], shape[-1] // 2)
    y.sum().backward()
    assert x.grad.shape == shape


def test_offsets_beyond_32_bits_are_right():
    x = beyond_int32(3, 64)
    torch.testing.assert_close(swiglu(x), module.reference(x), rtol=4e-3, atol=1e-3)
    dy = beyond_int32(3, 32)
    dense = module._swiglu_backward(dy.contiguous(), x.contiguous())
    assert torch.equal(module._swiglu_backward(dy, x), dense)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's numpy names each overflow
def test_nan_infinity_and_large_gates_propagate_as_in_pytorch():
    x = normal(4, 16)
    x[0, 3], x[1, 3], x[2, 3], x[3, 3] = float("nan"), float("inf"), float("-inf"), -1000.0
    x[0, 9], x[1, 10], x[2, 0] = float("inf"), float("nan"), 1000.0
    x = x.requires_grad_()
    exact = x.detach().clone().requires_grad_()
    y, wanted = swiglu(x), module.reference(exact)
    torch.testing.assert_close(y, wanted, equal_nan=True)
    y.sum().backward()
    wanted.sum().backward()
    torch.testing.assert_close(x.grad, exact.grad, equal_nan=True)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.ones(3, 7), r"gate_up has shape \[3, 7\]; its last dimension must be even"),
        (torch.tensor(1.0), "its last dimension must be even"),
        (torch.ones(3, 8).long(), "allowed are float32, float16, bfloat16"),
    ],
    ids=["odd", "scalar", "integers"],
)
def test_what_does_not_fit_is_refused(x, said):
    with pytest.raises(UserError, match=said):
        swiglu(x)


def test_shapes_are_known_without_memory():
    assert swiglu(torch.empty(3, 8, device="meta")).shape == (3, 4)


def test_registered_as_pytorchs_own():
    x = normal(5, 34).requires_grad_()
    opcheck(module._swiglu, (x,))
    forms = ("test_schema", "test_faketensor")  # it is not differentiated again
    opcheck(module._swiglu_backward, (normal(5, 17), x.detach()), test_utils=forms)


def test_traced_by_torch_compile():
    ours, wanted = (normal(3, 40).requires_grad_() for _ in range(2))
    compiled = torch.compile(lambda x: swiglu(x * 2).sum(), backend="aot_eager", fullgraph=True)
    compiled(ours).backward()
    swiglu(wanted * 2).sum().backward()
    assert torch.equal(ours.grad, wanted.grad)


def test_counts_hold_every_operand_once():
    assert module.work(10, 64, 2).bytes == 3 * 10 * 64 * 2
    assert module.backward_work(10, 64, 2).bytes == 5 * 10 * 64 * 2
    assert module.backward_work(10, 64, 2).flops > module.work(10, 64, 2).flops
