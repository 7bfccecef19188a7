"""Hugging Face folders both ways with equal tensors; damaged ones are refused with names and values; kills harm none."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from llama_variants import GROUPED, VARIANTS, random_model, random_tokens
from safetensors.torch import load_file, save_file

from smml.errors import UserError
from smml.llama import weights
from smml.llama.config import LlamaConfig
from smml.llama.folder import load_config, whole_folder
from smml.llama.tokenizer import Tokenizer


@pytest.mark.parametrize("name", VARIANTS)
def test_to_transformers_and_back(name, tmp_path):
    model = random_model(VARIANTS[name])
    weights.save(model, tmp_path / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert isinstance(theirs, transformers.LlamaForCausalLM)
    expected = weights.hf_views(model.config, model.named_parameters())
    found = dict(theirs.named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)

    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    again = weights.load(tmp_path / "theirs")
    assert again.config == model.config
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    tokens = random_tokens(model.config, 1, 9)
    assert torch.equal(model(tokens), again(tokens))


def test_shards_and_dtype(tmp_path):
    model = random_model(GROUPED).bfloat16()
    weights.save(model, tmp_path / "m", max_shard_bytes=40_000)
    index = json.loads((tmp_path / "m" / weights.INDEX).read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert index["metadata"]["total_size"] == sum(
        parameter.nbytes for parameter in model.parameters()
    )
    assert all(
        tensor.nbytes for file in files for tensor in load_file(tmp_path / "m" / file).values()
    )
    again = weights.load(tmp_path / "m")
    assert again.embedding.weight.dtype == torch.bfloat16
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    wider = weights.load(tmp_path / "m", dtype=torch.float32)
    assert torch.equal(wider.norm.weight, model.norm.weight.float())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert theirs.dtype == torch.bfloat16


def test_generation_config_carries_the_ends(tmp_path):
    weights.save(random_model(replace(GROUPED, eos_token_ids=(1, 5))), tmp_path / "m")
    assert transformers.GenerationConfig.from_pretrained(tmp_path / "m").eos_token_id == [1, 5]
    (tmp_path / "m" / "generation_config.json").write_text('{"eos_token_id": [7, 8]}')
    assert load_config(tmp_path / "m").eos_token_ids == (7, 8)


@pytest.fixture
def folder(tmp_path) -> Path:
    return weights.save(random_model(GROUPED), tmp_path / "model")


def changed(folder: Path, change) -> None:
    """Apply `change` to the tensors of the folder's only weight file."""
    tensors = load_file(folder / weights.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / weights.WEIGHTS)


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        weights.load(folder)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_tensor(folder):
    changed(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    refused(folder, "holds 20 tensors", "asks for 21", "missing: model.layers.1.mlp.up_proj.weight")


def test_unknown_tensor(folder):
    changed(folder, lambda tensors: tensors.update({"model.layers.0.extra": torch.zeros(1)}))
    refused(folder, "holds 22 tensors", "asks for 21", "unknown: model.layers.0.extra")


def test_fewer_layers_in_the_config(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    refused(folder, "(1 layers)", "holds 21 tensors", "asks for 12", "and 6 more")


def test_wrong_shape(folder):
    changed(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(63)}))
    refused(folder, "model.norm.weight", "[63]", "[64]")


def test_another_type_of_number(folder):
    changed(
        folder, lambda tensors: tensors.update({k: v.to(torch.int8) for k, v in tensors.items()})
    )
    refused(folder, "I8", "F32, BF16, F16")


def test_mixed_types_need_a_choice(folder):
    changed(
        folder,
        lambda tensors: tensors.update({"model.norm.weight": torch.ones(64, dtype=torch.bfloat16)}),
    )
    refused(folder, "BF16, F32", "dtype=")
    assert weights.load(folder, dtype=torch.float32).norm.weight.sum() == 64


@pytest.mark.parametrize("keep", [0, 5, 300, -1000, -1])
def test_truncated(folder, keep):
    path = folder / weights.WEIGHTS
    content = path.read_bytes()[:keep] if keep else b""
    stated = path.stat().st_size
    path.write_bytes(content)
    refused(folder, str(path), f"{len(content)} bytes", str(stated) if keep < 0 else "header")


def test_header_that_is_no_header(folder):
    for header in (b"[1, 2]", b"{nonsense", b'{"a": {"dtype": "F32"}}'):
        (folder / weights.WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
        refused(folder, "no readable safetensors header")


def test_missing_files(folder, tmp_path):
    (folder / weights.WEIGHTS).rename(tmp_path / "away")
    refused(folder, "has no model.safetensors")
    (folder / weights.INDEX).write_text(
        json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
    )
    refused(folder, "has no model-00001-of-00002.safetensors")
    (folder / "config.json").unlink()
    refused(folder, "has no config.json")
    (folder / "config.json").write_text("{")
    refused(folder, "config.json is no JSON")


def test_heads_that_do_not_divide(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 3}))
    refused(folder, "heads is 4 and kv_heads is 3")


def test_tied_file_with_the_matrix_twice(tmp_path):
    folder = weights.save(random_model(replace(GROUPED, tie_embeddings=True)), tmp_path / "m")
    embedding = load_file(folder / weights.WEIGHTS)["model.embed_tokens.weight"]
    changed(folder, lambda tensors: tensors.update({"lm_head.weight": embedding.clone()}))
    assert torch.equal(weights.load(folder).output_weight, embedding)
    changed(folder, lambda tensors: tensors.update({"lm_head.weight": embedding + 1}))
    refused(folder, "lm_head.weight", "tie_word_embeddings")


def test_existing_folder_is_kept_unless_told(folder):
    model = random_model(GROUPED, seed=9)
    with pytest.raises(UserError, match="exists"):
        weights.save(model, folder)
    weights.save(model, folder, overwrite=True)
    assert torch.equal(weights.load(folder).norm.weight, model.norm.weight)
    assert [path.name for path in folder.parent.iterdir() if "model" in path.name] == ["model"]


def test_a_kill_leaves_the_previous_folder_whole(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code = (
        "import os, signal, sys\n"
        "from smml.llama.folder import whole_folder\n"
        "with whole_folder(sys.argv[1], overwrite=True) as partial:\n"
        "    (partial / 'config.json').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, folder]).returncode == -9
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_error_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(UserError, match="No space left on device"):
        weights.save(random_model(GROUPED), tmp_path / "new" / "m")
    assert list((tmp_path / "new").iterdir()) == []


def test_interrupted_between_the_two_renames(folder):
    folder.rename(folder.with_name(".model.previous"))
    refused(folder, "was being replaced", ".model.previous")
    with whole_folder(folder) as partial:
        (partial / "new").touch()
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert not folder.with_name(".model.previous").exists()


def test_tokenizer_of_another_size_is_refused(folder, tmp_path):
    tokenizer = Tokenizer.train(["some text, some more text"], 262)
    small = replace(GROUPED, vocab_size=261)
    with pytest.raises(UserError, match="has 262 tokens and the config's vocab_size is 261"):
        weights.save(random_model(small), tmp_path / "m", tokenizer=tokenizer)
    assert not (tmp_path / "m").exists()
    tokenizer.save(folder, 64)
    with pytest.raises(UserError, match="has 262 tokens and the config's vocab_size is 131"):
        Tokenizer.load(folder)


def test_loaded_model_is_the_files_and_nothing_else(folder):
    loaded = weights.load(folder)
    assert isinstance(loaded.config, LlamaConfig)
    tokens = random_tokens(GROUPED, 2, 6)
    expected = loaded(tokens)
    shutil.rmtree(folder)
    assert torch.equal(loaded(tokens), expected)
