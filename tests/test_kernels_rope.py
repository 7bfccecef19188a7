"""Rotary embedding: right in every dtype, on views, for tables of every shape, with its gradient; strict on bad input."""

import pytest
import torch
from kernel_cases import DTYPES, assert_close, beyond_int32, normal
from torch.library import opcheck

from smml.errors import UserError
from smml.kernels import rope as module
from smml.kernels.rope import rope

# Batch, tokens, heads, width of a head: one pair, odd ones, two programs a token.
SHAPES = [(1, 1, 1, 2), (3, 13, 3, 6), (2, 3, 5, 64), (1, 2, 67, 10)]


def tables(tokens, width, batch=None, dtype=torch.float32, seed=5):
    shape = (tokens,) if batch is None else (batch, tokens)
    cos, sin = (normal(*shape, width // 2, seed=seed + i) for i in (0, 1))
    return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)


@pytest.mark.parametrize("each", [False, True], ids=["one table", "a table each"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rotation_and_its_gradient_equal_the_exact_ones(shape, dtype, each):
    batch, tokens, _, width = shape
    x = normal(*shape, dtype=dtype).requires_grad_()
    cos, sin = tables(tokens, width, batch if each else None, dtype)
    exact = x.detach().double().requires_grad_()
    y, wanted = rope(x, cos, sin), module.reference(exact, cos.double(), sin.double())
    assert_close(y.detach(), wanted.detach(), dtype)
    assert y.is_contiguous()
    dy = normal(*y.shape, dtype=dtype, seed=1)
    y.backward(dy)
    wanted.backward(dy.double())
    assert_close(x.grad, exact.grad, dtype)


def test_halves_of_a_table_may_differ():
    x, cos, sin = normal(2, 3, 4, 8).requires_grad_(), normal(3, 8, seed=1), normal(3, 8, seed=2)
    exact = x.detach().clone().requires_grad_()
    y, wanted = rope(x, cos, sin), module.reference(exact, cos, sin)
    torch.testing.assert_close(y, wanted)
    y.sum().backward()  # its gradient is one number with stride 0
    wanted.sum().backward()
    torch.testing.assert_close(x.grad, exact.grad)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_float32_tables_turn_a_shorter_x(dtype):
    x, (cos, sin) = normal(2, 3, 4, 8, dtype=dtype), tables(3, 8)
    exact = module.reference(x.double(), cos.double(), sin.double())
    assert_close(rope(x, cos, sin), exact, dtype)


def test_queries_and_keys_are_read_where_they_stand(monkeypatch):
    qk, (cos, sin) = normal(2, 5, 8, 16)[:, :, :6], tables(5, 16)
    wanted = module.reference(qk, cos, sin)
    copied = []
    monkeypatch.setattr(torch.Tensor, "contiguous", lambda self: copied.append(self.shape))
    torch.testing.assert_close(rope(qk, cos, sin), wanted)
    assert not copied


@pytest.mark.parametrize("layout", ["heads first", "last strided", "expanded", "misaligned"])
def test_any_layout_is_right(layout):
    x = {
        "heads first": normal(2, 3, 5, 8).transpose(1, 2),
        "last strided": normal(2, 5, 3, 16)[..., ::2],
        "expanded": normal(1, 1, 3, 8).expand(2, 5, 3, 8),
        "misaligned": normal(1 + 2 * 5 * 3 * 8)[1:].view(2, 5, 3, 8),
    }[layout]
    cos, sin = tables(5, 8)
    torch.testing.assert_close(rope(x, cos, sin), module.reference(x, cos, sin))
    spread = [torch.stack((t, t), -1)[..., 0] for t in (cos, sin)]  # last stride 2
    torch.testing.assert_close(rope(x, *spread), module.reference(x, cos, sin))
    one = [t[:1].expand(5, 8) for t in (cos, sin)]
    torch.testing.assert_close(rope(x, *one), module.reference(x, *one))


@pytest.mark.parametrize("shape", [(0, 3, 2, 4), (2, 0, 2, 4), (2, 3, 0, 4), (2, 3, 2, 0)])
def test_empty_tensors_give_empty_ones(shape):
    assert rope(torch.empty(shape), *tables(shape[1], shape[3])).shape == shape


def test_offsets_beyond_32_bits_are_right():
    x = beyond_int32(3, 64).view(3, 1, 2, 32)
    cos, sin = tables(1, 32, dtype=torch.float16)
    torch.testing.assert_close(
        rope(x, cos, sin), module.reference(x, cos, sin), rtol=2e-3, atol=2e-3
    )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's numpy names each NaN
def test_nan_and_infinity_propagate_as_in_pytorch():
    x = normal(1, 4, 2, 8)
    x[0, 0, 0, 3], x[0, 1, 1, 5], x[0, 2] = float("nan"), float("inf"), float("-inf")
    got, wanted = rope(x, *tables(4, 8)), module.reference(x, *tables(4, 8))
    torch.testing.assert_close(got, wanted, equal_nan=True)


X = torch.ones(2, 3, 4, 8)
TABLE = torch.ones(3, 8)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((X[0], TABLE, TABLE), r"x has shape \[3, 4, 8\]; it must be \[B, T, N, d\]"),
        ((X, TABLE[:2], TABLE), r"cos has shape \[2, 8\]; it must be \[3, 8\]"),
        ((X, TABLE, TABLE[None]), r"sin has shape \[1, 3, 8\]; it must be \[2, 3, 8\]"),
        ((X[..., :7], TABLE[:, :7], TABLE[:, :7]), "its last dimension must be even"),
        ((X, TABLE.half(), TABLE.half()), "tables must be float32 or float32"),
        ((X, TABLE, TABLE.half()), "sin is float16 and cos is float32"),
        ((X, TABLE.to("meta"), TABLE.to("meta")), "cos is on meta and x on cpu"),
        ((X.long(), TABLE, TABLE), "allowed are float32, float16, bfloat16"),
        ((X, TABLE.clone().requires_grad_(), TABLE), "cos wants a gradient"),
    ],
    ids=["dims", "cos", "sin", "odd", "half", "mixed", "device", "integers", "gradient"],
)
def test_what_does_not_fit_is_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        rope(*arguments)


def test_registered_as_pytorchs_own():
    x = normal(2, 3, 5, 8)[:, :, :4].requires_grad_()
    opcheck(module._rope, (x, *tables(3, 8), False))
    opcheck(
        module._rope,
        (x.detach(), *tables(3, 8), True),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_traced_by_torch_compile():
    def turned(x, cos, sin):
        return (rope(x[:, :, :3], cos, sin) * 2).sum()

    x, exact = (normal(2, 3, 4, 8).requires_grad_() for _ in range(2))
    torch.compile(turned, backend="aot_eager", fullgraph=True)(x, *tables(3, 8)).backward()
    turned(exact, *tables(3, 8)).backward()
    assert torch.equal(x.grad, exact.grad)


def test_counts_read_the_tables_once_for_all_heads():
    work = module.work(10, 40, 128, 2)
    assert work.bytes_written == 10 * 40 * 128 * 2
    assert work.bytes_read == 10 * (40 + 2) * 128 * 2
    assert work.flops == 3 * 10 * 40 * 128
