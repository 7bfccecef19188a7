"""Cross-entropy and its in-place form: right in every dtype and layout, one gradient or none, strict on bad input."""

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import DTYPES, TOLERANCE, assert_close, beyond_int32, error, normal
from torch.library import opcheck

from smml.errors import UserError
from smml.kernels import cross_entropy as module, cross_entropy_in_place as in_place_module
from smml.kernels.cross_entropy import cross_entropy
from smml.kernels.cross_entropy_in_place import cross_entropy_in_place, loss_and_gradient_in_place
from smml.kernels.rescale import _rescale_op, rescale, work as rescale_work
from smml.llama.ops import IGNORE_INDEX

SHAPES = [(1, 1), (5, 123), (3, 8229), (1, 128_256)]


def targets(rows, columns, ignored=()):
    found = torch.randint(columns, (rows,), generator=torch.Generator().manual_seed(2))
    found[list(ignored)] = IGNORE_INDEX
    return found


def plain(logits, labels):
    return cross_entropy(logits, labels)


def consumed(logits, labels):
    return cross_entropy_in_place(logits * 1, labels)


@pytest.mark.parametrize("function", [plain, consumed])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loss_and_gradient_equal_the_exact_ones(shape, dtype, function):
    labels = targets(*shape, ignored=[1] if shape[0] > 2 else [])
    logits = (3 * normal(*shape, dtype=dtype)).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    loss, wanted = function(logits, labels), F.cross_entropy(exact, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.detach().double(), wanted.detach(), rtol=1e-5, atol=1e-6)
    (3 * loss).backward()
    (3 * wanted).backward()
    if shape[1] > 1:  # of one class it is exactly zero
        assert_close(logits.grad, exact.grad, dtype)
    assert (logits.grad[labels == IGNORE_INDEX] == 0).all()


@pytest.mark.parametrize("layout", ["transposed", "every other row", "expanded", "misaligned"])
def test_any_layout_is_right(layout):
    logits = {
        "transposed": normal(40, 9).T,
        "every other row": normal(18, 40)[::2],
        "expanded": normal(1, 40).expand(9, 40),
        "misaligned": normal(1 + 9 * 40)[1:].view(9, 40),
    }[layout]
    labels = targets(18, 40)[::2] % logits.shape[1]
    mine, theirs = (logits.detach().requires_grad_() for _ in range(2))
    torch.testing.assert_close(cross_entropy(mine, labels), F.cross_entropy(theirs, labels))
    cross_entropy(mine, labels).backward()
    F.cross_entropy(theirs, labels).backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


def test_a_large_logit_neither_overflows_nor_hides_the_rest():
    logits = normal(4, 9000) * 10
    logits[0, 5], logits[1, 8999], logits[2] = 1e4, -1e4, logits[2] + 300
    labels = torch.tensor([7, 8999, 3, 0])
    exact = F.cross_entropy(logits.double(), labels)
    assert float(cross_entropy(logits, labels)) == pytest.approx(float(exact), rel=1e-6)


def test_the_ordinary_form_leaves_its_logits_alone_and_goes_backward_twice():
    logits, labels = normal(6, 50).requires_grad_(), targets(6, 50)
    before = logits.detach().clone()
    loss = cross_entropy(logits, labels)
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (second,) = torch.autograd.grad(2 * loss, logits)
    assert torch.equal(logits, before)
    torch.testing.assert_close(2 * first, second)


def test_in_place_the_gradient_lies_where_the_logits_were():
    leaf, labels = normal(6, 50).requires_grad_(), targets(6, 50)
    logits = leaf * 1
    loss = cross_entropy_in_place(logits, labels)
    exact = torch.softmax(leaf.detach(), -1)
    exact[torch.arange(6), labels] -= 1
    torch.testing.assert_close(logits.detach(), exact / 6)
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    assert gradient.data_ptr() == logits.data_ptr(), "no second matrix"
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_in_place_refuses_what_others_still_need():
    leaf, labels = normal(6, 50).requires_grad_(), targets(6, 50)
    loss = cross_entropy_in_place(leaf.exp(), labels)  # exp keeps its output for its own gradient
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    with pytest.raises(UserError, match="is a leaf that requires a gradient"):
        cross_entropy_in_place(leaf, labels)
    with pytest.raises(UserError, match="or a view of one"):
        cross_entropy_in_place(leaf.view(6, 50), labels)
    with pytest.raises(UserError, match="must be contiguous"):
        cross_entropy_in_place((leaf * 1)[:, ::2], labels % 25)
    with pytest.raises(UserError, match="must be contiguous"):
        cross_entropy_in_place((leaf[:1] * 1).expand(6, 50), labels)


def test_in_place_without_a_gradient_only_reads():
    logits, labels = normal(6, 50), targets(6, 50)
    before = logits.clone()
    cross_entropy_in_place(logits, labels)
    with torch.no_grad():
        cross_entropy_in_place((kept := logits.clone().requires_grad_()), labels)
    assert torch.equal(logits, before)
    assert torch.equal(kept, before)


@pytest.mark.parametrize("function", [plain, consumed])
def test_nothing_to_learn_from_is_nan_as_in_pytorch(function):
    logits = normal(4, 20).requires_grad_()
    loss = function(logits, torch.full((4,), IGNORE_INDEX))
    assert loss.isnan()
    loss.backward()
    assert (logits.grad == 0).all()
    empty = torch.empty(0, 20, requires_grad=True)
    loss = function(empty, torch.empty(0, dtype=torch.int64))
    assert loss.isnan()
    loss.backward()
    assert empty.grad.shape == (0, 20)


@pytest.mark.parametrize("function", [plain, consumed])
def test_nan_and_infinity_propagate_as_in_pytorch(function):
    logits = normal(5, 300)
    logits[0, 3], logits[1, 3], logits[2, 3] = float("nan"), float("inf"), float("-inf")
    logits[3], logits[4, 7] = float("-inf"), float("-inf")
    labels = torch.tensor([5, 5, 5, 5, 7])
    for row in range(5):
        mine, theirs = (logits[row : row + 1].clone().requires_grad_() for _ in range(2))
        loss, wanted = function(mine, labels[row : row + 1]), None
        wanted = F.cross_entropy(theirs, labels[row : row + 1])
        torch.testing.assert_close(loss, wanted, equal_nan=True)
        loss.backward()
        wanted.backward()
        torch.testing.assert_close(mine.grad, theirs.grad, equal_nan=True)


def test_offsets_beyond_32_bits_are_right():
    logits, labels = beyond_int32(3, 64), targets(3, 64)
    torch.testing.assert_close(
        cross_entropy(logits, labels), F.cross_entropy(logits.float(), labels)
    )


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (normal(4), targets(4, 2), r"logits has shape \[4\]; it must be \[N, V\]"),
        (normal(4, 5), targets(3, 5), r"targets has shape \[3\]; it must be \[4\]"),
        (normal(4, 5), targets(4, 5).int(), "targets is int32; it must be int64"),
        (normal(4, 5).long(), targets(4, 5), "allowed are float32, float16, bfloat16"),
        (normal(4, 5), targets(4, 5).to("meta"), "targets is on meta and logits on cpu"),
        (normal(4, 0), targets(4, 5), "there are no classes"),
        (normal(4, 5), torch.tensor([0, 5, 1, 1]), "target 5 is not in 0…4"),
        (normal(4, 5), torch.tensor([0, -1, 1, 1]), "target -1 is not in 0…4"),
    ],
    ids=["shape", "rows", "integers", "dtype", "device", "no classes", "too large", "negative"],
)
def test_what_does_not_fit_is_refused(logits, labels, said):
    with pytest.raises(UserError, match=said):
        cross_entropy(logits, labels)
    if logits.dtype.is_floating_point:
        with pytest.raises(UserError, match=said):
            cross_entropy_in_place(logits.requires_grad_() * 1, labels)


def test_a_target_that_is_no_column_makes_nan_where_python_cannot_look(monkeypatch):
    for where in (module, in_place_module):
        monkeypatch.setattr(where, "refuse_unknown", lambda *_: None)
    logits, labels = normal(3, 40).requires_grad_(), torch.tensor([1, 40, 2])
    for function in (plain, consumed):
        loss = function(logits, labels)
        assert loss.isnan()
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.isnan().any(1).tolist() == [False, True, False]


def test_registered_as_pytorchs_own():
    logits, labels = normal(5, 33), targets(5, 33)
    opcheck(module._cross_entropy, (logits.clone().requires_grad_(), labels))
    lse = logits.logsumexp(1)
    opcheck(module._cross_entropy_backward, (torch.tensor(0.5), logits, labels, lse))
    opcheck(loss_and_gradient_in_place, (logits, labels, torch.tensor(0.5)))
    opcheck(_rescale_op, (normal(5, 33), torch.tensor(0.5)))


@pytest.mark.parametrize("function", [cross_entropy, cross_entropy_in_place])
def test_a_compiled_function_is_traced_through(function):
    x, labels = normal(6, 40).requires_grad_(), targets(6, 40)
    compiled = torch.compile(
        lambda x: 3 * function(2 * x, labels), backend="aot_eager", fullgraph=True
    )
    compiled(x).backward()
    exact = x.detach().clone().requires_grad_()
    (3 * F.cross_entropy(2 * exact, labels)).backward()
    torch.testing.assert_close(x.grad, exact.grad)


def test_the_plain_gradient_in_place_is_the_kernels():
    logits, labels, scale = normal(6, 50), targets(6, 50, ignored=[2]), torch.tensor(0.2)
    mine, theirs = logits.clone(), logits.clone()
    losses = loss_and_gradient_in_place(mine, labels, scale)
    torch.testing.assert_close(losses, in_place_module.reference(theirs, labels, scale))
    torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(
        module.reference(logits, labels), losses.sum() / 5, msg="a mean over those not ignored"
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rescaling(dtype):
    x = normal(5, 4099, dtype=dtype)
    for factor in (1.0, 0.5, -3.0):
        mine = x.clone()
        rescale(mine, torch.tensor(factor))
        assert error(mine, x.double() * factor) <= TOLERANCE[dtype]
    assert torch.equal(x, x.clone())
    mine = x.clone()
    rescale(mine, torch.tensor(float("nan")))
    assert mine.isnan().all()
    rescale(torch.empty(0), torch.tensor(2.0))
    with pytest.raises(UserError, match="must be contiguous"):
        rescale(x.T, torch.tensor(2.0))
    with pytest.raises(UserError, match="factor is float64"):
        rescale(x, torch.tensor(2.0, dtype=torch.float64))


def test_counts_are_three_passes_apart_and_two_together():
    size = 64 * 4096 * 2
    forward, backward = module.work(64, 4096, 2), module.backward_work(64, 4096, 2)
    together = in_place_module.work(64, 4096, 2)
    assert (forward + backward).bytes == pytest.approx(3 * size, rel=1e-2)
    assert together.bytes == pytest.approx(2 * size, rel=1e-2)
    assert (forward + backward).flops == together.flops
    assert rescale_work(10, 2).bytes == 40
