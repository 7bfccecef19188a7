"""What counts.py predicts, torch finds: parameters, FLOPs, bytes held and saved."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st
from llama_variants import GROUPED, VARIANTS, random_tokens
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from smml.llama import counts
from smml.llama.config import CONFIGS, LlamaConfig
from smml.llama.kv_cache import GrowingCache, StaticCache
from smml.llama.model import Llama


@st.composite
def configs(draw) -> LlamaConfig:
    kv_heads, group, head_dim = (
        draw(st.integers(1, 4)),
        draw(st.integers(1, 4)),
        draw(st.sampled_from([2, 8, 64])),
    )
    heads = kv_heads * group
    return LlamaConfig(
        vocab_size=draw(st.integers(2, 5000)),
        dim=heads * draw(st.integers(1, 40)),
        layers=draw(st.integers(1, 4)),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        feed_forward_dim=draw(st.integers(1, 700)),
        max_sequence_length=256,
        tie_embeddings=draw(st.booleans()),
        attention_bias=draw(st.booleans()),
        mlp_bias=draw(st.booleans()),
    )


def counted_flops(run) -> int:
    """FLOPs that torch counts; only the plain attention shows its products to the counter."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@settings(max_examples=25)
@given(configs(), st.integers(1, 3), st.integers(1, 48), st.integers(1, 100))
def test_parameters_flops_and_cache(config, batch, tokens, past):
    model = Llama(config, device="meta")
    count = counts.parameters(config)
    assert count.total == sum(parameter.numel() for parameter in model.parameters())
    assert count.output == (0 if config.tie_embeddings else model.output.weight.numel())
    assert count.norms == sum(p.numel() for name, p in model.named_parameters() if "norm" in name)
    attention = [p.numel() for name, p in model.named_parameters() if ".attention." in name]
    assert count.attention == sum(attention)
    assert counts.rope_table_bytes(config) == sum(buffer.nbytes for buffer in model.buffers())

    ids = torch.zeros(batch, tokens, dtype=torch.int64, device="meta")
    found = counted_flops(lambda: model(ids, ids).backward())
    assert found == counts.training_flops(config, batch, tokens, attention="full")
    model.activation_checkpointing = True
    found = counted_flops(lambda: model(ids, ids).backward())
    assert found == counts.training_flops(config, batch, tokens, attention="full", recompute=True)

    cache = StaticCache(config, batch, past + 1, "meta", torch.bfloat16)
    assert cache.memory_bytes() == counts.kv_cache_bytes(config, batch, past + 1)
    model = model.bfloat16()
    with torch.no_grad():
        found = counted_flops(
            lambda: model(ids[:, :1].expand(batch, past), cache=cache, last_only=True)
        )
        assert found == counts.prefill_flops(config, batch, past, attention="full")
        found = counted_flops(lambda: model(ids[:, :1], cache=cache))
        assert found == counts.decode_flops(config, batch, past)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # Parameter counts that the hub shows for these models' safetensors.
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-13b", 13_015_864_320),
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.2-3b", 3_212_749_824),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("llama-3.1-405b", 405_853_388_800),
    ],
)
def test_published_sizes(name, published):
    assert counts.parameters(CONFIGS[name]).total == published


def saved_bytes(model: Llama, tokens: torch.Tensor, targets: torch.Tensor) -> int:
    """Bytes of all storages that forward keeps for backward, parameters and buffers aside."""
    own = {
        tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())
    }
    kept, storages = [], {}

    def pack(tensor):
        kept.append(tensor)  # alive, so that no address is used twice
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(tokens, targets)
    return sum(storages.values())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", VARIANTS)
def test_activations(name, dtype, checkpointing):
    config = VARIANTS[name]
    model = Llama(config, dtype=dtype, activation_checkpointing=checkpointing)
    tokens, targets = random_tokens(config, 2, 48), random_tokens(config, 2, 48, seed=1)
    predicted = counts.activation_bytes(config, 2, 48, dtype.itemsize, checkpointing=checkpointing)
    assert predicted.saved == pytest.approx(saved_bytes(model, tokens, targets), rel=0.001)


def test_recomputed_layer_is_what_a_layer_saves():
    whole = counts.activation_bytes(GROUPED, 2, 48)
    fewer = counts.activation_bytes(replace(GROUPED, layers=1), 2, 48)
    checkpointed = counts.activation_bytes(GROUPED, 2, 48, checkpointing=True)
    assert checkpointed.recomputed == whole.saved - fewer.saved
    assert checkpointed.peak == checkpointed.saved + checkpointed.recomputed
    assert counts.activation_bytes(GROUPED, 2, 48, fused_norm=True).saved < whole.saved


def test_training_state_is_what_adamw_allocates():
    model = Llama(GROUPED)
    optimizer = torch.optim.AdamW(model.parameters())
    tokens = random_tokens(GROUPED, 1, 8)
    model(tokens, tokens).backward()
    optimizer.step()
    predicted = counts.training_state_bytes(GROUPED)
    assert predicted.parameters == sum(parameter.nbytes for parameter in model.parameters())
    assert predicted.gradients == sum(parameter.grad.nbytes for parameter in model.parameters())
    moments = [
        state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")
    ]
    assert predicted.optimizer == sum(moment.nbytes for moment in moments)
    mixed = counts.training_state_bytes(GROUPED, itemsize=2, master_itemsize=4)
    assert mixed.total == predicted.total == 16 * counts.parameters(GROUPED).total


def test_growing_cache_holds_just_what_was_seen():
    cache = GrowingCache(GROUPED)
    model = Llama(GROUPED)
    with torch.no_grad():
        for piece in random_tokens(GROUPED, 3, 12).split((9, 1, 2), dim=1):
            model(piece, cache=cache)
            assert cache.memory_bytes() == counts.kv_cache_bytes(
                GROUPED, 3, cache.length, itemsize=4
            )


def test_decode_bytes_of_8b():
    # 8.03e9 parameters less 0.525e9 of embedding, and one row of it, in 2 bytes; 128 KiB of cache a token.
    moved = counts.decode_bytes(CONFIGS["llama-3.1-8b"], 1, 999)
    assert moved.weights == 2 * (8_030_261_248 - 128_256 * 4096 + 4096)
    assert moved.kv_read == 1000 * 128 * 1024
    assert moved.total == moved.weights + moved.kv_read + 128 * 1024
    assert (
        counts.decode_bytes(CONFIGS["llama-3.1-8b"], 1, 999, kv_itemsize=1).kv_read
        == moved.kv_read // 2
    )


@given(configs(), st.integers(1, 200))
def test_rule_and_exact_differ_by_what_the_rule_leaves_out(config, length):
    count = counts.parameters(config)
    exact = counts.flops_per_token(config, "training", length)
    biases = [config.query_dim + 2 * config.kv_dim + config.dim if config.attention_bias else 0]
    biases += [2 * config.feed_forward_dim + config.dim if config.mlp_bias else 0]
    vectors = count.norms + config.layers * sum(biases)
    scores = 6 * config.layers * config.query_dim * (length + 1)
    assert exact == pytest.approx(
        counts.flops_per_token(config, "training", length, rule="6n") - 6 * vectors + scores
    )
    full = counts.flops_per_token(config, "training", length, attention="full")
    assert full - exact == pytest.approx(6 * config.layers * config.query_dim * (length - 1))
    assert counts.flops_per_token(config, "prefill", length, rule="6n") == 2 * count.active
    assert counts.flops_per_token(config, "decode", length) == counts.decode_flops(
        config, 1, length
    )
    assert counts.flops_per_token(config, "prefill", length) <= exact / 3 + 1
