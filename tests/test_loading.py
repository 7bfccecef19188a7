"""The loading bench: a folder written once, rates by state, records with a prediction; transformers' model without bars."""

from dataclasses import replace

import pytest
import torch
from made_setting import made_setting

from smml import paths
from smml.bench import Setting, loading
from smml.errors import UserError
from smml.llama import reference, weights
from smml.llama.config import CONFIGS
from smml.llama.folder import load_config
from smml.llama.model import Llama

TINY = CONFIGS["tiny"]


@pytest.fixture
def setting(monkeypatch) -> Setting:
    monkeypatch.setitem(loading.MODELS, "cpu", TINY)
    return made_setting()


def test_loading_is_predicted_from_bytes_and_recorded_for_each_state(setting):
    folder = loading.model_folder(setting, "float32")
    assert paths.build() in folder.parents
    rates = loading.read_rates(setting, folder)
    assert list(rates) == list(loading.STATES)
    assert min(rates.values()) > 0
    records, drift = loading.load(setting, folder, rates, fixed_s=2.0)
    size = (folder / "model.safetensors").stat().st_size
    assert drift >= 0
    for record, (state, rate) in zip(records, rates.items(), strict=True):
        assert record.inputs["bound"] == state
        assert record.bytes == size
        assert record.predicted == pytest.approx(size / (2.0 + size / rate))
        assert record.share_of_measured == pytest.approx(record.value / rate)


def test_the_tiny_model_says_what_loading_costs_beside_its_bytes(setting):
    assert loading.fixed_seconds(setting) > 0
    assert load_config(paths.build() / "models" / "random-cpu-tiny") == TINY


def test_a_folder_is_kept_until_another_shape_is_asked_for(setting, monkeypatch):
    folder = loading.model_folder(setting, "bfloat16")
    assert weights.load(folder).embedding.weight.dtype == torch.bfloat16
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert loading.model_folder(setting, "bfloat16") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    monkeypatch.setitem(loading.MODELS, "cpu", replace(TINY, layers=2))
    assert load_config(loading.model_folder(setting, "bfloat16")).layers == 2


def test_the_reference_equals_this_model_and_draws_no_bar(tmp_path, capfd):
    model = Llama(TINY, seed=3)
    weights.save(model, tmp_path / "model")
    theirs = reference.load(tmp_path / "model")
    tokens = torch.arange(2, 20)[None]
    with torch.inference_mode():
        torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=1e-5, atol=1e-5)
    assert capfd.readouterr().err == ""


def test_the_reference_looks_on_no_hub_for_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json"):
        reference.load(tmp_path / "meta-llama")
