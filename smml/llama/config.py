"""What fixes a Llama's shape, and the published shapes by name; reads and writes a Hugging Face config.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from smml.errors import UserError


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's stretch of the rotary frequencies to a longer context (Llama 3.1 model card, `rope_type: llama3`).

    Frequencies whose wavelength exceeds `original_max_position / low_freq_factor` tokens are divided by
    `factor`, those below `original_max_position / high_freq_factor` stay, those between are interpolated.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int | float):
                raise UserError(
                    f"rope_scaling.{name} is {value!r}: it must be a number. Correct config.json."
                )
        if self.factor < 1:
            raise UserError(
                f"rope_scaling.factor is {self.factor}: it must be 1 or more. Correct config.json."
            )
        if not 0 < self.low_freq_factor < self.high_freq_factor:
            raise UserError(
                f"rope_scaling.low_freq_factor is {self.low_freq_factor} and high_freq_factor is "
                f"{self.high_freq_factor}: they must satisfy 0 < low < high. Correct config.json."
            )
        if self.original_max_position < 1:
            raise UserError(
                f"rope_scaling.original_max_position is {self.original_max_position}: "
                "it must be 1 or more. Correct config.json."
            )


@dataclass(frozen=True)
class LlamaConfig:
    """Shape of a Llama: D = dim, H = heads, K = kv_heads, F = feed_forward_dim, V = vocab_size, L = layers.

    Raises UserError, naming the fields and their values, for a shape that cannot be built.
    """

    vocab_size: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward_dim: int
    max_sequence_length: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-5
    tie_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in (
            *("vocab_size", "dim", "layers", "heads", "kv_heads"),
            *("head_dim", "feed_forward_dim", "max_sequence_length"),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(
                    f"{name} is {value!r}: it must be a whole number of 1 or more. Correct the config."
                )
        for name in ("rope_theta", "rms_norm_eps", "initializer_range"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value > 0:
                raise UserError(
                    f"{name} is {value!r}: it must be a number above 0. Correct the config."
                )
        if self.heads % self.kv_heads:
            raise UserError(
                f"heads is {self.heads} and kv_heads is {self.kv_heads}: every key-value head serves the same number "
                "of query heads, so heads must be a multiple of kv_heads. Change one of them."
            )
        if self.dim % self.heads:
            raise UserError(
                f"dim is {self.dim} and heads is {self.heads}: "
                "transformers loads only widths that are a multiple of heads. Change one of them."
            )
        if self.head_dim % 2:
            raise UserError(
                f"head_dim is {self.head_dim}: rotary embeddings turn pairs, so it must be even."
            )
        for name, ids in (
            ("bos_token_id", (self.bos_token_id,)),
            ("eos_token_ids", self.eos_token_ids),
        ):
            for token in ids:
                if token is not None and not (
                    isinstance(token, int) and 0 <= token < self.vocab_size
                ):
                    raise UserError(
                        f"{name} holds {token!r} and vocab_size is {self.vocab_size}: "
                        f"a token id must lie in 0…{self.vocab_size - 1}. Correct the config."
                    )

    @property
    def query_dim(self) -> int:
        """Width of all query heads together, H·d."""
        return self.heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of all key heads together (and of all value heads), K·d."""
        return self.kv_heads * self.head_dim

    @classmethod
    def from_hf(cls, fields: Mapping[str, Any]) -> "LlamaConfig":
        """Configuration from the content of a Hugging Face config.json, of transformers 4 or 5.

        Raises UserError for another architecture, a missing field, or a variant that this model does not compute.
        """
        if fields.get("model_type", "llama") != "llama":
            raise UserError(
                f"model_type is {fields['model_type']!r}: only 'llama' can be loaded. Choose another folder."
            )
        for name, only in {
            "hidden_act": "silu",
            "attention_dropout": 0,
            "quantization_config": None,
        }.items():
            if fields.get(name, only) != only:
                raise UserError(
                    f"{name} is {fields[name]!r}: only {only!r} is supported. Choose another model."
                )

        def required(name: str) -> int:
            value = fields.get(name)
            if not isinstance(value, int) or value < 1:
                raise UserError(
                    f"config.json has {name} {value!r}: a Llama needs a whole number of 1 or more. "
                    "Correct it, or fetch the folder again."
                )
            return value

        dim, heads = required("hidden_size"), required("num_attention_heads")
        head_dim = fields.get("head_dim")
        if head_dim is None:
            if dim % heads:
                raise UserError(
                    f"hidden_size is {dim} and num_attention_heads is {heads}: without head_dim, "
                    "hidden_size must be a multiple of num_attention_heads. Correct config.json."
                )
            head_dim = dim // heads
        eos = fields.get("eos_token_id")
        rope = dict(fields.get("rope_parameters") or fields.get("rope_scaling") or {})
        return cls(
            vocab_size=required("vocab_size"),
            dim=dim,
            layers=required("num_hidden_layers"),
            heads=heads,
            kv_heads=fields.get("num_key_value_heads") or heads,
            head_dim=head_dim,
            feed_forward_dim=required("intermediate_size"),
            max_sequence_length=fields.get("max_position_embeddings", 2048),
            rope_theta=rope.get("rope_theta") or fields.get("rope_theta") or 10_000.0,
            rope_scaling=_rope_scaling(rope, fields.get("max_position_embeddings", 2048)),
            rms_norm_eps=fields.get("rms_norm_eps", 1e-6),
            tie_embeddings=bool(fields.get("tie_word_embeddings", False)),
            attention_bias=bool(fields.get("attention_bias", False)),
            mlp_bias=bool(fields.get("mlp_bias", False)),
            initializer_range=fields.get("initializer_range", 0.02),
            bos_token_id=fields.get("bos_token_id"),
            eos_token_ids=() if eos is None else (eos,) if isinstance(eos, int) else tuple(eos),
        )

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        """Content of a config.json that transformers 4 and 5 load as LlamaForCausalLM with weights of `dtype`.

        The rotary fields stand in it twice: `rope_parameters` for version 5, `rope_theta` and `rope_scaling` for 4.
        """
        scaling = None
        if self.rope_scaling is not None:
            scaling = asdict(self.rope_scaling)
            scaling["original_max_position_embeddings"] = scaling.pop("original_max_position")
            scaling["rope_type"] = "llama3"
        eos = list(self.eos_token_ids)
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.dim,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.feed_forward_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_sequence_length,
            "rope_theta": float(self.rope_theta),
            "rope_scaling": scaling,
            "rope_parameters": {
                "rope_theta": float(self.rope_theta),
                **(scaling or {"rope_type": "default"}),
            },
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_embeddings,
            "attention_bias": self.attention_bias,
            "attention_dropout": 0.0,
            "mlp_bias": self.mlp_bias,
            "initializer_range": self.initializer_range,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": None if not eos else eos[0] if len(eos) == 1 else eos,
            "pad_token_id": None,
            "use_cache": True,
            "dtype": dtype,
            "torch_dtype": dtype,
        }


def _rope_scaling(rope: Mapping[str, Any], max_sequence_length: int) -> RopeScaling | None:
    """Scaling that a `rope_parameters` or `rope_scaling` dictionary describes; None for the default embedding."""
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise UserError(
            f"rope_type is {kind!r}: only 'default' and 'llama3' are supported. Choose another model."
        )
    names = ("factor", "low_freq_factor", "high_freq_factor")
    if missing := [name for name in names if name not in rope]:
        raise UserError(
            f"rope_type 'llama3' without {', '.join(missing)}: it needs {', '.join(names)}. Correct config.json."
        )
    original = rope.get("original_max_position_embeddings") or max_sequence_length
    return RopeScaling(*(rope[name] for name in names), original)


# Shapes as published: arXiv:2307.09288 (Llama 2), arXiv:2407.21783 table 3 (Llama 3.1) and the config.json of the
# models named meta-llama/… on the Hugging Face hub, read 2026-11.
_LLAMA_2 = LlamaConfig(
    vocab_size=32_000,
    dim=4096,
    layers=32,
    heads=32,
    kv_heads=32,
    head_dim=128,
    feed_forward_dim=11_008,
    max_sequence_length=4096,
    bos_token_id=1,
    eos_token_ids=(2,),
)
_LLAMA_3_1 = LlamaConfig(
    vocab_size=128_256,
    dim=4096,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    feed_forward_dim=14_336,
    max_sequence_length=131_072,
    rope_theta=500_000.0,
    rope_scaling=RopeScaling(8.0, 1.0, 4.0, 8192),
    bos_token_id=128_000,
    eos_token_ids=(128_001,),
)
_LLAMA_3_2 = replace(
    _LLAMA_3_1, rope_scaling=RopeScaling(32.0, 1.0, 4.0, 8192), tie_embeddings=True
)

CONFIGS: dict[str, LlamaConfig] = {
    # 1.1M parameters: 4.5 MB in float32; widths split over 2 ranks, layers over 2 or 4.
    "tiny": LlamaConfig(
        vocab_size=1024,
        dim=128,
        layers=4,
        heads=4,
        kv_heads=2,
        head_dim=32,
        feed_forward_dim=512,
        max_sequence_length=512,
        tie_embeddings=True,
        bos_token_id=0,
        eos_token_ids=(1,),
    ),
    "llama-2-7b": _LLAMA_2,
    "llama-2-13b": replace(
        _LLAMA_2, dim=5120, layers=40, heads=40, kv_heads=40, feed_forward_dim=13_824
    ),
    "llama-3.2-1b": replace(_LLAMA_3_2, dim=2048, layers=16, head_dim=64, feed_forward_dim=8192),
    "llama-3.2-3b": replace(_LLAMA_3_2, dim=3072, layers=28, heads=24, feed_forward_dim=8192),
    "llama-3.1-8b": _LLAMA_3_1,
    "llama-3.1-70b": replace(_LLAMA_3_1, dim=8192, layers=80, heads=64, feed_forward_dim=28_672),
    "llama-3.1-405b": replace(
        _LLAMA_3_1, dim=16_384, layers=126, heads=128, feed_forward_dim=53_248
    ),
}


def named_config(name: str) -> LlamaConfig:
    """Configuration of that name in CONFIGS; raises UserError that lists the names."""
    if name not in CONFIGS:
        raise UserError(
            f"no model is called {name!r}: there are {', '.join(CONFIGS)}. Choose one of them."
        )
    return CONFIGS[name]
