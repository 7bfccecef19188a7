"""Decode attention: right for every page size, group, split and layout; strict on, or NaN for, what does not fit."""

import pytest
import torch
from kernel_cases import DTYPES, assert_close, normal
from torch.library import opcheck

from smml.errors import UserError
from smml.kernels import decode_attention as module
from smml.kernels.decode_attention import decode_attention, decode_attention_contiguous
from smml.kernels.tuning import autotune
from smml.kernels.waves import splits_for
from smml.llama.config import CONFIGS
from smml.llama.kv_cache import StaticCache


def cache(pages, page_size, kv_heads, head_dim, dtype=torch.float32):
    shape = (pages, page_size, kv_heads, head_dim)
    return normal(*shape, dtype=dtype, seed=1), normal(*shape, dtype=dtype, seed=2)


def table_of(batch, each, pages, seed=3):
    """Pages of each sequence [batch, each], all different and in no order."""
    order = torch.randperm(pages, generator=torch.Generator().manual_seed(seed))
    return order[: batch * each].view(batch, each).int()


def exact(q, keys, values, table, lengths):
    gathered = (module.gather(t, table, lengths).double() for t in (keys, values))
    return module.reference(q.double(), *gathered, lengths)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "page_size"),
    [(4, 1, 16, 16), (6, 2, 24, 5), (3, 3, 64, 128), (20, 1, 8, 4)],
)
def test_equals_the_exact_one(heads, kv_heads, head_dim, page_size, dtype):
    each = -(-140 // page_size)
    keys, values = cache(3 * each + 2, page_size, kv_heads, head_dim, dtype)
    q, table = normal(3, heads, head_dim, dtype=dtype), table_of(3, each, 3 * each + 2)
    lengths = torch.tensor([140, 1, 129], dtype=torch.int32)
    out = decode_attention(q, keys, values, table, lengths)
    assert_close(out, exact(q, keys, values, table, lengths), dtype)


@pytest.mark.parametrize("splits", [1, 2, 5, 16])
def test_any_number_of_splits_gives_one_result(splits, monkeypatch):
    monkeypatch.setattr(module, "splits_for", lambda *_: splits)
    q, k, v = normal(2, 2, 16), normal(2, 1, 700, 16, seed=1), normal(2, 1, 700, 16, seed=2)
    lengths = torch.tensor([700, 257], dtype=torch.int32)
    out = decode_attention_contiguous(q, k, v, lengths)
    wanted = module.reference(q.double(), k.double(), v.double(), lengths)
    assert_close(out, wanted, torch.float32)


def test_reads_a_static_cache_where_it_lies():
    config = CONFIGS["tiny"]
    kept = StaticCache(config, batch=2, max_length=64)
    kept.length = 0
    new = [normal(2, config.kv_heads, 40, config.head_dim, seed=s) for s in (1, 2)]
    keys, values = kept.update(0, *new)
    assert not keys.is_contiguous()
    q = normal(2, config.heads, config.head_dim)
    wanted = module.reference(q.double(), *(t.double() for t in new), torch.tensor([40, 40]))
    assert_close(decode_attention_contiguous(q, keys, values), wanted, torch.float32)


@pytest.mark.parametrize("layout", ["transposed", "expanded", "misaligned", "every other slot"])
def test_any_layout_is_right(layout):
    q = normal(2, 4, 16)
    k = {
        "transposed": normal(2, 2, 16, 50).mT,
        "expanded": normal(1, 1, 50, 16).expand(2, 2, 50, 16),
        "misaligned": normal(1 + 2 * 2 * 50 * 16)[1:].view(2, 2, 50, 16),
        "every other slot": normal(2, 2, 100, 16)[:, :, ::2],
    }[layout]
    wanted = module.reference(q.double(), k.double(), k.double(), torch.tensor([50, 50]))
    assert_close(decode_attention_contiguous(q, k, k), wanted, torch.float32)
    assert_close(
        decode_attention_contiguous(normal(2, 16, 4).mT, k, k),
        module.reference(normal(2, 16, 4).mT.double(), k.double(), k.double(), torch.tensor([50])),
        torch.float32,
    )


def test_offsets_beyond_32_bits_are_right():
    stride = 2**31 // 2 + 64  # elements between pages: the last one starts beyond 2³¹
    pages = torch.empty(2 * stride + 16 * 16, dtype=torch.float16)
    keys = pages.as_strided((3, 16, 1, 16), (stride, 16, 16, 1))
    keys.copy_(normal(3, 16, 1, 16, dtype=torch.float16, seed=1))
    q, table = normal(1, 2, 16, dtype=torch.float16), torch.tensor([[2, 0]], dtype=torch.int32)
    lengths = torch.tensor([30], dtype=torch.int32)
    wanted = exact(q, keys, keys, table, lengths)
    assert_close(decode_attention(q, keys, keys, table, lengths), wanted, torch.float16)


def test_an_empty_sequence_gives_zeros_and_an_empty_batch_nothing():
    keys, values = cache(4, 16, 1, 16)
    table, lengths = table_of(2, 2, 4), torch.tensor([0, 7], dtype=torch.int32)
    out = decode_attention(normal(2, 2, 16), keys, values, table, lengths)
    assert torch.equal(out[0], torch.zeros(2, 16))
    assert out[1].abs().min() > 0
    none = decode_attention(normal(0, 2, 16), keys, values, table[:0], lengths[:0])
    assert none.shape == (0, 2, 16)


def test_what_lies_beyond_a_sequence_is_never_read():
    keys, values = cache(4, 16, 1, 16)
    table, lengths = table_of(2, 2, 4), torch.tensor([20, 3], dtype=torch.int32)
    q = normal(2, 2, 16)
    wanted = decode_attention(q, keys, values, table, lengths)
    for b, length in enumerate(lengths.tolist()):
        for position in range(length, 32):
            page, slot = table[b, position // 16], position % 16
            keys[page, slot] = values[page, slot] = float("nan")
    table[1, 1] = -7  # a page of no token
    assert torch.equal(decode_attention(q, keys, values, table, lengths), wanted)


def test_lengths_and_pages_that_do_not_exist_give_nan_to_their_sequence_alone():
    keys, values = cache(4, 128, 1, 16)
    q, table = normal(4, 2, 16), torch.tensor([[0, 1], [0, 1], [2, 9], [3, 2]], dtype=torch.int32)
    lengths = torch.tensor([257, -1, 200, 200], dtype=torch.int32)
    for sized in (keys, keys.view(32, 16, 1, 16)):  # one page a tile, and several
        wide = table if sized is keys else (table[:, :, None] * 8 + torch.arange(8)).flatten(1)
        out = decode_attention(q, sized, values.view_as(sized), wide.int(), lengths)
        assert out[:3].isnan().all()
        assert torch.isfinite(out[3]).all()


def test_nan_and_infinity_propagate_as_in_the_reference():
    q = normal(4, 1, 16).abs() + 0.1
    k, v = normal(4, 1, 150, 16, seed=1), normal(4, 1, 150, 16, seed=2)
    k[0, 0, 140, 3], k[1, 0, 3, 3] = float("nan"), float("inf")
    k[2, 0, :129], v[3, 0, 140] = float("-inf"), float("inf")
    out = decode_attention_contiguous(q, k, v)
    wanted = module.reference(q, k, v, torch.tensor([150] * 4))
    torch.testing.assert_close(out, wanted, equal_nan=True)
    assert out[:2].isnan().any(-1).all()
    assert torch.isfinite(out[2]).all()


Q, PAGES = torch.ones(2, 4, 16), torch.ones(5, 8, 2, 16)
TABLE, LENGTHS = torch.zeros(2, 3, dtype=torch.int32), torch.ones(2, dtype=torch.int32)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"q": torch.ones(2, 16)}, r"q has shape \[2, 16\]; it must be \[B, H, d\]"),
        ({"q": torch.ones(2, 3, 16)}, "3 query heads and 2 key-value heads"),
        ({"q": torch.ones(2, 4, 17)}, r"keys has shape .* must be \[pages, page_size, K, 17\]"),
        ({"q": Q.half()}, "keys is float32 and q is float16"),
        ({"q": Q.long()}, "allowed are float32, float16, bfloat16"),
        ({"keys": PAGES.to("meta")}, "keys is on meta and q on cpu"),
        ({"values": PAGES[:4]}, r"values has shape \[4, 8, 2, 16\]"),
        (
            {"lengths": LENGTHS.long()},
            r"lengths is int64; it must be int32: convert it with .int\(",
        ),
        ({"lengths": LENGTHS[:1]}, r"lengths has shape \[1\]"),
        ({"lengths": LENGTHS.to("meta")}, "lengths is on meta"),
        ({"block_table": TABLE.float()}, "block_table is float32; it must be int32"),
        ({"block_table": TABLE[:1]}, r"block_table has shape \[1, 3\]"),
        ({"block_table": TABLE.to("meta")}, "block_table is on meta"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused(changed, said):
    arguments = {"q": Q, "keys": PAGES, "values": PAGES, "block_table": TABLE, "lengths": LENGTHS}
    with pytest.raises(UserError, match=said):
        decode_attention(**(arguments | changed))


@pytest.mark.parametrize(
    ("q", "keys", "said"),
    [
        (Q, torch.ones(2, 4, 16), r"must be \[B, K, S, d\]"),
        (Q, torch.ones(3, 2, 8, 16), "keys hold 3 sequences and q 2"),
        (torch.ones(2, 4, 300), torch.ones(2, 2, 8, 300), "heads of 300 elements"),
        (torch.ones(2, 130, 16), torch.ones(2, 2, 8, 16), "must be 1…64 times"),
    ],
)
def test_a_contiguous_cache_that_does_not_fit_is_refused(q, keys, said):
    with pytest.raises(UserError, match=said):
        decode_attention_contiguous(q, keys, keys)


def test_registered_as_pytorchs_own_and_not_differentiable():
    keys, values = cache(3, 4, 1, 16)
    lengths, table = LENGTHS[:1] * 6, TABLE[:1, :2]
    opcheck(module._decode_attention, (Q[:1, :2], keys, values, lengths, table))
    wanting = Q[:1].clone().requires_grad_()
    out = decode_attention_contiguous(wanting, keys[:1].transpose(1, 2), values[:1].transpose(1, 2))
    with pytest.raises((RuntimeError, NotImplementedError), match=r"autograd|grad"):
        out.sum().backward()


def test_splits_fill_the_gpu_and_no_more():
    # One sequence of 8 key-value heads on 132 processors of two programs: 33 · 8 fill all of them.
    assert 29 <= splits_for(8, 128, 264) <= 33
    assert splits_for(264, 128, 264) == 1
    assert splits_for(8, 0, 264) == 1  # nothing to split
    assert splits_for(300, 128, 264) > 1  # 1.14 waves would leave half of the GPU idle


def test_counts_are_those_of_the_cache():
    work = module.work([1000, 24], heads=32, kv_heads=8, head_dim=128, itemsize=2)
    assert work.flops == 4 * 1024 * 32 * 128
    assert work.bytes_read == 2 * 1024 * 8 * 128 * 2 + 2 * 32 * 128 * 2
    assert work.bytes_written == 2 * 32 * 128 * 2


def test_short_and_long_caches_are_tuned_apart(monkeypatch):
    tuners = [autotune(module.CONFIGS, key=["head_dim"])(module._split) for _ in range(2)]
    monkeypatch.setattr(module, "_tuned", tuners)
    monkeypatch.setattr(module, "LONG", 64)
    for tokens, tuned in ((10, [1, 0]), (63, [1, 0]), (64, [1, 1])):
        keys, values = (normal(1, 1, tokens, 16, seed=i) for i in (1, 2))
        decode_attention_contiguous(normal(1, 1, 16), keys, values)
        assert [len(tuner.cache) for tuner in tuners] == tuned
