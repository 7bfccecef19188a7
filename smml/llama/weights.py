"""A Llama to and from a Hugging Face folder: config.json, safetensors (whole or in shards), generation_config.json."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from smml.errors import UserError
from smml.llama.config import LlamaConfig
from smml.llama.folder import load_config, read_json, whole_folder, write_json
from smml.llama.model import Llama
from smml.llama.ops import TORCH_OPS, Ops
from smml.llama.tokenizer import Tokenizer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# The names that safetensors headers give to the number types a Llama may come in.
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
_RENAMED = {
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "output": "lm_head",
    "attention.output": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "feed_forward.down": "mlp.down_proj",
    "feed_forward_norm": "post_attention_layernorm",
}


def hf_views(config: LlamaConfig, named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Views of this model's tensors (parameters, gradients, moments) under transformers' names and in its shapes.

    Writing to a view writes to the tensor: the fused qkv and gate_up matrices appear as the rows of their parts.
    """
    views = {}
    for name, tensor in named:
        module, _, kind = name.rpartition(".")
        prefix = ""
        if module.startswith("layers."):
            _, layer, module = module.split(".", 2)
            prefix = f"model.layers.{layer}."
        if module == "attention.qkv":
            rows = tensor.split((config.query_dim, config.kv_dim, config.kv_dim))
            parts = dict(
                zip(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), rows, strict=True)
            )
        elif module == "feed_forward.gate_up":
            parts = dict(zip(("mlp.gate_proj", "mlp.up_proj"), tensor.chunk(2), strict=True))
        else:
            parts = {_RENAMED[module]: tensor}
        views |= {f"{prefix}{part}.{kind}": view for part, view in parts.items()}
    return views


def load(
    folder: Path | str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    ops: Ops = TORCH_OPS,
) -> Llama:
    """Model of a Hugging Face folder, one tensor at a time, in `dtype` or the one that the file has.

    Raises UserError, naming tensor, file and both values, for missing, unknown, truncated or ill-shaped weights.
    """
    folder = Path(folder)
    config = load_config(folder)
    headers = {path: read_header(path) for path in _weight_files(folder)}
    found = {name: entry for header in headers.values() for name, entry in header.items()}
    model = Llama(config, device="meta", dtype=dtype or _common_dtype(folder, found), ops=ops)
    expected = hf_views(config, model.named_parameters())
    _check(folder, config, expected, found)
    model.materialise(device)
    expected = hf_views(config, model.named_parameters())
    twice = None  # the output matrix of a tied model, where the file has it all the same
    with torch.no_grad():
        for path in headers:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - a safe_open handle is no dictionary
                    if name in expected:
                        expected[name].copy_(file.get_tensor(name))
                    elif name == "lm_head.weight":
                        twice = file.get_tensor(name)
    embedding = model.embedding.weight
    if twice is not None and (
        twice.shape != embedding.shape or not torch.equal(twice.to(embedding), embedding)
    ):
        raise UserError(
            f"{folder}: tie_word_embeddings is true and lm_head.weight {list(twice.shape)} differs from "
            f"model.embed_tokens.weight {list(embedding.shape)}: set tie_word_embeddings to false in config.json."
        )
    return model


def save(
    model: Llama,
    folder: Path | str,
    *,
    tokenizer: Tokenizer | None = None,
    max_shard_bytes: int = 5_000_000_000,
    overwrite: bool = False,
) -> Path:
    """Write the model, whole or not at all, as a folder that transformers loads; shards of at most `max_shard_bytes`.

    Raises UserError when the folder exists (without `overwrite`), cannot be written, or the tokenizer does not fit.
    """
    config = model.config
    if tokenizer is not None:
        tokenizer.check(config)
    with whole_folder(folder, overwrite=overwrite) as partial:
        dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
        fields = config.to_hf(dtype)
        write_json(partial / "config.json", fields)
        write_json(
            partial / "generation_config.json",
            {name: fields[name] for name in ("bos_token_id", "eos_token_id")},
        )
        if tokenizer is not None:
            tokenizer.save(partial, config.max_sequence_length)
        named = ((name, parameter.detach()) for name, parameter in model.named_parameters())
        shards = _shards(hf_views(config, named), max_shard_bytes)
        weight_map = {}
        for number, tensors in enumerate(shards, 1):
            name = (
                WEIGHTS
                if len(shards) == 1
                else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            )
            try:
                save_file(
                    {key: t.cpu() for key, t in tensors.items()},
                    partial / name,
                    metadata={"format": "pt"},
                )
            except SafetensorError as error:
                raise UserError(
                    f"cannot write {folder}: {error}. Free space or choose another folder."
                ) from error
            weight_map |= dict.fromkeys(tensors, name)
        if len(shards) > 1:
            total = sum(tensor.nbytes for tensors in shards for tensor in tensors.values())
            write_json(
                partial / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map}
            )
    return Path(folder)


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """dtype, shape and data_offsets of each tensor of a safetensors file; UserError where its size is not as stated."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise UserError(
                f"{path} is {size} bytes and its header alone {8 + length}: truncated. Fetch it again."
            )
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            stated = (
                8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{path} has no readable safetensors header ({error}): fetch it again."
            ) from error
    if size != stated:
        raise UserError(
            f"{path} is {size} bytes and its header says {stated}: truncated or damaged. Fetch it again."
        )
    return header


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the folder: those that the index names, else the single one."""
    if (folder / INDEX).exists():
        names = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
    else:
        names = [WEIGHTS]
    missing = [name for name in names if not (folder / name).exists()]
    if missing or not names:
        raise UserError(
            f"{folder} has no {', '.join(missing) or 'weights in its index'}: fetch it again, as safetensors."
        )
    return [folder / name for name in names]


def _common_dtype(folder: Path, found: dict[str, dict[str, Any]]) -> torch.dtype:
    """The one dtype of all tensors; UserError when there are several to choose from."""
    names = sorted({entry["dtype"] for entry in found.values()})
    if len(names) != 1:
        raise UserError(
            f"{folder} holds tensors of {', '.join(names) or 'no type'}: choose one with dtype=…"
        )
    return DTYPES.get(names[0], torch.float32)


def _check(
    folder: Path, config: LlamaConfig, expected: dict[str, Tensor], found: dict[str, dict[str, Any]]
) -> None:
    """UserError unless the files hold exactly the tensors that config.json asks for, in shape and kind."""
    # Files of Llama 2's time carry the rotary frequencies, some tied ones the embedding once more.
    extra = {name for name in found if name.endswith("rotary_emb.inv_freq")}
    extra |= {"lm_head.weight"} if config.tie_embeddings else set()
    if missing := sorted(expected.keys() - found.keys()):
        raise UserError(
            f"{folder} holds {len(found)} tensors, config.json ({config.layers} layers) asks for {len(expected)}; "
            f"missing: {_some(missing)}. Fetch it again or correct config.json."
        )
    if unknown := sorted(found.keys() - expected.keys() - extra):
        raise UserError(
            f"{folder} holds {len(found)} tensors, config.json ({config.layers} layers) asks for {len(expected)}; "
            f"unknown: {_some(unknown)}. Correct config.json or choose another folder."
        )
    for name, view in expected.items():
        shape, dtype = found[name]["shape"], found[name]["dtype"]
        if list(view.shape) != shape:
            raise UserError(
                f"{name} has shape {shape} in the file and {list(view.shape)} by config.json of {folder}: correct one."
            )
        if dtype not in DTYPES:
            raise UserError(
                f"{name} is {dtype} in {folder}: only {', '.join(DTYPES)} can be loaded. Convert it."
            )


def _shards(tensors: dict[str, Tensor], max_shard_bytes: int) -> list[dict[str, Tensor]]:
    """Tensors in order, split wherever the next would pass the limit; one larger than it stands alone."""
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for name, tensor in tensors.items():
        if shards[-1] and used + tensor.nbytes > max_shard_bytes:
            shards.append({})
            used = 0
        shards[-1][name] = tensor
        used += tensor.nbytes
    return shards


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
