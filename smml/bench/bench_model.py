"""The Llama that benches run: random weights, larger than every cache, small enough to be quick."""

import math
from dataclasses import replace

from smml.bench.setting import Setting
from smml.hardware.reach import cache_bytes
from smml.llama import counts
from smml.llama.config import CONFIGS, LlamaConfig

ON_CPU = LlamaConfig(
    vocab_size=8192,
    dim=1024,
    layers=4,
    heads=16,
    kv_heads=8,
    head_dim=64,
    feed_forward_dim=4096,
    max_sequence_length=4096,
    tie_embeddings=True,
)
MOST_LAYERS = 16  # one gigabyte in float32: what a laptop writes and reads within seconds


def config(setting: Setting) -> LlamaConfig:
    """Llama-3.2-1B on a GPU; on a CPU a small one with as many layers as four last-level caches of weights need."""
    if setting.device != "cpu":
        return CONFIGS["llama-3.2-1b"]
    a_layer = counts.parameters(ON_CPU).total // ON_CPU.layers
    needed = math.ceil(4 * cache_bytes(setting.machine) / (a_layer * itemsize(setting)))
    return replace(ON_CPU, layers=min(max(ON_CPU.layers, needed), MOST_LAYERS))


def itemsize(setting: Setting) -> int:
    """Bytes of one number in the profile's dtype."""
    import torch

    return getattr(torch, setting.profile.dtype).itemsize
