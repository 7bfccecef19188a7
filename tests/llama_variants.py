"""Small Llamas of every kind that transformers' implementation has, with random weights, for the tests of smml.llama."""

from dataclasses import replace

import torch

from smml.llama.config import CONFIGS, LlamaConfig, RopeScaling
from smml.llama.model import Llama

GROUPED = LlamaConfig(
    vocab_size=131,
    dim=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    feed_forward_dim=96,
    max_sequence_length=64,
    bos_token_id=0,
    eos_token_ids=(1,),
)
VARIANTS = {
    "tiny": CONFIGS["tiny"],
    "grouped": GROUPED,
    "one head each, tied": replace(GROUPED, kv_heads=4, tie_embeddings=True),
    "one key head": replace(GROUPED, kv_heads=1, rms_norm_eps=1e-3),
    "stretched rope": replace(
        GROUPED, rope_theta=500.0, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 16)
    ),
    "biased": replace(GROUPED, attention_bias=True, mlp_bias=True, tie_embeddings=True),
    "biased attention, wide heads": replace(GROUPED, attention_bias=True, head_dim=32),
}


@torch.no_grad()
def random_model(config: LlamaConfig, seed: int = 0) -> Llama:
    """Model whose every parameter is random, norms and biases too: an initial one would hide a mistake in them."""
    model = Llama(config, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def random_tokens(config: LlamaConfig, batch: int, length: int, seed: int = 0) -> torch.Tensor:
    """Tokens [batch, length], none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, config.vocab_size, (batch, length), generator=generator)
