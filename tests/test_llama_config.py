"""Configurations survive config.json of either generation; impossible ones are refused with field and values."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from llama_variants import GROUPED, VARIANTS

from smml.errors import UserError
from smml.llama.config import CONFIGS, LlamaConfig, RopeScaling, named_config


@pytest.mark.parametrize("config", [*CONFIGS.values(), *VARIANTS.values()])
def test_round_trip_through_config_json(config):
    fields = json.loads(json.dumps(config.to_hf()))
    assert LlamaConfig.from_hf(fields) == config
    new = {
        name: value for name, value in fields.items() if name not in ("rope_theta", "rope_scaling")
    }
    old = {name: value for name, value in fields.items() if name != "rope_parameters"}
    assert LlamaConfig.from_hf(new) == LlamaConfig.from_hf(old) == config


def test_fields_that_old_files_leave_out():
    fields = GROUPED.to_hf()
    for name in (
        "head_dim",
        "num_key_value_heads",
        "rope_parameters",
        "rope_theta",
        "tie_word_embeddings",
    ):
        del fields[name]
    assert LlamaConfig.from_hf(fields) == replace(GROUPED, kv_heads=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 3}, "heads is 4 and kv_heads is 3"),
        ({"heads": 6, "kv_heads": 2}, "dim is 64 and heads is 6"),
        ({"head_dim": 15}, "head_dim is 15"),
        ({"layers": 0}, "layers is 0"),
        ({"vocab_size": 1.5}, "vocab_size is 1.5"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps is -1.0"),
        ({"rope_theta": "many"}, "rope_theta is 'many'"),
        ({"eos_token_ids": (131,)}, "eos_token_ids holds 131 and vocab_size is 131"),
        ({"bos_token_id": -1}, "bos_token_id holds -1 and vocab_size is 131"),
    ],
)
def test_impossible_shapes(change, message):
    with pytest.raises(UserError, match=message):
        replace(GROUPED, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen3"}, "model_type is 'qwen3'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_dropout": 0.1}, "attention_dropout is 0.1"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"hidden_size": None}, "hidden_size None"),
        ({"vocab_size": "131"}, "vocab_size '131'"),
        ({"num_key_value_heads": 3}, "heads is 4 and kv_heads is 3"),
        ({"hidden_size": 66, "head_dim": None}, "hidden_size is 66 and num_attention_heads is 4"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2}}, "rope_type is 'yarn'"),
        (
            {"rope_parameters": {"rope_type": "llama3", "factor": 2}},
            "without low_freq_factor, high_freq_factor",
        ),
    ],
)
def test_unsupported_files(change, message):
    with pytest.raises(UserError, match=message):
        LlamaConfig.from_hf(GROUPED.to_hf() | change)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.5, 1.0, 4.0, 8192), "factor is 0.5"),
        ((8.0, 4.0, 1.0, 8192), "low_freq_factor is 4.0 and high_freq_factor is 1.0"),
        ((8.0, 1.0, 4.0, 0), "original_max_position is 0"),
        (("8", 1.0, 4.0, 8192), "factor is '8'"),
    ],
)
def test_impossible_scaling(values, message):
    with pytest.raises(UserError, match=message):
        RopeScaling(*values)


def test_names():
    assert named_config("llama-3.1-8b").kv_heads == 8
    with pytest.raises(UserError, match=r"'llama-9': there are tiny, llama-2-7b"):
        named_config("llama-9")


def test_counting_needs_no_torch():
    code = "import sys, smml.llama.counts, smml.llama.folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
