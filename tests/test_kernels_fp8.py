"""Rows in fp8 and their product: the numbers that PyTorch makes, errors within the format's, strict on bad input."""

import math
import warnings

import pytest
import torch
from kernel_cases import DTYPES, error, normal
from made_setting import made_setting
from torch.library import opcheck
from torch.utils.flop_counter import FlopCounterMode

from smml.bench import matmul_fp8
from smml.errors import UserError
from smml.kernels import resources
from smml.kernels.matmul import fp8, fp8_rows, warp_specialised
from smml.kernels.matmul.fp8 import linear, matmul, quantize

FP8 = torch.float8_e4m3fn
# Rounding to 4 significant bits: a number's relative error is even between −1/16 and 1/16 at worst and between −1/32
# and 1/32 at best, 1/16/√3 to 1/32/√3 of it. The errors of two independent factors add as squares.
LEAST, MOST = (math.sqrt(2 / 3) / bits for bits in (32, 16))


def pair(m, n, k, seed=0):
    """Random-normal x [m, k] and weight [n, k], quantised: the arguments of `matmul`, and the exact product."""
    x, weight = normal(m, k, seed=seed), normal(n, k, seed=seed + 1)
    (a, a_scale), (b, b_scale) = fp8_rows.reference(x), fp8_rows.reference(weight)
    return (a, b.T, a_scale, b_scale.T), x.double() @ weight.double().T


def same(q, wanted):
    return torch.equal(q.view(torch.uint8), wanted.view(torch.uint8))


def test_every_number_and_every_middle_between_two_is_rounded_as_pytorch_does():
    codes = torch.arange(256, dtype=torch.uint8).view(FP8).float()
    finite = codes[codes.isfinite()].sort().values
    middles = (finite[1:] + finite[:-1]) / 2
    near = torch.cat([middles.nextafter(middles + side) for side in (-1, 1)])
    row = torch.cat([finite, middles, near])  # its largest is 448: the scale is 1
    q, scale = quantize(row)
    assert scale.item() == 1
    assert same(q, row.to(FP8))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((5, 123, 123), torch.bfloat16)]
    + [(shape, dtype) for shape in ((1,), (7,), (3, 1000), (2, 2049)) for dtype in DTYPES],
    ids=str,
)
def test_rows_equal_the_reference(shape, dtype):
    x = normal(*shape, dtype=dtype)
    (q, scale), (wanted, wanted_scale) = quantize(x), fp8_rows.reference(x)
    assert same(q, wanted)
    assert torch.equal(scale, wanted_scale)
    assert scale.shape == (*shape[:-1], 1)
    assert error(q.float() * scale, x) < MOST


def test_rows_of_any_layout_and_of_zeros_are_right():
    for x in (normal(40, 30).T, normal(40, 30)[::2], normal(1, 30).expand(4, 30)):
        assert same(quantize(x)[0], fp8_rows.reference(x)[0])
    assert not quantize(torch.zeros(3, 20))[0].float().any()
    assert not quantize(torch.full((3, 20), 1e-38))[0].float().any(), "448 ÷ 1e-38 would overflow"
    assert quantize(torch.empty(0, 8))[1].shape == (0, 1)


@pytest.mark.parametrize("shape", [(1, 8, 16), (5, 128, 64), (130, 136, 272), (257, 24, 48)])
@pytest.mark.parametrize("fast", [False, True])
def test_the_product_equals_that_of_its_operands_and_is_near_the_exact_one(shape, fast):
    given, exact = pair(*shape)
    out = matmul(*given, fast_accumulation=fast)
    assert out.shape == exact.shape
    assert out.dtype == torch.bfloat16
    a, b, a_scale, b_scale = given
    assert error(out, (a.double() @ b.double()) * a_scale * b_scale) < 2**-8  # rounding to bfloat16
    assert error(out, fp8.reference(*given)) < 2**-8


def test_the_error_of_the_format_is_within_its_bounds():
    given, exact = pair(128, 128, 1024)
    found = error(matmul(*given), exact)
    assert LEAST < found < MOST, "about 3.7 %"


def test_one_scale_for_all_rows_or_columns():
    (a, b, a_scale, _), _ = pair(20, 16, 32)
    one = torch.tensor(0.5)
    out = matmul(a, b, a_scale, one)
    assert error(out, (a.double() @ b.double()) * a_scale * 0.5) < 2**-8
    out = matmul(a, b, one.view(1, 1), one)
    assert error(out, (a.double() @ b.double()) * 0.25) < 2**-8


def test_it_takes_what_pytorchs_own_takes():
    given, _ = pair(32, 16, 48)
    own = torch._scaled_mm(*given[:2], scale_a=given[2], scale_b=given[3], out_dtype=torch.bfloat16)
    assert error(matmul(*given), own) < 2**-7


@pytest.mark.parametrize(
    "layout", ["row-major b", "expanded", "part", "misaligned", "expanded scale"]
)
def test_any_layout_is_right(layout):
    (a, b, a_scale, b_scale), _ = pair(20, 16, 32)
    if layout == "row-major b":
        b = b.contiguous()
    elif layout == "expanded":
        a, a_scale = a[:1].expand(20, 32), a_scale[:1]
    elif layout == "part":
        a, b, a_scale, b_scale = pair(40, 32, 64)[0]
        a, b, a_scale, b_scale = a[::2, 8:40], b[8:40, ::2], a_scale[::2], b_scale[:, ::2]
    elif layout == "misaligned":
        a = torch.cat([a.flatten()[:1], a.flatten()])[1:].view(20, 32)
    else:
        a_scale = a_scale[:1].expand(20, 1)
    out = matmul(a, b, a_scale, b_scale)
    assert error(out, (a.double() @ b.double()) * a_scale * b_scale) < 2**-8


@pytest.mark.parametrize("shape", [(0, 8, 16), (3, 0, 16), (3, 8, 0)])
def test_empty_operands(shape):
    m, n, k = shape
    a, b = torch.zeros(m, k).to(FP8), torch.zeros(n, k).to(FP8).T
    out = matmul(a, b, torch.ones(m, 1), torch.ones(1, n))
    assert torch.equal(out, torch.zeros(m, n).bfloat16())


def test_rows_beyond_32_bits_are_right():
    stride = 2**30 + 16
    base = torch.empty(2 * stride + 32, dtype=torch.uint8).view(
        FP8
    )  # pages not touched take no memory
    a = base.as_strided((3, 32), (stride, 1))
    given, _ = pair(3, 8, 32)
    a.copy_(given[0])
    assert torch.equal(matmul(a, *given[1:]), matmul(*given))


def test_nan_and_infinity_propagate():
    x, weight = normal(5, 32), normal(8, 32)
    x[1, 3], x[2, 4], x[3, 5] = torch.nan, torch.inf, -torch.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of NumPy's: ∞ · 0
        q, scale = quantize(x)
        b, b_scale = quantize(weight)
        out = matmul(q, b.T, scale, b_scale.T)
    wanted = fp8.reference(*fp8_rows.reference(x)[:1], b.T, fp8_rows.reference(x)[1], b_scale.T)
    assert out.isnan().all(1).tolist() == [False, True, True, True, False]
    assert torch.equal(out.isnan(), wanted.isnan())


REFUSED = {
    "dtype": (lambda a, b, s, t: (a.float(), b, s, t), "a is float32; allowed are float8_e4m3fn"),
    "mixed": (lambda a, b, s, t: (a, b.float(), s, t), "b is float32 and a is float8_e4m3fn"),
    "device": (lambda a, b, s, t: (a, b, s.to("meta"), t), "a_scale is on meta and a on cpu"),
    "shape": (
        lambda a, b, s, t: (a, b[:16], s, t),
        r"b has shape \[16, 16\]; it must be \[32, N\]",
    ),
    "vector": (lambda a, b, s, t: (a[0], b, s, t), r"a has shape \[32\]; it must be \[M, K\]"),
    "K": (lambda a, b, s, t: (a[:, :24], b[:24], s, t), "K is 24; it must be a multiple of 16"),
    "N": (lambda a, b, s, t: (a, b[:, :12], s, t[:, :12]), "N is 12; it must be a multiple of 8"),
    "scale": (
        lambda a, b, s, t: (a, b, s.T, t),
        r"a_scale is float32 \[1, 20\]; it must be float32",
    ),
    "scale's dtype": (lambda a, b, s, t: (a, b, s, t.half()), "b_scale is float16"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case):
    change, said = REFUSED[case]
    with pytest.raises(UserError, match=said):
        matmul(*change(*pair(20, 16, 32)[0]))


def test_rows_and_layers_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="last dimension must have"):
        quantize(torch.empty(1, fp8_rows.WIDEST + 1))
    with pytest.raises(UserError, match="allowed are bfloat16"):
        linear(normal(2, 16), normal(8, 16))
    with pytest.raises(UserError, match="K must be a multiple of 16 and N of 8"):
        linear(normal(2, 24).bfloat16(), normal(8, 24).bfloat16())


def test_a_layer_multiplies_in_fp8_and_its_gradients_in_bfloat16():
    x = normal(2, 9, 32).bfloat16().requires_grad_()
    weight = normal(24, 32, seed=1).bfloat16().requires_grad_()
    y = linear(x, weight)
    exact_x, exact_weight = (t.detach().double().requires_grad_() for t in (x, weight))
    wanted = exact_x @ exact_weight.T
    assert LEAST < error(y.detach(), wanted.detach()) < MOST
    dy = normal(2, 9, 24, seed=2)
    y.backward(dy.bfloat16())
    wanted.backward(dy.bfloat16().double())
    assert error(x.grad, exact_x.grad) < 2**-7
    assert error(weight.grad, exact_weight.grad) < 2**-7
    x.grad = None
    linear(x, weight).sum().backward()  # a gradient whose strides are zero
    assert error(x.grad, weight.detach().double().sum(0).expand(2, 9, 32)) < 2**-7


def test_registered_as_pytorchs_own():
    given, _ = pair(6, 8, 16)
    # The schema's check adds up what it is given, which PyTorch does not in fp8 on a CPU.
    checks = ("test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    opcheck(fp8._matmul, (*given, False), test_utils=checks)
    opcheck(fp8_rows._quantize, (normal(3, 20),))
    layer = (normal(3, 16).bfloat16().requires_grad_(), normal(8, 16).bfloat16().requires_grad_())
    opcheck(fp8._linear, layer)


def test_a_compiled_layer_is_the_same():
    x, weight = normal(4, 32).bfloat16(), normal(8, 32).bfloat16()
    compiled = torch.compile(linear, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, weight), linear(x, weight))


def test_counts():
    found = fp8.work(64, 32, 128)
    with FlopCounterMode(display=False) as counter:
        torch.mm(torch.empty(64, 128), torch.empty(128, 32))
    assert found.flops == counter.get_total_flops()
    given, _ = pair(64, 32, 128)
    assert found.bytes_read == sum(x.nbytes for x in given)
    assert found.bytes_written == matmul(*given).nbytes
    x = normal(10, 30).bfloat16()
    rows = fp8_rows.work(10, 30, 2)
    assert rows.bytes_read == x.nbytes
    assert rows.bytes_written == sum(t.nbytes for t in quantize(x))


def test_compiled_it_spills_nothing_and_fits():
    found = resources.report(["matmul.fp8"])
    assert {f.target for f in found} == {90, 100}
    for build in found:
        assert build.spill_bytes <= build.spill_bytes_allowed == 0, build.name
        assert build.shared_bytes <= 232_448, build.name
        if "quantize" not in build.name:
            assert build.tma, build.name
            assert build.wgmma == (build.target == 90), build.name
    assert sum(f.warp_specialised for f in found) == 2


def test_the_bench_yields_a_mean_over_shapes_of_ratios_to_pytorchs_own():
    records = {r.name: r for r in matmul_fp8.run(made_setting())}
    means = [r for name, r in records.items() if name.startswith("matmul-fp8/mean")]
    assert {r.inputs["over"][0].split("/")[2] for r in means} == {"float32", "fast"}
    assert all(r.unit == "×" for r in means)
    shapes = matmul_fp8.shapes("cpu")
    for mean in means:
        assert len(mean.inputs["over"]) == len(shapes)
        assert set(mean.inputs["over"]) <= set(records)
    m, n, k = shapes[0]
    rates = [r for r in records.values() if r.unit == "FLOP/s" and f"{m}x{n}x{k}" in r.name]
    assert {r.flops for r in rates} == {2 * m * n * k}
    on_a_gpu = matmul_fp8.shapes("cuda")
    assert len(on_a_gpu) == 8
    assert all(n % 8 == k % 16 == 0 for _, n, k in on_a_gpu)


@pytest.mark.gpu
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("shape", [(1, 8, 16), (1000, 1048, 1040), (4096, 2048, 8192)])
def test_on_a_gpu_the_product_equals_that_of_its_operands(shape, fast):
    m, n, k = shape
    x, weight = (normal(rows, k, seed=rows).cuda() for rows in (m, n))
    (a, a_scale), (b, b_scale) = quantize(x), quantize(weight)
    wanted, wanted_scale = fp8_rows.reference(x)
    # Division on a GPU may be off by its last bit, which moves a number that lies in the middle.
    assert torch.allclose(a_scale, wanted_scale, rtol=1e-6)
    assert (a.float() - wanted.float()).norm() / wanted.float().norm() < 1e-3
    exact = (a.double() @ b.T.double()) * a_scale * b_scale.T
    for _ in range(3):  # a race shows as an error that changes
        out = matmul(a, b.T, a_scale, b_scale.T, fast_accumulation=fast)
        assert (out.double() - exact).norm() / exact.norm() < (2e-2 if fast else 2**-8)
    assert warp_specialised.available() == (torch.cuda.get_device_capability()[0] == 9)
