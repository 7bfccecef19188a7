"""Fused linear cross-entropy: loss, gradients and memory, in chunks of any size, with and without gradients."""

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import DTYPES, assert_close, error, normal
from torch.library import opcheck

from smml.errors import UserError
from smml.kernels import linear_cross_entropy as module
from smml.kernels.linear_cross_entropy import (
    in_torch,
    linear_cross_entropy,
    memory_bytes,
    rows_per_chunk,
    unfused_memory_bytes,
    work,
)
from smml.llama.ops import IGNORE_INDEX
from smml.measure.peak_memory import peak_memory_bytes


def case(rows=13, width=24, columns=301, dtype=torch.float32, ignored=(0, 5)):
    hidden, weight = normal(rows, width, dtype=dtype), normal(columns, width, dtype=dtype, seed=1)
    labels = torch.randint(columns, (rows,), generator=torch.Generator().manual_seed(2))
    labels[list(ignored)] = IGNORE_INDEX
    return hidden.requires_grad_(), (weight / width**0.5).requires_grad_(), labels


def exact(hidden, weight, labels, factor=1.0):
    """Loss and gradients in float64."""
    hidden, weight = (x.detach().double().requires_grad_() for x in (hidden, weight))
    loss = F.cross_entropy(hidden @ weight.T, labels)
    (factor * loss).backward()
    return loss.detach(), hidden.grad, weight.grad


@pytest.mark.parametrize("factor", [1.0, 0.25])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("chunk", [None, 13, 5, 1])
def test_loss_and_gradients_equal_the_exact_ones(chunk, dtype, factor):
    hidden, weight, labels = case(dtype=dtype)
    loss, of_hidden, of_weight = exact(hidden, weight, labels, factor)
    mine = linear_cross_entropy(hidden, weight, labels, chunk=chunk)
    assert mine.dtype == torch.float32
    assert error(mine.detach(), loss) < {torch.float32: 1e-6}.get(dtype, 2e-3)
    (factor * mine).backward()
    # A sum over many chunks is rounded to the weight's dtype after each.
    many = 4 if chunk == 1 else 1
    assert_close(hidden.grad, of_hidden, dtype, factor=2)
    assert_close(weight.grad, of_weight, dtype, factor=2 * many)


def test_a_vocabulary_of_128256():
    hidden, weight, labels = case(3, 8, 128_256, ignored=[1])
    loss, of_hidden, of_weight = exact(hidden, weight, labels)
    mine = linear_cross_entropy(hidden, weight, labels, chunk=2)
    mine.backward()
    assert error(mine.detach(), loss) < 1e-6
    assert_close(hidden.grad, of_hidden, torch.float32)
    assert_close(weight.grad, of_weight, torch.float32)


def test_the_same_chunks_in_pytorch():
    hidden, weight, labels = case()
    for mine, wanted in zip(
        in_torch(hidden, weight, labels, 5), exact(hidden, weight, labels), strict=True
    ):
        assert error(mine, wanted) < 1e-5
    torch.testing.assert_close(
        module.reference(hidden, weight, labels).double().detach(), exact(hidden, weight, labels)[0]
    )


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)], ids=str)
def test_a_gradient_that_nobody_wants_is_not_computed(wanted, monkeypatch):
    hidden, weight, labels = case()
    _, *gradients = exact(hidden, weight, labels)
    for x, want in zip((hidden, weight), wanted, strict=True):
        x.requires_grad_(want)
    seen = []
    found = module._linear_cross_entropy
    monkeypatch.setattr(
        module, "_linear_cross_entropy", lambda *a: seen.append(found(*a)) or seen[-1]
    )
    loss = linear_cross_entropy(hidden, weight, labels, chunk=5)
    assert [g.numel() > 0 for g in seen[0][1:]] == list(wanted)
    if any(wanted):
        loss.backward()
    for x, want, gradient in zip((hidden, weight), wanted, gradients, strict=True):
        assert (x.grad is None) != want
        if want:
            assert_close(x.grad, gradient, torch.float32)


def test_without_gradients_the_loss_is_the_same_and_nothing_is_kept():
    hidden, weight, labels = case()
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight, labels, chunk=5)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, linear_cross_entropy(hidden, weight, labels).detach())


def test_a_tied_weight_gets_both_gradients():
    table = normal(50, 8).requires_grad_()
    labels = torch.arange(10)
    linear_cross_entropy(table[labels], table, labels, chunk=4).backward()
    twin = table.detach().double().requires_grad_()
    F.cross_entropy(twin[labels] @ twin.T, labels).backward()
    assert_close(table.grad, twin.grad, torch.float32)


def test_gradients_accumulate_over_micro_batches():
    hidden, weight, labels = case(12, ignored=[])
    _, of_hidden, of_weight = exact(hidden, weight, labels)
    for part in (slice(0, 6), slice(6, 12)):
        (linear_cross_entropy(hidden[part], weight, labels[part], chunk=4) / 2).backward()
    assert_close(hidden.grad, of_hidden, torch.float32)
    assert_close(weight.grad, of_weight, torch.float32)


def test_backward_runs_once():
    hidden, weight, labels = case()
    loss = linear_cross_entropy(hidden, weight, labels)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_under_autocast_both_are_cast_as_a_linear_layers_are():
    hidden, weight, labels = case()
    loss, of_hidden, of_weight = exact(hidden, weight, labels)
    with torch.autocast("cpu", torch.bfloat16):
        mine = linear_cross_entropy(hidden.bfloat16(), weight, labels)
    mine.backward()
    assert error(mine.detach(), loss) < 2e-3
    assert weight.grad.dtype == hidden.grad.dtype == torch.float32
    assert error(weight.grad, of_weight) < 2e-2
    assert error(hidden.grad, of_hidden) < 2e-2


@pytest.mark.parametrize("layout", ["transposed", "every other", "expanded", "misaligned"])
def test_any_layout_is_right(layout):
    _, weight, labels = case(9, 40, 50)
    hidden = {
        "transposed": normal(40, 9).T,
        "every other": normal(18, 80)[::2, ::2],
        "expanded": normal(1, 40).expand(9, 40),
        "misaligned": normal(1 + 9 * 40)[1:].view(9, 40),
    }[layout]
    hidden = hidden.detach().requires_grad_()
    weight = weight.detach().T.contiguous().T.requires_grad_()
    labels = labels.where(labels >= 0, 1)
    loss, of_hidden, of_weight = exact(hidden, weight, labels)
    mine = linear_cross_entropy(hidden, weight, labels, chunk=4)
    mine.backward()
    assert error(mine.detach(), loss) < 1e-6
    assert_close(hidden.grad, of_hidden, torch.float32)
    assert_close(weight.grad, of_weight, torch.float32)


def test_nothing_to_learn_from_is_nan_and_moves_nothing():
    hidden, weight, labels = case(ignored=range(13))
    loss = linear_cross_entropy(hidden, weight, labels, chunk=5)
    loss.backward()
    assert loss.isnan()
    assert (hidden.grad == 0).all()
    assert (weight.grad == 0).all()
    empty = linear_cross_entropy(hidden[:0], (twin := weight.detach().requires_grad_()), labels[:0])
    empty.backward()
    assert empty.isnan()
    assert (twin.grad == 0).all()


def test_nan_propagates_as_in_pytorch():
    hidden, weight, labels = case()
    with torch.no_grad():
        hidden[7, 3] = float("nan")
    loss = linear_cross_entropy(hidden, weight, labels, chunk=5)
    loss.backward()
    assert loss.isnan()
    assert hidden.grad.isnan().any(1).nonzero().flatten().tolist() == [7]
    assert weight.grad.isnan().all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h, w, t: (h[None], w, t), r"hidden has shape \[1, 13, 24\]; it must be \[N, D\]"),
        (lambda h, w, t: (h, w[:, :7], t), r"weight has shape \[301, 7\]; it must be \[V, 24\]"),
        (lambda h, w, t: (h, w, t[:3]), r"targets has shape \[3\]; it must be \[13\]"),
        (lambda h, w, t: (h, w.bfloat16(), t), "weight is bfloat16 and hidden is float32"),
        (lambda h, w, t: (h, w.to("meta"), t), "weight is on meta and hidden on cpu"),
        (lambda h, w, t: (h, w, t.to("meta")), "targets is on meta and hidden on cpu"),
        (lambda h, w, t: (h, w, t.int()), "targets is int32; it must be int64"),
        (lambda h, w, t: (h, w[:0], t), "there are no classes"),
        (lambda h, w, t: (h, w, t.clamp_min(0) + 301), "is not in 0…300"),
    ],
    ids=["rank", "width", "rows", "dtypes", "device", "labels", "int32", "no classes", "range"],
)
def test_what_does_not_fit_is_refused(change, said):
    with pytest.raises(UserError, match=said):
        linear_cross_entropy(*change(*case()))
    with pytest.raises(UserError, match="chunk=0"):
        linear_cross_entropy(*case(), chunk=0)


def test_registered_as_pytorchs_own_and_traced_through():
    hidden, weight, labels = case()
    plain = (hidden.detach(), weight.detach(), labels)
    opcheck(module._linear_cross_entropy, (*plain, 5, True, True))
    opcheck(module._linear_cross_entropy, (*plain, 5, False, False))
    compiled = torch.compile(
        lambda h, w: 3 * linear_cross_entropy(2 * h, w, labels, chunk=5),
        backend="aot_eager",
        fullgraph=True,
    )
    compiled(hidden, weight).backward()
    twins = [x.detach().clone().requires_grad_() for x in (hidden, weight)]
    (3 * F.cross_entropy(2 * twins[0] @ twins[1].T, labels)).backward()
    torch.testing.assert_close(hidden.grad, twins[0].grad)
    torch.testing.assert_close(weight.grad, twins[1].grad)


def step(function, hidden, weight, labels):
    hidden.grad = weight.grad = (
        None  # here: what a run releases of an earlier one would count for it
    )
    return lambda: function(hidden, weight, labels).backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_memory_is_what_the_formula_says_and_a_quarter_of_the_unfused(dtype):
    # Llama 3.2 1B's proportions, 1/128 of each: N 8,192, D 2,048, V 128,256, chunks of 2,048.
    rows, width, columns, chunk = 64, 16, 1002, 16
    parts = case(rows, width, columns, dtype)
    fused = peak_memory_bytes(step(lambda *p: linear_cross_entropy(*p, chunk=chunk), *parts))
    unfused = peak_memory_bytes(step(module.reference, *parts))
    assert fused == pytest.approx(
        memory_bytes(rows, width, columns, dtype.itemsize, chunk), rel=0.01
    )
    assert unfused == pytest.approx(unfused_memory_bytes(rows, columns), rel=0.01)
    assert fused <= unfused / 4
    with torch.no_grad():
        loss_only = peak_memory_bytes(lambda: linear_cross_entropy(*parts, chunk=chunk))
    assert loss_only == pytest.approx(chunk * columns * dtype.itemsize, rel=0.03)


def test_at_llama_1bs_sizes_a_quarter_of_the_memory_is_enough():
    rows, width, columns = 8192, 2048, 128_256
    chunk = rows_per_chunk(rows, width, columns)
    assert chunk == 2048
    fused = memory_bytes(rows, width, columns, 2, chunk)
    assert fused <= unfused_memory_bytes(rows, columns) / 4
    assert fused < rows * columns * 2, "less than the logits alone"


@pytest.mark.parametrize("rows", [1, 100, 2048, 8192, 100_000])
@pytest.mark.parametrize("columns", [512, 32_000, 128_256])
def test_chunks_are_few_and_large(rows, columns):
    chunk = rows_per_chunk(rows, 2048, columns)
    assert min(rows, 2048) <= chunk <= rows
    assert -(-rows // chunk) <= 8


def test_work_is_three_products():
    rows, width, columns = 1000, 64, 5000
    product = 2 * rows * width * columns
    with_gradients = work(rows, width, columns, 2, 256)
    assert with_gradients.flops == 3 * product + 7 * rows * columns
    assert work(rows, width, columns, 2, 256, backward=False).flops == product + 4 * rows * columns
    # One chunk reads the weight twice and writes its gradient once; each further one reads both and writes one more.
    one, two = (work(rows, width, columns, 2, chunk) for chunk in (1000, 500))
    weight = columns * width * 2
    assert two.bytes_read - one.bytes_read == 3 * weight
    assert two.bytes_written - one.bytes_written == weight
