"""Vector addition and softmax: right in every dtype and layout, differentiable, registered, and strict on bad input."""

import pytest
import torch
from kernel_cases import DTYPES, assert_close, beyond_int32, normal
from torch.library import opcheck

from smml.errors import UserError
from smml.kernels import softmax as module, vector_add as adding
from smml.kernels.softmax import softmax
from smml.kernels.vector_add import vector_add

SHAPES = [(1,), (7,), (5, 123, 123), (3, 1000), (2, 2049)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_addition_equals_pytorchs_bit_for_bit(shape, dtype):
    x, y = normal(*shape, dtype=dtype), normal(*shape, dtype=dtype, seed=1)
    assert torch.equal(vector_add(x, y), x + y)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_softmax_and_its_gradient_equal_the_exact_ones(shape, dtype):
    x = normal(*shape, dtype=dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    weight = normal(*shape, dtype=dtype, seed=1)
    y, wanted = softmax(x), torch.softmax(exact, -1)
    assert_close(y.detach(), wanted.detach(), dtype)
    y.backward(weight)
    wanted.backward(weight.double())
    if shape[-1] > 1:  # the gradient of one column is exactly zero
        assert_close(x.grad, exact.grad, dtype, factor=2)


@pytest.mark.parametrize("layout", ["transposed", "every other row", "expanded", "misaligned"])
def test_any_layout_is_right(layout):
    x = {
        "transposed": normal(40, 30).T,
        "every other row": normal(40, 30)[::2],
        "expanded": normal(1, 30).expand(4, 30),
        "misaligned": normal(1 + 30 * 4)[1:].view(4, 30),
    }[layout]
    torch.testing.assert_close(softmax(x), x.softmax(-1))
    assert torch.equal(vector_add(x, x), x + x)
    torch.testing.assert_close(module._softmax_backward(x, x), _backward(x, x))


def _backward(dy, y):
    return y * (dy - (y * dy).sum(-1, keepdim=True))


def test_an_expanded_gradient_is_right():
    x = normal(3, 50).requires_grad_()
    softmax(x).sum().backward()  # its gradient is one number with stride 0
    assert x.grad.abs().max() < 1e-6


@pytest.mark.parametrize("shape", [(0,), (0, 8), (8, 0), (3, 0, 5)])
def test_empty_tensors_give_empty_ones(shape):
    x = torch.empty(shape)
    assert softmax(x).shape == shape
    assert vector_add(x, x).shape == shape


def test_offsets_beyond_32_bits_are_right():
    x = beyond_int32(3, 64)
    torch.testing.assert_close(softmax(x), x.softmax(-1), rtol=2e-3, atol=1e-4)


def test_nan_and_infinity_propagate_as_in_pytorch():
    x = normal(4, 20)
    x[0, 3], x[1, 3], x[2, 3], x[3] = float("nan"), float("inf"), float("-inf"), float("-inf")
    assert torch.equal(softmax(x).isnan(), x.softmax(-1).isnan())
    assert torch.equal(vector_add(x, -x).isnan(), (x + -x).isnan())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((torch.ones(3), torch.ones(4)), r"y has shape \[4\]; it must be \[3\]"),
        ((torch.ones(3), torch.ones(3).half()), "y is float16 and x is float32"),
        ((torch.ones(3), torch.ones(3, device="meta")), "y is on meta and x on cpu"),
        ((torch.ones(3).long(), torch.ones(3).long()), "allowed are float32, float16, bfloat16"),
    ],
    ids=["shape", "dtype", "device", "integers"],
)
def test_what_does_not_fit_is_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        vector_add(*arguments)


def test_a_row_too_wide_is_refused():
    with pytest.raises(UserError, match="last dimension must have"):
        softmax(torch.empty(1, module.WIDEST + 1))


def test_registered_as_pytorchs_own():
    x, y = normal(5, 33).requires_grad_(), normal(5, 33, seed=1).requires_grad_()
    opcheck(adding._vector_add, (x, y))
    opcheck(module._softmax, (x,))


def test_counts_name_what_fusion_saves():
    fused, unfused = module.work(64, 4096, 4), module.unfused_work(64, 4096, 4)
    assert fused.flops == unfused.flops
    assert fused.bytes == 2 * 64 * 4096 * 4
    assert unfused.bytes / fused.bytes == pytest.approx(4, rel=1e-3)
    assert adding.work(10, 2).bytes == 60
