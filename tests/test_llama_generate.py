"""Generation equals transformers' token for token, with every cache, padded or not; sampling does what it says."""

from dataclasses import replace

import pytest
import torch
import transformers
from llama_variants import GROUPED, VARIANTS, random_model, random_tokens

from smml.errors import UserError
from smml.llama.generate import Sampling, generate, left_padded, stream
from smml.llama.kv_cache import GrowingCache, StaticCache
from smml.llama.weights import hf_views


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request):
    model = random_model(VARIANTS[request.param])
    reference = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**model.config.to_hf())
    ).eval()
    reference.load_state_dict(hf_views(model.config, model.state_dict().items()), strict=False)
    reference.tie_weights()
    return model, reference


def theirs(reference, tokens, count, mask=None, **options):
    mask = torch.ones_like(tokens) if mask is None else mask
    return reference.generate(
        tokens,
        attention_mask=mask,
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=1,
        **options,
    )


@pytest.mark.parametrize("cache", ["static", "growing", None])
def test_greedy_equals_transformers(pair, cache):
    model, reference = pair
    tokens = random_tokens(model.config, 3, 7)
    expected = theirs(reference, tokens, 24, eos_token_id=None)
    assert torch.equal(generate(model, tokens, 24, cache=cache, eos=()), expected)


@pytest.mark.parametrize("cache", ["static", "growing", None])
def test_padded_prompts_equal_transformers_and_each_alone(pair, cache):
    model, reference = pair
    prompts = [random_tokens(model.config, 1, n, seed=n)[0].tolist() for n in (9, 1, 4)]
    tokens, lengths = left_padded(prompts)
    mask = (torch.arange(9) >= 9 - lengths[:, None]).long()
    found = generate(model, tokens, 16, lengths=lengths, cache=cache, eos=())
    assert torch.equal(found, theirs(reference, tokens, 16, mask, eos_token_id=None))
    for row, prompt in zip(found, prompts, strict=True):
        alone = generate(model, torch.tensor([prompt]), 16, eos=())
        assert torch.equal(row[9 - len(prompt) :], alone[0])


def test_ends_as_transformers_does():
    model = random_model(GROUPED)
    reference = transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED.to_hf())).eval()
    reference.load_state_dict(hf_views(GROUPED, model.state_dict().items()))
    tokens = random_tokens(GROUPED, 3, 5)
    free = generate(model, tokens, 30, eos=())
    ends = (int(free[0, 8]), int(free[1, 12]))
    expected = reference.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=30,
        do_sample=False,
        eos_token_id=list(ends),
        pad_token_id=ends[0],
    )
    assert torch.equal(generate(model, tokens, 30, eos=ends), expected)
    one = generate(model, tokens[:1], 30, eos=(ends[0],))
    assert one.shape[1] < 35
    assert torch.equal(one[0], free[0, : one.shape[1]])
    by_config = random_model(replace(GROUPED, eos_token_ids=(ends[0],)))
    assert torch.equal(generate(by_config, tokens[:1], 30), one)


def test_stream_yields_what_generate_returns():
    model = random_model(GROUPED)
    tokens = random_tokens(GROUPED, 2, 5)
    steps = stream(model, tokens, 10, eos=())
    first = next(steps)
    assert first.shape == (2,)
    assert not first.is_inference()
    assert not torch.is_inference_mode_enabled()
    rest = list(steps)
    assert torch.equal(torch.stack([first, *rest], 1), generate(model, tokens, 10, eos=())[:, 5:])
    model(
        generate(model, tokens, 3), tokens.new_zeros(2, 8)
    ).backward()  # what was generated can be trained on


def frequencies(sampling: Sampling, count: int = 400) -> torch.Tensor:
    """How often each token follows the same prompt, over `count` rows."""
    model = random_model(GROUPED)
    tokens = random_tokens(GROUPED, 1, 6).expand(count, 6)
    drawn = generate(model, tokens, 1, sampling=sampling, eos=())[:, -1]
    return torch.bincount(drawn, minlength=GROUPED.vocab_size) / count


@pytest.fixture(scope="module")
def probabilities() -> torch.Tensor:
    with torch.no_grad():
        return random_model(GROUPED)(random_tokens(GROUPED, 1, 6))[0, -1].softmax(-1)


def test_sampling_follows_the_probabilities(probabilities):
    assert torch.allclose(frequencies(Sampling(), 4000), probabilities, atol=0.03)
    hot = (probabilities.log() / 3).softmax(-1)
    assert torch.allclose(frequencies(Sampling(temperature=3.0), 4000), hot, atol=0.03)
    assert frequencies(Sampling(temperature=1e-4))[probabilities.argmax()] == 1


def test_top_k_and_top_p_cut_the_tail(probabilities):
    order = probabilities.argsort(descending=True)
    drawn = frequencies(Sampling(temperature=2.0, top_k=3), 2000)
    assert set(drawn.nonzero().flatten().tolist()) == set(order[:3].tolist())
    reached = int((probabilities[order].cumsum(0) < 0.6).sum()) + 1
    drawn = frequencies(Sampling(top_p=0.6), 4000)
    assert set(drawn.nonzero().flatten().tolist()) == set(order[:reached].tolist())
    assert frequencies(Sampling(top_p=1e-9))[order[0]] == 1
    assert frequencies(Sampling(top_k=1))[order[0]] == 1


def test_seeds_and_caches_draw_the_same():
    model = random_model(GROUPED)
    tokens = random_tokens(GROUPED, 4, 6)
    found = [
        generate(model, tokens, 12, sampling=Sampling(seed=s), cache=c)
        for s, c in ((1, "static"), (1, "growing"), (1, None), (2, "static"))
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[3])


def test_fills_the_context_and_no_more():
    model = random_model(GROUPED)
    tokens = random_tokens(GROUPED, 1, 60)
    assert generate(model, tokens, 4, eos=()).shape == (1, 64)
    with pytest.raises(
        UserError, match="60 prompt tokens and 5 new ones pass max_sequence_length 64"
    ):
        generate(model, tokens, 5)


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), {}, r"shape \[3\]"),
        (torch.zeros(2, 0, dtype=torch.int64), {}, r"shape \[2, 0\]"),
        (torch.tensor([[5, 131]]), {}, "token 131 and vocab_size is 131"),
        (torch.tensor([[5, -2]]), {}, "token -2"),
        (torch.tensor([[5]]), {"max_new_tokens": 0}, "max_new_tokens is 0"),
        (torch.tensor([[5]]), {"cache": "paged"}, "cache is 'paged'"),
        (torch.tensor([[5]]), {"lengths": torch.tensor([2])}, r"lengths are \[2\]"),
        (torch.tensor([[5]]), {"lengths": torch.tensor([1, 1])}, r"there must be 1 of them"),
    ],
)
def test_bad_prompts_are_refused_at_the_call(tokens, options, message):
    model = random_model(GROUPED)
    with pytest.raises(UserError, match=message):
        stream(model, tokens, **{"max_new_tokens": 3} | options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 0}, "temperature is 0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_bad_sampling(values, message):
    with pytest.raises(UserError, match=message):
        Sampling(**values)


def test_static_cache_copies_in_place_and_growing_anew():
    config = GROUPED
    piece = torch.ones(1, config.kv_heads, 3, config.head_dim)
    static, growing = StaticCache(config, 1, 8), GrowingCache(config)
    address = static.keys[0].data_ptr()
    for cache in (static, growing):
        cache.update(0, piece, piece)
        cache.advance(3)
        keys, values = cache.update(0, 2 * piece, 3 * piece)
        assert keys.shape == (1, config.kv_heads, 6, config.head_dim)
        assert keys[..., 0].tolist() == [[[1, 1, 1, 2, 2, 2]] * config.kv_heads]
        assert values[0, 0, :, 0].tolist() == [1, 1, 1, 3, 3, 3]
    assert static.keys[0].data_ptr() == address
