"""transformers' Llama with the weights of ours, as the peer of a measurement."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

    from smml.llama.model import Llama


def transformers_llama(model: "Llama") -> "LlamaForCausalLM":
    """A copy of the model as transformers computes it, through a Hugging Face folder, on the same device."""
    from smml.llama import reference, weights

    weight = model.embedding.weight
    with tempfile.TemporaryDirectory() as folder:
        weights.save(model, Path(folder) / "model")
        return reference.load(Path(folder) / "model").to(weight.device, weight.dtype)
