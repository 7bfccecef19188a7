"""RMSNorm, alone and after a residual: right in every dtype, width and layout, differentiable, registered, strict."""

import pytest
import torch
from kernel_cases import DTYPES, assert_close, beyond_int32, normal
from torch.library import opcheck

from smml.errors import UserError
from smml.kernels import add_rms_norm as fused, rms_norm as module
from smml.kernels.add_rms_norm import add_rms_norm
from smml.kernels.rms_norm import rms_norm

EPS = 1e-5
# One column, short rows (several a program), an odd long one, and one that is worked on in parts.
SHAPES = [(3, 1), (7,), (5, 123, 123), (2, 3, 2049), (2, 16_500)]


def leaves(*tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


def exact(*tensors):
    return [t.detach().double().requires_grad_() for t in tensors]


def assert_equal(tensors, wanted, dtypes):
    for tensor, want, dtype in zip(tensors, wanted, dtypes, strict=True):
        assert_close(tensor.detach(), want.detach(), dtype, factor=2)


# Weights in the dtype of x, and in float32 under x of 16 bits.
CASES = [(shape, dtype, dtype) for shape in SHAPES[:-1] for dtype in DTYPES]
CASES += [(SHAPES[-1], torch.bfloat16, torch.bfloat16)]
CASES += [(SHAPES[2], dtype, torch.float32) for dtype in DTYPES[1:]]


@pytest.mark.parametrize(("shape", "dtype", "kept"), CASES, ids=str)
def test_the_norm_and_its_gradients_equal_the_exact_ones(shape, dtype, kept):
    x, weight = normal(*shape, dtype=dtype), normal(shape[-1], dtype=kept, seed=1)
    dy = normal(*shape, dtype=dtype, seed=2)
    ours, wanted = leaves(x, weight), exact(x, weight)
    y, reference = rms_norm(*ours, EPS), module.reference(*wanted, EPS)
    assert_equal([y], [reference], [dtype])
    y.backward(dy)
    reference.backward(dy.double())
    if shape[-1] > 1:  # the gradient of one column is nearly zero
        assert_equal([t.grad for t in ours], [t.grad for t in wanted], [dtype, kept])


@pytest.mark.parametrize(("shape", "dtype", "kept"), CASES[3:], ids=str)
def test_norm_after_a_residual_and_its_gradients_equal_the_exact_ones(shape, dtype, kept):
    operands = [normal(*shape, dtype=dtype, seed=seed) for seed in (0, 1)]
    weight = normal(shape[-1], dtype=kept, seed=2)
    grads = [normal(*shape, dtype=dtype, seed=seed) for seed in (3, 4)]
    ours, wanted = leaves(*operands, weight), exact(*operands, weight)
    outputs, references = add_rms_norm(*ours, EPS), fused.reference(*wanted, EPS)
    assert_equal(outputs, references, [dtype] * 2)
    assert torch.equal(outputs[1], operands[0] + operands[1])
    torch.autograd.backward(outputs, grads)
    torch.autograd.backward(references, [g.double() for g in grads])
    # All gradients inherit the rounding of the sum to its dtype.
    assert ours[2].grad.dtype == kept
    got = [t.grad.to(dtype) for t in ours]
    assert_equal(got, [t.grad for t in wanted], [dtype] * 3)
    assert torch.equal(ours[0].grad, ours[1].grad)


@pytest.mark.parametrize("used", [0, 1])
def test_one_output_alone_has_the_right_gradients(used):
    operands = [normal(3, 50, seed=seed) for seed in (0, 1)] + [normal(50, seed=2)]
    ours, wanted = leaves(*operands), exact(*operands)
    add_rms_norm(*ours, EPS)[used].sum().backward()  # that gradient is one number with stride 0
    fused.reference(*wanted, EPS)[used].sum().backward()
    for tensor, want in zip(ours, wanted, strict=True):
        want = torch.zeros_like(want) if want.grad is None else want.grad
        torch.testing.assert_close(tensor.grad.double(), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("layout", "columns"),
    [
        ("transposed", 30),
        ("every other row", 30),
        ("every other row", 16_400),
        ("expanded", 30),
        ("misaligned", 30),
    ],
)
def test_any_layout_is_right(layout, columns):
    x = {
        "transposed": lambda: normal(columns, 4).T,
        "every other row": lambda: normal(8, columns)[::2],
        "expanded": lambda: normal(1, columns).expand(4, columns),
        "misaligned": lambda: normal(1 + columns * 4)[1:].view(4, columns),
    }[layout]()
    weight = normal(2 * columns)[::2]
    torch.testing.assert_close(rms_norm(x, weight, EPS), module.reference(x, weight, EPS))
    torch.testing.assert_close(
        add_rms_norm(x, x.flip(0), weight, EPS), fused.reference(x, x.flip(0), weight, EPS)
    )
    ours, wanted = leaves(normal(4, columns), weight), leaves(normal(4, columns), weight)
    rms_norm(*ours, EPS).backward(x)
    module.reference(*wanted, EPS).backward(x)
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(0,), (0, 8), (8, 0), (3, 0, 5)])
def test_empty_tensors_give_empty_ones_and_no_gradient_to_the_weight(shape):
    x, weight = leaves(torch.empty(shape), torch.ones(shape[-1]))
    normed, total = add_rms_norm(x, x, weight, EPS)
    assert normed.shape == total.shape == rms_norm(x, weight, EPS).shape == shape
    (normed.sum() + rms_norm(x, weight, EPS).sum()).backward()
    assert torch.equal(weight.grad, torch.zeros(shape[-1]))


def test_offsets_beyond_32_bits_are_right():
    x, weight = beyond_int32(3, 64), normal(64, dtype=torch.float16)
    torch.testing.assert_close(rms_norm(x, weight, EPS), module.reference(x, weight, EPS))
    dense = x.contiguous()
    got = module._rms_norm_backward(x, x, weight, EPS)
    for a, b in zip(got, module._rms_norm_backward(dense, dense, weight, EPS), strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's numpy names each NaN
@pytest.mark.parametrize("columns", [20, 16_400])
def test_nan_infinity_and_zero_propagate_as_in_pytorch(columns):
    x = normal(5, columns)
    x[0, 3], x[1, 3], x[2, 3], x[3], x[4] = float("nan"), float("inf"), -float("inf"), 0, 1e20
    weight = torch.ones(columns)
    for eps in (EPS, 0.0)[: 1 + (columns < 100)]:
        torch.testing.assert_close(
            rms_norm(x, weight, eps), module.reference(x, weight, eps), equal_nan=True
        )
        ours, wanted = leaves(x, weight), leaves(x, weight)
        rms_norm(*ours, eps).sum().backward()
        module.reference(*wanted, eps).sum().backward()
        for a, b in zip(ours, wanted, strict=True):
            assert torch.equal(a.grad.isnan(), b.grad.isnan())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_eps_of_zero_leaves_rows_that_do_not_exist_out_of_the_sum():
    ours, wanted = leaves(normal(3, 20), torch.ones(20)), leaves(normal(3, 20), torch.ones(20))
    rms_norm(*ours, 0.0).pow(2).sum().backward()
    module.reference(*wanted, 0.0).pow(2).sum().backward()
    torch.testing.assert_close(ours[1].grad, wanted[1].grad)


def test_many_rows_give_the_same_bits_twice():
    x, dy, weight = normal(40, 2100), normal(40, 2100, seed=1), normal(2100, seed=2)
    first, second = (module._rms_norm_backward(dy, x, weight, EPS) for _ in range(2))
    assert all(map(torch.equal, first, second))
    _, wanted = exact(x, weight)
    module.reference(x.double(), wanted, EPS).backward(dy.double())
    assert_close(first[1], wanted.grad, torch.float32)


X, W = torch.ones(2, 4), torch.ones(4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((X, torch.ones(5)), r"weight has shape \[5\]; it must be \[4\]"),
        ((X, X), r"weight has shape \[2, 4\]; it must be \[4\]"),
        ((X, W.half()), "weight must be float32 or float32"),
        ((X.bfloat16(), W.half()), "weight must be bfloat16 or float32"),
        ((X, W.to("meta")), "weight is on meta and x on cpu"),
        ((X.long(), W), "allowed are float32, float16, bfloat16"),
        ((torch.tensor(1.0), W), "its last dimension must have"),
        ((torch.empty(1, 65_537), torch.empty(65_537)), "its last dimension must have"),
    ],
    ids=["length", "matrix", "half", "mixed", "device", "integers", "scalar", "too wide"],
)
def test_what_does_not_fit_is_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        rms_norm(*arguments, EPS)


@pytest.mark.parametrize(
    ("residual", "said"),
    [
        (torch.ones(4), r"residual has shape \[4\]; it must be \[2, 4\]"),
        (X.half(), "residual is float16 and x is float32"),
        (X.to("meta"), "residual is on meta and x on cpu"),
    ],
    ids=["shape", "dtype", "device"],
)
def test_a_residual_that_does_not_fit_is_refused(residual, said):
    with pytest.raises(UserError, match=said):
        add_rms_norm(X, residual, W, EPS)


def test_registered_as_pytorchs_own():
    x, residual, weight = leaves(normal(5, 33), normal(5, 33, seed=1), normal(33, seed=2))
    opcheck(module._rms_norm, (x, weight, EPS))
    opcheck(fused._add_rms_norm, (x, residual, weight, EPS))
    plain = (x.detach(), weight.detach(), EPS)
    forms = ("test_schema", "test_faketensor")  # neither is differentiated again
    grad = residual.detach()
    opcheck(module._rms_norm_backward, (grad, *plain), test_utils=forms)
    opcheck(fused._add_rms_norm_backward, (grad, grad, *plain), test_utils=forms)


def test_traced_by_torch_compile():
    def chain(x, weight):
        normed, total = add_rms_norm(rms_norm(x, weight, EPS), x, weight, EPS)
        return (normed * total).sum()

    ours, wanted = (leaves(normal(3, 40), normal(40, seed=1)) for _ in range(2))
    torch.compile(chain, backend="aot_eager", fullgraph=True)(*ours).backward()
    chain(*wanted).backward()
    for a, b in zip(ours, wanted, strict=True):
        assert torch.equal(a.grad, b.grad)


def test_counts_hold_every_operand_once():
    size, row = 64 * 4096 * 2, 4096 * 2
    assert module.work(64, 4096, 2).bytes == 2 * size + row
    assert module.backward_work(64, 4096, 2).bytes == 3 * size + 2 * row
    assert fused.work(64, 4096, 2).bytes == 4 * size + row
    assert fused.backward_work(64, 4096, 2).bytes == 4 * size + 2 * row
    # Fused, the sum is not read back, and its gradients meet in registers.
    assert fused.work(64, 4096, 2).flops == module.work(64, 4096, 2).flops + 64 * 4096
