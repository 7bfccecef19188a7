"""Exercises of 00_getting_started/02_anatomy_of_a_model."""

import json
import struct
from collections.abc import Callable, Sequence

from smml.course.checking import WrongAnswer, attempt, exercise, expect_close

NAMES = ("model.norm.weight", "lm_head.weight")
VALUES = {"model.norm.weight": (1.0, -2.0, 0.5), "lm_head.weight": (3.0, 96.0, -0.015625, 0.0)}


def _file() -> bytes:
    """A safetensors file of two bfloat16 tensors whose values are exact in it; the header has an entry for the file."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name in NAMES:
        # The upper two bytes of a float32 are the bfloat16.
        data = b"".join(struct.pack("<f", value)[2:] for value in VALUES[name])
        header[name] = {
            "dtype": "BF16",
            "shape": [len(VALUES[name])],
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _read(raw: bytes, name: str, *, skip_header: bool = True, upper: bool = True) -> list[float]:
    (length,) = struct.unpack("<Q", raw[:8])
    first, last = json.loads(raw[8 : 8 + length])[name]["data_offsets"]
    body = raw[8 + length if skip_header else 8 :]
    pairs = [body[i : i + 2] for i in range(first, last, 2)]
    return [struct.unpack("<f", b"\0\0" + p if upper else p + b"\0\0")[0] for p in pairs]


@exercise(
    lambda raw, name: _read(raw, name, skip_header=False),
    lambda raw, name: _read(raw, name, upper=False),
    lambda raw, name: _read(raw, NAMES[0]),
)
def read_bfloat16(answer: Callable[[bytes, str], Sequence[float]]) -> str:
    """The numbers of one bfloat16 tensor, from the bytes of a safetensors file."""
    raw = _file()
    for name in NAMES:
        given = attempt(answer, raw, name)
        try:
            given = [float(value) for value in given]
        except (TypeError, ValueError):
            raise WrongAnswer("read_bfloat16 should return a list of numbers.") from None
        if given != list(VALUES[name]):
            raise WrongAnswer(
                f"read_bfloat16(raw, {name!r}) gives {given[:4]}. Offsets count from the end of the header, and two "
                "zero bytes in front make each pair of bytes a little-endian float32."
            )
    return "a bfloat16 is a float32 without its lower half"


@exercise(
    lambda config, parameters: config["vocab_size"] * config["hidden_size"] / parameters,
    lambda config, parameters: 2 * config["vocab_size"] * config["hidden_size"] / parameters,
    lambda config, parameters: config["vocab_size"] / parameters,
)
def embedding_share(answer: Callable[[dict, int], float]) -> str:
    """Share of a model's parameters that lie in the embedding and the output matrix."""
    from smml.llama import counts
    from smml.llama.config import CONFIGS

    for name in ("tiny", "llama-3.2-1b", "llama-3.1-8b"):
        count = counts.parameters(CONFIGS[name])
        expect_close(
            f"embedding_share of {name}",
            attempt(answer, CONFIGS[name].to_hf(), count.total),
            (count.embedding + count.output) / count.total,
            "One row of hidden_size numbers a token, and as many again for the output unless tie_word_embeddings.",
        )
    return "a small model is to a good part its vocabulary"
