"""Decode and training steps over batch size: their work grows as counted, their predictions as the roof says."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st
from made_setting import made_setting

from smml.bench import Setting, llama_batching as batching
from smml.bench.llama_decode import LaunchCost
from smml.bench.packed_linear import PackedLinear, packed
from smml.hardware import PROFILES
from smml.llama import counts
from smml.llama.config import CONFIGS
from smml.llama.model import Llama

TINY = CONFIGS["tiny"]
NO_LAUNCH = LaunchCost(0.0, 0.0)


@pytest.fixture
def setting() -> Setting:
    """Two batches of each kind and short sequences, on a CPU that fetches nothing before it writes."""
    return made_setting(
        write_allocate=0.0, decode_batches=(1, 2), training_batches=(1, 2), training_tokens=4
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 64), (3, 5, 64)])
def test_a_packed_layer_gives_what_the_plain_one_gives(bias, shape):
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 48, bias=bias)
    x = torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(linear)(x), linear(x), rtol=1e-5, atol=1e-5)


def test_a_packed_model_gives_what_the_plain_one_gives():
    plain, model = Llama(TINY).eval(), packed(Llama(TINY).eval())
    assert not any(isinstance(module, torch.nn.Linear) for module in model.modules())
    tokens = torch.arange(12).view(2, 6)
    with torch.inference_mode():
        torch.testing.assert_close(model(tokens), plain(tokens), rtol=1e-4, atol=1e-5)


def test_a_model_on_no_cpu_is_left_as_it_is():
    model = packed(Llama(TINY, device="meta"))
    assert not any(isinstance(module, PackedLinear) for module in model.modules())


def test_a_decode_step_gives_every_sequence_a_token_again_and_again():
    step = batching.decode_step(Llama(TINY).eval(), batch=3, past=8)
    first = step()
    assert len(first) == 3
    assert all(0 <= token < TINY.vocab_size for token in first)
    assert step() == first


def test_on_a_cpu_launches_come_on_top_of_the_roofs_terms(setting):
    free = batching.predict_decode(setting, TINY, 4, NO_LAUNCH)
    dear = batching.predict_decode(setting, TINY, 4, LaunchCost(1.0, 0.5))
    assert dear.seconds == pytest.approx(free.seconds + TINY.layers + 0.5)
    assert dear.bound == free.bound


def test_on_a_gpu_launches_hide_behind_the_work_or_bound_it(setting):
    gpu = replace(setting, profile=replace(setting.profile, device="cuda"))
    free = batching.predict_decode(setting, TINY, 4, NO_LAUNCH)
    assert batching.predict_decode(gpu, TINY, 4, LaunchCost(0.0, 1e-9)).seconds == free.seconds
    assert batching.predict_decode(gpu, TINY, 4, LaunchCost(1.0, 0.0)).bound == "launch"


@given(st.integers(1, 64), st.integers(1, 64))
def test_passes_share_the_weights_and_the_update_is_the_same_for_every_batch(batch, tokens):
    profile = PROFILES["cpu"]
    setting = Setting(None, profile, None, "test")
    one = batching.passes_work(setting, TINY, batch, tokens)
    two = batching.passes_work(setting, TINY, 2 * batch, tokens)
    weights = 3 * 4 * counts.parameters(TINY).total  # read twice, gradients written once
    assert two.flops == 2 * one.flops == 2 * counts.training_flops(TINY, batch, tokens)
    assert two.bytes - weights == pytest.approx(2 * (one.bytes - weights))


def test_the_update_moves_forty_bytes_a_parameter_and_is_added_to_the_passes(setting):
    update = batching.update_work(TINY)
    assert update.bytes == 40 * counts.parameters(TINY).total
    predicted = batching.predict_training(setting, TINY, 2, 4)
    passes = setting.roof().predict(batching.passes_work(setting, TINY, 2, 4))
    assert predicted.seconds == pytest.approx(passes.seconds + update.bytes / 2e10)


def test_the_knee_of_a_perfect_roof_is_where_its_two_lines_cross():
    assert batching.knee({b: max(8.0, 1.0 * b) for b in (1, 2, 64)}) == pytest.approx(8.0)
    assert batching.knee({1: 1.0, 16: 16.0}) == 1.0, "no saving, no knee"


def test_a_run_yields_a_predicted_record_of_every_batch_of_both_kinds(setting, monkeypatch):
    small = replace(TINY, max_sequence_length=batching.PAST + 1)
    monkeypatch.setattr(batching, "decode_config", lambda setting: small)
    monkeypatch.setattr(batching, "training_config", lambda setting: small)
    monkeypatch.setattr(batching, "reading", lambda setting: setting)
    records = list(batching.run(setting))
    assert [r.name for r in records] == [
        "decode/1.12M/past-128/batch-1/float32",
        "decode/1.12M/past-128/batch-2/float32",
        "train/1.12M/tokens-4/batch-1/float32",
        "train/1.12M/tokens-4/batch-2/float32",
    ]
    assert [r.inputs["tokens"] for r in records] == [1, 2, 4, 8]
    assert all(r.predicted and r.share_of_measured for r in records)
    for record in records:
        rate = record.inputs["tokens"] / batching.step_seconds(record)
        assert batching.tokens_per_s(record) == pytest.approx(rate)
    assert records[1].flops == 2 * records[0].flops


def test_what_is_measured_on_a_cpu_exceeds_its_caches_with_a_vocabulary_that_does_not_count(
    setting,
):
    config = batching.decode_config(setting)
    parameters = counts.parameters(config)
    assert parameters.total > 5e7
    assert parameters.embedding < 0.02 * parameters.total
    assert batching.training_config(setting).layers == 2
