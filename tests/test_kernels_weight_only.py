"""8- and 4-bit linear layers: exact for what was quantised, as near to the weights as stated, strict on bad input."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from kernel_cases import DTYPES, assert_close, beyond_int32, error, normal
from torch.library import opcheck

from smml.errors import UserError
from smml.kernels import int4, int8
from smml.kernels.int4 import linear_int4, quantize_int4
from smml.kernels.int8 import linear_int8, quantize_int8
from smml.kernels.quantized_linear import Int4Linear, Int8Linear, quantize_model
from smml.llama.config import CONFIGS
from smml.llama.model import Llama

BITS = {8: (int8, linear_int8, quantize_int8), 4: (int4, linear_int4, quantize_int4)}


def layer(bits, outputs, columns, **options):
    module, linear, quantize = BITS[bits]
    return module, linear, quantize(normal(outputs, columns, seed=9), **options)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("rows", "outputs", "columns"), [((1,), 70, 200), ((5, 3), 33, 123), ((70,), 20, 64)], ids=str
)
def test_the_product_is_that_of_the_integers(bits, dtype, rows, outputs, columns):
    module, linear, weight = layer(bits, outputs, columns)
    x = normal(*rows, columns, dtype=dtype)
    wanted = x.double() @ module.dequantize(weight, torch.float64).T
    assert_close(linear(x, weight), wanted, dtype)
    torch.testing.assert_close(module.reference(x.double(), weight), wanted)


@pytest.mark.parametrize("bits", BITS)
def test_parts_of_k_add_up_to_the_same_and_always_to_the_same_bits(bits, monkeypatch):
    module, linear, weight = layer(bits, 20, 500)
    x = normal(3, 500, dtype=torch.float16)
    monkeypatch.setattr(int8, "LEAST_PART", 128)
    splits, part = int8.parts(3, 20, 500, 128, x.device)
    assert splits > 1
    assert part % 128 == 0
    assert (splits - 1) * part < 500 <= splits * part
    out = linear(x, weight)
    assert_close(out, module.reference(x.double(), weight), torch.float16)
    assert torch.equal(out, linear(x, weight))


@pytest.mark.parametrize("group", int4.GROUPS)
def test_groups_of_any_allowed_size(group):
    weight = quantize_int4(normal(17, 300, seed=9), group)
    x = normal(2, 300)
    assert_close(linear_int4(x, weight), int4.reference(x.double(), weight), torch.float32)


@pytest.mark.parametrize("columns", [128, 300])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_weight_lies_within_half_a_step(columns, dtype):
    weight = normal(40, columns, dtype=dtype)
    eight, four = quantize_int8(weight), quantize_int4(weight)
    off = (int8.dequantize(eight).double() - weight.double()).abs()
    assert (off <= eight.scale[:, None] * 0.5001).all()
    steps = four.scale.repeat_interleave(128, 0).T[:, :columns]
    off = (int4.dequantize(four).double() - weight.double()).abs()
    assert (off <= steps * 0.5001).all()


def test_quantisation_errors_of_normal_data_are_those_of_a_uniform_step():
    """A step s adds s/√12; s is the largest of a row ÷ 127, or of a group ÷ 7: about 4 and 2.6 deviations."""
    weight = normal(64, 4096)
    eight, four = quantize_int8(weight), quantize_int4(weight)
    steps = {8: eight.scale.square().mean(), 4: four.scale.square().mean()}
    for bits, found in (
        (8, error(int8.dequantize(eight), weight)),
        (4, error(int4.dequantize(four), weight)),
    ):
        assert found == pytest.approx(float((steps[bits] / 12).sqrt()), rel=0.02)
    assert 0.005 < error(int8.dequantize(eight), weight) < 0.01
    assert 0.09 < error(int4.dequantize(four), weight) < 0.13


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.integers(0, 300), st.sampled_from(int4.GROUPS), st.integers(0, 2**31))
def test_packing_keeps_every_integer(outputs, columns, group, seed):
    generator = torch.Generator().manual_seed(seed)
    eight = torch.randint(-127, 128, (outputs, columns), generator=generator).float()
    four = torch.randint(-7, 8, (outputs, columns), generator=generator).float()
    if columns:
        eight[:, 0] = 127
        four[:, ::group] = 7  # the scales are 1
    assert torch.equal(int8.dequantize(quantize_int8(eight)), eight)
    assert torch.equal(int4.dequantize(quantize_int4(four, group)), four)


def test_every_byte_and_every_nibble_is_unpacked():
    words = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    eight = int8.Int8Weight(words.view(1, 1024, 64), torch.ones(1024), 128)
    four = int4.Int4Weight(words.view(1, 2048, 32), torch.ones(1, 2048), 128)
    x = torch.zeros(4, 128)
    x[range(4), [0, 63, 64, 127]] = 1.0
    assert torch.equal(linear_int8(x, eight), int8.dequantize(eight).T[[0, 63, 64, 127]])
    x = torch.zeros(4, 128)
    x[range(4), [5, 37, 69, 101]] = 1.0
    assert torch.equal(linear_int4(x, four), int4.dequantize(four).T[[5, 37, 69, 101]])
    assert int8.dequantize(eight).min() == -128
    assert set(int4.dequantize(four).unique().tolist()) == set(range(-8, 8))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("layout", ["transposed", "every other row", "expanded", "misaligned"])
def test_any_layout_is_right(bits, layout):
    module, linear, weight = layer(bits, 10, 130)
    x = {
        "transposed": normal(130, 4).T,
        "every other row": normal(8, 130)[::2],
        "expanded": normal(1, 130).expand(4, 130),
        "misaligned": normal(1 + 4 * 130)[1:].view(4, 130),
    }[layout]
    wanted = module.reference(x.double(), weight)
    assert_close(linear(x, weight), wanted, torch.float32)
    moved = weight._replace(words=weight.words.mT.contiguous().mT)
    assert_close(linear(x, moved), wanted, torch.float32)


@pytest.mark.parametrize("bits", BITS)
def test_offsets_beyond_32_bits_are_right(bits):
    module, linear, weight = layer(bits, 8, 64)
    x = beyond_int32(3, 64)
    assert_close(linear(x, weight), module.reference(x.double(), weight), torch.float16)


@pytest.mark.parametrize("bits", BITS)
def test_nan_and_infinity_propagate_as_in_the_reference(bits):
    module, linear, weight = layer(bits, 10, 100)
    x = normal(4, 100)
    x[0, 3], x[1, 70] = float("nan"), float("inf")
    torch.testing.assert_close(linear(x, weight), module.reference(x, weight), equal_nan=True)
    assert torch.isfinite(linear(x, weight)[2:]).all()


@pytest.mark.parametrize("bits", BITS)
def test_empty_and_zero_matrices(bits):
    module, linear, quantize = BITS[bits]
    assert linear(torch.ones(0, 64), quantize(normal(3, 64))).shape == (0, 3)
    assert linear(torch.ones(2, 64), quantize(torch.ones(0, 64))).shape == (2, 0)
    assert torch.equal(linear(torch.ones(2, 0), quantize(torch.ones(3, 0))), torch.zeros(2, 3))
    zero = quantize(torch.zeros(3, 64))
    assert torch.equal(module.dequantize(zero), torch.zeros(3, 64))
    tiny = quantize(torch.full((3, 64), 1e-45))  # a scale that underflows is none
    assert torch.isfinite(module.dequantize(tiny)).all()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, w: (x[:, :5], w), r"x has shape \[2, 5\]; it must be \[..., 64\]"),
        (lambda x, w: (x[0, 0], w), r"x has shape \[\]"),
        (lambda x, w: (x.long(), w), "allowed are float32, float16, bfloat16"),
        (lambda x, w: (x.to("meta"), w), "words is on cpu and x on meta"),
        (lambda x, w: (x, w._replace(words=w.words.int())), "int32"),
        (lambda x, w: (x, w._replace(words=w.words[..., :7])), "words"),
        (lambda x, w: (x, w._replace(scale=w.scale.half())), "float16"),
        (lambda x, w: (x, w._replace(scale=w.scale[..., :2])), "scale has shape"),
    ],
    ids=["columns", "scalar", "integers", "device", "words", "cut", "scale", "scales"],
)
def test_what_does_not_fit_is_refused(bits, change, said):
    _, linear, weight = layer(bits, 4, 64)
    with pytest.raises(UserError, match=said):
        linear(*change(torch.ones(2, 64), weight))


@pytest.mark.parametrize("quantize", [quantize_int8, quantize_int4])
@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (torch.tensor([[1.0, float("nan")]]), "holds NaN or Inf"),
        (torch.ones(3), r"must be \[N, K\]"),
        (torch.ones(3, 3).long(), "weight is int64"),
    ],
    ids=["nan", "vector", "integers"],
)
def test_weights_that_have_no_scale_are_refused(quantize, weight, said):
    with pytest.raises(UserError, match=said):
        quantize(weight)


def test_other_groups_and_bits_are_refused():
    with pytest.raises(UserError, match="groups of 100; allowed are 64, 128, 256"):
        quantize_int4(torch.ones(2, 200), 100)
    with pytest.raises(UserError, match="3 bits; allowed are 8 or 4"):
        quantize_model(Llama(CONFIGS["tiny"], device="meta"), 3)


@pytest.mark.parametrize("bits", BITS)
def test_registered_as_pytorchs_own_and_not_differentiable(bits):
    _, linear, weight = layer(bits, 6, 64)
    operation = {8: int8._linear_int8, 4: int4._linear_int4}[bits]
    opcheck(operation, (normal(2, 64), weight.words, weight.scale))
    with pytest.raises((RuntimeError, NotImplementedError), match=r"autograd|grad"):
        linear(normal(2, 64).requires_grad_(), weight).sum().backward()


@pytest.mark.parametrize("bits", BITS)
def test_a_model_keeps_all_but_its_layers_matrices(bits):
    kind = {8: Int8Linear, 4: Int4Linear}[bits]
    module, _, quantize = BITS[bits]
    plain, model = Llama(CONFIGS["tiny"]), quantize_model(Llama(CONFIGS["tiny"]), bits)
    linears = [name for name, m in plain.named_modules() if isinstance(m, torch.nn.Linear)]
    assert linears
    assert all(isinstance(model.get_submodule(name), kind) for name in linears)
    assert torch.equal(model.embedding.weight, plain.embedding.weight)
    assert not any(p.requires_grad for p in model.parameters())
    one, other = plain.get_submodule(linears[0]), model.get_submodule(linears[0])
    one.bias = torch.nn.Parameter(normal(one.out_features, seed=3))
    x = normal(2, one.in_features)
    written_out = module.dequantize(quantize(one.weight.detach()), torch.float64)
    wanted = x.double() @ written_out.T + one.bias.double()
    assert_close(kind(one)(x), wanted.detach(), torch.float32)
    assert torch.equal(other.words, kind(one).words)


def test_counts_are_the_bytes_that_are_stored():
    for bits, width in ((8, 1), (4, 0.5)):
        module, _, quantize = BITS[bits]
        weight = quantize(torch.ones(256, 512))
        stored = weight.words.nbytes + weight.scale.nbytes
        work = module.work(16, 256, 512, 2)
        assert weight.words.nbytes == 256 * 512 * width
        assert weight.words.is_contiguous()  # a layer that copied its weights would read them twice
        assert weight.scale.is_contiguous()
        assert work.bytes_read == stored + 16 * 512 * 2
        assert work.bytes_written == 16 * 256 * 2
        assert work.flops == 2 * 16 * 256 * 512
