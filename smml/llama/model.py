"""A Llama: RMSNorm, rotary embedding with Llama 3's scaling, grouped-query attention, SwiGLU.

Shapes: B batch, T new tokens, S tokens attended to, D width, H query heads, K key-value heads, d head width,
F feed-forward width, V vocabulary, L layers.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from smml.errors import UserError
from smml.llama.config import LlamaConfig
from smml.llama.kv_cache import KVCache
from smml.llama.ops import TORCH_OPS, Ops


def rope_frequencies(config: LlamaConfig) -> Tensor:
    """Angle per token of each of the d/2 pairs, in radians [d/2], float32; scaled as `config.rope_scaling` says."""
    exponents = (
        torch.arange(0, config.head_dim, 2, dtype=torch.int64, device="cpu").float()
        / config.head_dim
    )
    frequencies = 1.0 / config.rope_theta**exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    # Turns within the original context: many of them stay, few are stretched, the band between blends the two.
    turns = scaling.original_max_position * frequencies / (2 * math.pi)
    blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blend = blend.clamp(0, 1)
    return (1 - blend) * frequencies / scaling.factor + blend * frequencies


def rope_tables(config: LlamaConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of every position's angles, as `ops.rope` takes them: 2 × [max_sequence_length, d]."""
    positions = torch.arange(config.max_sequence_length, dtype=torch.float32, device="cpu")
    angles = torch.outer(positions, rope_frequencies(config))  # [S, d/2]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)


class Attention(nn.Module):
    """Causal self-attention in which H/K query heads share each key-value head (arXiv:2305.13245)."""

    def __init__(self, config: LlamaConfig, layer: int, ops: Ops, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer, self.ops, self.head_dim = layer, ops, config.head_dim
        self.heads, self.kv_heads = config.heads, config.kv_heads
        bias = config.attention_bias
        # One product for queries, keys and values: rows hold H query heads, K key heads, K value heads.
        self.qkv = nn.Linear(
            config.dim, config.query_dim + 2 * config.kv_dim, bias=bias, dtype=dtype
        )
        self.output = nn.Linear(config.query_dim, config.dim, bias=bias, dtype=dtype)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
        causal: bool,
        cache: KVCache | None,
    ) -> Tensor:
        """x [B, T, D] → [B, T, D]; the other arguments as in Llama.forward and ops."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).view(batch, tokens, -1, self.head_dim)  # [B, T, H + 2K, d]
        qk, v = qkv.split((self.heads + self.kv_heads, self.kv_heads), dim=2)
        q, k = self.ops.rope(qk, cos, sin).split((self.heads, self.kv_heads), dim=2)
        q, k, v = (
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
        )  # [B, H, T, d], 2 × [B, K, T, d]
        if cache is not None:
            k, v = cache.update(self.layer, k, v)  # 2 × [B, K, S, d]
        attended = self.ops.attention(q, k, v, mask, causal)  # [B, H, T, d]
        return self.output(attended.transpose(1, 2).reshape(batch, tokens, -1))


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x)) (arXiv:2002.05202)."""

    def __init__(self, config: LlamaConfig, ops: Ops, dtype: torch.dtype) -> None:
        super().__init__()
        self.ops = ops
        # One product for both: rows hold the F of gate, then the F of up.
        self.gate_up = nn.Linear(
            config.dim, 2 * config.feed_forward_dim, bias=config.mlp_bias, dtype=dtype
        )
        self.down = nn.Linear(
            config.feed_forward_dim, config.dim, bias=config.mlp_bias, dtype=dtype
        )

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] → [B, T, D]."""
        return self.down(self.ops.swiglu(self.gate_up(x)))  # [B, T, 2F] → [B, T, F] → [B, T, D]


class RMSNorm(nn.Module):
    """Holds the weight [D] of one normalisation; `Layer` applies it through its ops."""

    def __init__(self, config: LlamaConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.dim, dtype=dtype))


class Layer(nn.Module):
    """Attention and feed-forward, each added to the stream that it reads normalised."""

    def __init__(self, config: LlamaConfig, layer: int, ops: Ops, dtype: torch.dtype) -> None:
        super().__init__()
        self.ops, self.eps = ops, config.rms_norm_eps
        self.attention_norm = RMSNorm(config, dtype)
        self.attention = Attention(config, layer, ops, dtype)
        self.feed_forward_norm = RMSNorm(config, dtype)
        self.feed_forward = FeedForward(config, ops, dtype)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
        causal: bool,
        cache: KVCache | None,
    ) -> Tensor:
        """x [B, T, D] → [B, T, D]."""
        normed = self.ops.rms_norm(x, self.attention_norm.weight, self.eps)
        attended = self.attention(normed, cos, sin, mask, causal, cache)
        normed, x = self.ops.add_rms_norm(attended, x, self.feed_forward_norm.weight, self.eps)
        return x + self.feed_forward(normed)


@torch.no_grad()
def initialise(
    weight: Tensor, name: str, config: LlamaConfig, generator: torch.Generator
) -> Tensor:
    """Fill the parameter of that name as `Llama.init_weights` says, in place; what is drawn before changes it."""
    if name.endswith("norm.weight"):
        return weight.fill_(1.0)
    if name.endswith("bias"):
        return weight.zero_()
    deviation = config.initializer_range
    if name.endswith(("attention.output.weight", "feed_forward.down.weight")):
        deviation /= math.sqrt(2 * config.layers)
    return weight.normal_(0.0, deviation, generator=generator)


class Llama(nn.Module):
    """Decoder of `config`; `device="meta"` makes shapes without memory, `ops` swaps in fused kernels.

    Other devices get random weights of `seed` (see `init_weights`). With `activation_checkpointing` a layer keeps only
    its input for backward and computes the rest again.
    """

    def __init__(
        self,
        config: LlamaConfig,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        ops: Ops = TORCH_OPS,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.ops, self.activation_checkpointing = config, ops, activation_checkpointing
        with torch.device("meta"):
            self.embedding = nn.Embedding(config.vocab_size, config.dim, dtype=dtype)
            self.layers = nn.ModuleList(
                Layer(config, layer, ops, dtype) for layer in range(config.layers)
            )
            self.norm = RMSNorm(config, dtype)
            if not config.tie_embeddings:
                self.output = nn.Linear(config.dim, config.vocab_size, bias=False, dtype=dtype)
            for name in ("rope_cos", "rope_sin"):
                table = torch.empty(config.max_sequence_length, config.head_dim, dtype=dtype)
                self.register_buffer(name, table, persistent=False)
        if torch.device(device).type != "meta":
            self.materialise(device)
            self.init_weights(seed)

    @property
    def output_weight(self) -> Tensor:
        """Matrix [V, D] from hidden states to logits: the embedding's own where tied."""
        return self.embedding.weight if self.config.tie_embeddings else self.output.weight

    def materialise(self, device: torch.device | str) -> None:
        """Give a meta model memory on `device`: rotary tables filled, parameters not yet."""
        self.to_empty(device=device)
        for table, values in zip(
            (self.rope_cos, self.rope_sin),
            rope_tables(self.config, self.rope_cos.dtype),
            strict=True,
        ):
            table.copy_(values)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Random weights: normal of deviation `config.initializer_range`; norms 1; biases 0.

        The two matrices that write to the stream, of each layer, are 1/√(2L) of that, so that the stream's variance
        does not grow with depth (GPT-2's rule).
        """
        generator = torch.Generator(device=self.embedding.weight.device).manual_seed(seed)
        for name, parameter in self.named_parameters():
            initialise(parameter, name, self.config, generator)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits [B, T, V] of tokens [B, T]; given targets [B, T], their mean loss in nats instead (float32 scalar).

        Target t is the token to predict at t, so already shifted; ops.IGNORE_INDEX leaves one out. A cache is continued
        and extended. `positions` [T] or [B, T] and a boolean `mask` [B, 1, T, S] serve padded batches; without them
        tokens follow the cache and see themselves and all before. `last_only` gives logits [B, 1, V].
        Raises UserError for a sequence longer than the context.
        """
        past, count = cache.length if cache is not None else 0, tokens.shape[1]
        if past + count > self.config.max_sequence_length:
            raise UserError(
                f"the sequence is {past + count} tokens long and max_sequence_length is "
                f"{self.config.max_sequence_length}: shorten it."
            )
        if positions is None:
            cos, sin = (
                self.rope_cos[past : past + count],
                self.rope_sin[past : past + count],
            )  # [T, d]
        else:
            cos, sin = self.rope_cos[positions], self.rope_sin[positions]  # [(B,) T, d]
        if mask is None and past > 0 and count > 1:
            mask = torch.ones(count, past + count, dtype=torch.bool, device=tokens.device).tril(
                past
            )
        causal = mask is None and count > 1

        x = self.embedding(tokens)  # [B, T, D]
        for layer in self.layers:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(
                    layer,
                    x,
                    cos,
                    sin,
                    mask,
                    causal,
                    cache,
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
            else:
                x = layer(x, cos, sin, mask, causal, cache)
        if cache is not None:
            cache.advance(count)
        if last_only:
            x = x[:, -1:]
        x = self.ops.rms_norm(x, self.norm.weight, self.config.rms_norm_eps)
        if targets is not None:
            return self.ops.linear_cross_entropy(
                x.flatten(0, 1), self.output_weight, targets.flatten()
            )
        return F.linear(x, self.output_weight)
