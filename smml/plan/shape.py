"""What is planned: the shape of a decoder, Llama or GPT, dense or of experts; its parameters and FLOPs. Pure."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from smml.errors import UserError
from smml.llama.config import CONFIGS, LlamaConfig

Convention = Literal["full", "causal", "6n", "hardware"]
CONVENTIONS: tuple[Convention, ...] = ("full", "causal", "6n", "hardware")


@dataclass(frozen=True)
class ModelShape:
    """D = dim, H = heads, K = kv_heads, F = feed_forward_dim, V = vocab_size, L = layers, E = experts.

    `gated` says SwiGLU, RMSNorm and rotary positions (Llama); else GELU, LayerNorm, biases and `learned_positions`
    (GPT). Raises UserError naming the field of a shape that cannot be.
    """

    name: str
    vocab_size: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward_dim: int
    gated: bool = True
    tie_embeddings: bool = False
    learned_positions: int = 0
    experts: int = 1
    experts_per_token: int = 1

    def __post_init__(self) -> None:
        for field in (
            *("vocab_size", "dim", "layers", "heads", "kv_heads", "head_dim", "feed_forward_dim"),
            *("experts", "experts_per_token"),
        ):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(
                    f"{field} is {value!r}: a model needs a whole number of 1 or more there. Correct it."
                )
        if self.heads % self.kv_heads:
            raise UserError(
                f"kv_heads is {self.kv_heads} and heads is {self.heads}: heads must be a multiple. Change one of them."
            )
        if self.experts_per_token > self.experts:
            raise UserError(
                f"experts_per_token is {self.experts_per_token}, experts is {self.experts}: "
                "a token cannot go to more experts than there are. Change one of them."
            )

    @property
    def query_dim(self) -> int:
        """Width of all query heads, H·d."""
        return self.heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of all key heads, and of all value heads, K·d."""
        return self.kv_heads * self.head_dim

    @property
    def gate_factor(self) -> int:
        """Matrices that lead into the feed-forward width: 2 for SwiGLU (gate and up), 1 for GELU."""
        return 2 if self.gated else 1

    @property
    def attention_parameters(self) -> int:
        """Of one layer's attention, biases included."""
        D, q, kv = self.dim, self.query_dim, self.kv_dim
        return D * (q + 2 * kv) + q * D + (0 if self.gated else q + 2 * kv + D)

    @property
    def expert_parameters(self) -> int:
        """Of one layer's feed-forward, of one expert where there are several."""
        D, F = self.dim, self.feed_forward_dim
        return (self.gate_factor + 1) * D * F + (0 if self.gated else F + D)

    @property
    def layer_parameters(self) -> int:
        """Of one layer: attention, all experts with their router, norms."""
        norms = 2 * self.dim if self.gated else 4 * self.dim
        router = self.dim * self.experts if self.experts > 1 else 0
        return self.attention_parameters + self.experts * self.expert_parameters + router + norms

    @property
    def end_parameters(self) -> int:
        """Outside the layers: embedding, learned positions, last norm, and an output matrix that is not tied."""
        matrices = 1 if self.tie_embeddings else 2
        return (
            matrices * self.vocab_size + self.learned_positions + (1 if self.gated else 2)
        ) * self.dim

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.layers * self.layer_parameters + self.end_parameters

    @property
    def active_parameters(self) -> int:
        """N of the 6N rule: what multiplies each token; an embedding only looked up and idle experts left out."""
        idle = self.layers * (self.experts - self.experts_per_token) * self.expert_parameters
        looked_up = 0 if self.tie_embeddings else self.vocab_size * self.dim
        return self.parameters - idle - looked_up - self.learned_positions * self.dim

    @property
    def layer_matrix_weights(self) -> int:
        """Weights of one layer's products that one token passes, without biases and norms."""
        D, F = self.dim, self.feed_forward_dim
        attention = D * (self.query_dim + 2 * self.kv_dim) + self.query_dim * D
        return attention + self.experts_per_token * (self.gate_factor + 1) * D * F

    def forward_flops_per_token(self, length: int, attention: Literal["full", "causal"]) -> float:
        """FLOPs of one token's forward pass in a sequence of `length`; a multiply-add is 2.

        "full" counts all length² query–key pairs (arXiv:2205.05198, 2204.02311, torchtitan), "causal" those that the
        mask lets through.
        """
        pairs = length if attention == "full" else (length + 1) / 2
        scores = 4 * pairs * self.query_dim * self.layers
        return 2 * self.layers * self.layer_matrix_weights + scores + 2 * self.dim * self.vocab_size

    def model_flops_per_token(self, length: int, convention: Convention) -> float:
        """FLOPs of one token's training step by a named convention that leaves recomputation out: 3 × forward, or 6N.

        Raises UserError for "hardware", which depends on the layout (see `smml.plan.step`), and unknown names.
        """
        if convention == "6n":
            return 6.0 * self.active_parameters
        if convention not in ("full", "causal"):
            raise UserError(
                f"convention is {convention!r}: a model's FLOPs are counted by 'full', 'causal' or '6n'. Choose one."
            )
        return 3.0 * self.forward_flops_per_token(length, convention)


def of_llama(config: LlamaConfig, name: str) -> ModelShape:
    """The shape of a Llama configuration."""
    return ModelShape(
        name=name,
        vocab_size=config.vocab_size,
        dim=config.dim,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        feed_forward_dim=config.feed_forward_dim,
        tie_embeddings=config.tie_embeddings,
    )


def gpt(
    name: str, layers: int, dim: int, heads: int, vocab_size: int = 51_200, positions: int = 2048
) -> ModelShape:
    """A GPT-3 style decoder: feed-forward of 4·D, GELU, learned positions, embedding tied to the output."""
    if heads < 1 or dim % heads:
        raise UserError(f"heads is {heads} and dim is {dim}: dim must be a multiple. Change one.")
    return ModelShape(
        name,
        vocab_size,
        dim,
        layers,
        heads,
        heads,
        dim // heads,
        4 * dim,
        gated=False,
        tie_embeddings=True,
        learned_positions=positions,
    )


# GPTs: arXiv:2205.05198, table 3. Mixtral: arXiv:2401.04088, table 1.
_GPTS = {
    "gpt-22b": (48, 6144, 64),
    "gpt-175b": (96, 12_288, 96),
    "gpt-530b": (105, 20_480, 128),
    "gpt-1t": (128, 25_600, 160),
}
_MIXTRAL = ModelShape(
    "mixtral-8x7b", 32_000, 4096, 32, 32, 8, 128, 14_336, experts=8, experts_per_token=2
)
NAMES = (*CONFIGS, *_GPTS, _MIXTRAL.name)


@lru_cache
def named_shape(name: str) -> ModelShape:
    """The shape of that name in NAMES; raises UserError that lists the names."""
    if name in CONFIGS:
        return of_llama(CONFIGS[name], name)
    if name in _GPTS:
        return gpt(name, *_GPTS[name])
    if name == _MIXTRAL.name:
        return _MIXTRAL
    raise UserError(f"model is {name!r}: there are {', '.join(NAMES)}. Choose one of them.")
