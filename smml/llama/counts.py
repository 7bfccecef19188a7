"""What a Llama costs, counted from its configuration alone: parameters, FLOPs, bytes moved, bytes held.

Conventions. A multiply-add is 2 FLOPs; only matrix products count, as in torch.utils.flop_counter. Backward is twice
forward. Attention is counted "causal", the query–key pairs that the mask lets through, or "full", all T·S of them as a
plain implementation computes; a training step's model FLOPs leave recomputation out. B batch, T new tokens, S tokens
attended to, D width, H heads, K kv heads, d head width, F feed-forward width, V vocabulary, L layers, N parameters.
"""

from dataclasses import dataclass
from typing import Literal

from smml.llama.config import LlamaConfig

AttentionCount = Literal["causal", "full"]


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by group, biases included; `output` is 0 where the embedding serves as output matrix too."""

    embedding: int
    attention: int
    feed_forward: int
    norms: int
    output: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.embedding + self.attention + self.feed_forward + self.norms + self.output

    @property
    def active(self) -> int:
        """N of the 6N rule: all but an embedding that is only looked up, which multiplies nothing."""
        return self.total - (self.embedding if self.output else 0)


@dataclass(frozen=True)
class Flops:
    """FLOPs by part: the projections of attention, its scores and weighted values, SwiGLU's products, the logits."""

    attention_projections: int
    attention_scores: int
    feed_forward: int
    output: int

    @property
    def total(self) -> int:
        """All FLOPs."""
        return self.attention_projections + self.attention_scores + self.feed_forward + self.output


@dataclass(frozen=True)
class DecodeBytes:
    """Bytes between memory and chip in one decode step; activations, which stay in caches, left out."""

    weights: int
    kv_read: int
    kv_written: int

    @property
    def total(self) -> int:
        """All bytes."""
        return self.weights + self.kv_read + self.kv_written


@dataclass(frozen=True)
class ActivationBytes:
    """Bytes saved for backward at the end of forward, and the most that recomputing one layer adds to them."""

    saved: int
    recomputed: int

    @property
    def peak(self) -> int:
        """Both together."""
        return self.saved + self.recomputed


@dataclass(frozen=True)
class TrainingBytes:
    """Bytes of parameters (a master copy included), gradients and optimizer moments."""

    parameters: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """All bytes."""
        return self.parameters + self.gradients + self.optimizer


def parameters(config: LlamaConfig) -> ParameterCount:
    """Parameters by group."""
    D, F, L = config.dim, config.feed_forward_dim, config.layers
    q, kv = config.query_dim, config.kv_dim
    attention = D * (q + 2 * kv) + q * D + (q + 2 * kv + D if config.attention_bias else 0)
    feed_forward = 3 * D * F + (2 * F + D if config.mlp_bias else 0)
    embedding = config.vocab_size * D
    return ParameterCount(
        embedding,
        L * attention,
        L * feed_forward,
        (2 * L + 1) * D,
        0 if config.tie_embeddings else embedding,
    )


def forward_flops(
    config: LlamaConfig,
    batch: int,
    tokens: int,
    past: int = 0,
    *,
    attention: AttentionCount = "causal",
    logits: int | None = None,
) -> Flops:
    """FLOPs of one forward pass over `tokens` new tokens a sequence after `past` cached ones.

    `logits` positions a sequence get logits: all where None.
    """
    D, L, count = config.dim, config.layers, batch * tokens
    # Per query–key pair and head: one product of length d for the score, one for the weighted value.
    pairs = batch * (
        tokens * (past + tokens)
        if attention == "full"
        else tokens * past + tokens * (tokens + 1) // 2
    )
    return Flops(
        attention_projections=L * 2 * count * D * 2 * (config.query_dim + config.kv_dim),
        attention_scores=L * 2 * 2 * pairs * config.query_dim,
        feed_forward=L * 2 * count * 3 * D * config.feed_forward_dim,
        output=2 * batch * (tokens if logits is None else logits) * D * config.vocab_size,
    )


def training_flops(
    config: LlamaConfig,
    batch: int,
    tokens: int,
    *,
    attention: AttentionCount = "causal",
    recompute: bool = False,
) -> int:
    """FLOPs of one training step on `batch` sequences of `tokens`: forward, backward, and with `recompute` what
    activation checkpointing runs again: every layer's forward up to its last product, whose result backward needs not.
    """
    forward = forward_flops(config, batch, tokens, attention=attention)
    again = forward.total - forward.output - forward.feed_forward // 3 if recompute else 0
    return 3 * forward.total + again


def prefill_flops(
    config: LlamaConfig, batch: int, tokens: int, *, attention: AttentionCount = "causal"
) -> int:
    """FLOPs of reading `batch` prompts of `tokens`, logits of the last position only."""
    return forward_flops(config, batch, tokens, attention=attention, logits=1).total


def decode_flops(config: LlamaConfig, batch: int, past: int) -> int:
    """FLOPs of one more token for each of `batch` sequences with `past` tokens in the KV cache."""
    return forward_flops(config, batch, 1, past).total


def flops_per_token(
    config: LlamaConfig,
    phase: Literal["training", "prefill", "decode"],
    length: int,
    *,
    rule: Literal["exact", "6n"] = "exact",
    attention: AttentionCount = "causal",
) -> float:
    """FLOPs per token at sequence length `length` (in decode: tokens already cached), exactly or by the 6N rule.

    The rule (arXiv:2001.08361, section 2.1) is 6N in training and 2N in inference, with N = ParameterCount.active; it
    leaves attention's scores out.
    """
    if rule == "6n":
        return float((6 if phase == "training" else 2) * parameters(config).active)
    if phase == "training":
        return training_flops(config, 1, length, attention=attention) / length
    if phase == "prefill":
        return prefill_flops(config, 1, length, attention=attention) / length
    return float(decode_flops(config, 1, length))


def kv_cache_bytes(config: LlamaConfig, batch: int, length: int, itemsize: int = 2) -> int:
    """Bytes of the keys and values of `length` tokens for `batch` sequences: 2·L·K·d numbers a token."""
    return 2 * config.layers * config.kv_dim * batch * length * itemsize


def decode_bytes(
    config: LlamaConfig, batch: int, past: int, itemsize: int = 2, kv_itemsize: int | None = None
) -> DecodeBytes:
    """Bytes that one decode step moves: every active weight once for the whole batch, one embedding row and the
    KV cache for each sequence.
    """
    kv_itemsize = itemsize if kv_itemsize is None else kv_itemsize
    return DecodeBytes(
        weights=(parameters(config).active + batch * config.dim) * itemsize,
        kv_read=kv_cache_bytes(config, batch, past + 1, kv_itemsize),
        kv_written=kv_cache_bytes(config, batch, 1, kv_itemsize),
    )


def activation_bytes(
    config: LlamaConfig,
    batch: int,
    tokens: int,
    itemsize: int = 4,
    *,
    checkpointing: bool = False,
    fused_norm: bool = False,
) -> ActivationBytes:
    """Bytes that a forward pass of the plain model with targets keeps for backward, weights and rotary tables aside.

    Attention keeps no scores (flash). `fused_norm` says that RMSNorm is one kernel, as on CUDA, and keeps its input
    and 1/rms; else, as on the CPU, it keeps input and normalised values in float32.
    """
    D, F, H, K, d = (
        config.dim,
        config.feed_forward_dim,
        config.heads,
        config.kv_heads,
        config.head_dim,
    )
    norm = (
        D * itemsize + 4 + (D * itemsize if fused_norm else 2 * D * 4)
    )  # output, 1/rms, the rest as said
    # Values are a slice of qkv, which therefore stays whole beside the turned queries and keys.
    attention = (
        (H + 2 * K) * d + (H + K) * d + H * d
    ) * itemsize + 4 * H  # …, attended, log-sum-exp
    feed_forward = (2 * F + F + F) * itemsize  # gate and up, silu(gate), their product
    layer = batch * tokens * (2 * norm + attention + feed_forward)
    ends = (
        batch * tokens * (norm + config.vocab_size * 4 + 2 * 8)
    )  # last norm, log-probabilities, tokens, targets
    if not checkpointing:
        return ActivationBytes(config.layers * layer + ends, 0)
    return ActivationBytes(config.layers * batch * tokens * D * itemsize + ends, layer)


def training_state_bytes(
    config: LlamaConfig,
    *,
    itemsize: int = 4,
    moment_itemsize: int = 4,
    master_itemsize: int = 0,
) -> TrainingBytes:
    """Bytes held between steps of AdamW: parameters and gradients of `itemsize`, two moments, and a master copy.

    float32 training is the default, 16 bytes a parameter; bf16 with float32 master weights is itemsize=2,
    master_itemsize=4, also 16 (arXiv:1910.02054, section 3.1).
    """
    count = parameters(config).total
    return TrainingBytes(
        count * (itemsize + master_itemsize), count * itemsize, 2 * count * moment_itemsize
    )


def rope_table_bytes(config: LlamaConfig, itemsize: int = 4) -> int:
    """Bytes of the model's cos and sin tables, its only buffers."""
    return 2 * config.max_sequence_length * config.head_dim * itemsize
