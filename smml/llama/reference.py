"""transformers' own Llama from the same folder: what this package's is held against."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a second to import, and only needed where the two are compared
    from transformers import LlamaForCausalLM


def load(folder: Path | str) -> "LlamaForCausalLM":
    """transformers' model of a Hugging Face folder, on the CPU in float32, in evaluation mode; no progress bar.

    Raises UserError where the folder is not there: transformers would look for it on a hub.
    """
    import torch

    with warnings.catch_warnings():
        # tqdm warns in a notebook without widgets that it will draw its bars as text; none is drawn here.
        warnings.filterwarnings("ignore", message="IProgress not found")
        from transformers import LlamaForCausalLM
        from transformers.utils import logging

    from smml.llama.folder import load_config

    load_config(folder)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = LlamaForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    finally:
        if shown:
            logging.enable_progress_bar()
    return model.eval()
