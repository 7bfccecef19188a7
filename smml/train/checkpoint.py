"""Everything a run needs to go on where it was, in one folder a step that is whole or not there."""

import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from smml.errors import UserError
from smml.llama import weights
from smml.llama.config import LlamaConfig
from smml.llama.folder import read_json, whole_folder, write_json
from smml.llama.model import Llama
from smml.llama.tokenizer import Tokenizer
from smml.train.config import FREE, TrainConfig
from smml.train.data import Data

MODEL, OPTIMIZER, STATE = "model", "optimizer.safetensors", "state.json"
NAME = re.compile(r"step-\d{8}")


def identity(
    config: TrainConfig, shape: LlamaConfig, data: Data, dtype: torch.dtype
) -> dict[str, Any]:
    """What must be the same for the loss curve to go on: fields of the run and the model, and the tokens."""
    fields = {
        name: value for name, value in config.model_dump(mode="json").items() if name not in FREE
    }
    fields["micro_batch_size"] = config.micro_batch
    fields["dtype"] = str(dtype).removeprefix("torch.")
    fields |= {f"model.{name}": value for name, value in asdict(shape).items()}
    fields["model.eos_token_ids"] = list(shape.eos_token_ids)
    return fields | {"training text": data.train.fingerprint[:16]}


def save(
    folder: Path,
    step: int,
    position: int,
    model: Llama,
    optimizer: torch.optim.Optimizer,
    tokenizer: Tokenizer,
    same: dict[str, Any],
    keep: int,
) -> Path:
    """Write folder/step-NNNNNNNN, then remove all but the newest `keep`; its part `model` is a Hugging Face folder.

    `position` is that of the data, `same` the run's `identity`. A kill leaves the earlier checkpoints whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover)  # of a writer that was killed
    target = folder / f"step-{step:08d}"
    with whole_folder(target) as partial:
        weights.save(model, partial / MODEL, tokenizer=tokenizer)
        tensors = _optimizer_tensors(model, optimizer) | {"rng.cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        try:
            save_file(
                {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
                partial / OPTIMIZER,
            )
        except SafetensorError as error:
            raise UserError(
                f"cannot write {target}: {error}. Free space or choose another --out."
            ) from error
        write_json(partial / STATE, {"step": step, "position": position, "identity": same})
    for old in steps(folder)[:-keep]:
        shutil.rmtree(
            old.rename(old.with_name(f".{old.name}"))
        )  # renamed first: half a checkpoint is none
    return target


def steps(folder: Path) -> list[Path]:
    """Checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if NAME.fullmatch(path.name))


def read_state(checkpoint: Path, same: dict[str, Any]) -> tuple[int, int]:
    """Step and data position of a checkpoint; UserError names the first field in which it is of another run."""
    state = read_json(checkpoint / STATE)
    found = state["identity"]
    for name in {**same, **found}:
        if same.get(name) != found.get(name):
            raise UserError(
                f"{checkpoint} was made with {name} = {found.get(name)!r} and this run has {same.get(name)!r}: "
                "set it back, or start anew with another --out."
            )
    return state["step"], state["position"]


def load_model(checkpoint: Path, device: torch.device) -> Llama:
    """The checkpoint's model in float32."""
    return weights.load(checkpoint / MODEL, device=device, dtype=torch.float32)


def load_optimizer(checkpoint: Path, model: Llama, optimizer: torch.optim.Optimizer) -> None:
    """Put moments and random state back; UserError where the file does not hold them all."""
    weights.read_header(checkpoint / OPTIMIZER)
    with safe_open(checkpoint / OPTIMIZER, framework="pt") as file:
        names = set(file.keys())
        for name, parameter in model.named_parameters():
            wanted = {kind: f"{kind}.{name}" for kind in ("step", "exp_avg", "exp_avg_sq")}
            if missing := set(wanted.values()) - names:
                raise UserError(
                    f"{checkpoint} has no {min(missing)}: it is damaged. Remove it; the one before is used."
                )
            optimizer.state[parameter] = {
                kind: file.get_tensor(key).to(parameter.device) for kind, key in wanted.items()
            }
        torch.set_rng_state(file.get_tensor("rng.cpu"))
        if "rng.cuda" in names and torch.cuda.is_available():
            torch.cuda.set_rng_state(file.get_tensor("rng.cuda"))


def _optimizer_tensors(model: Llama, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{kind}.{name}": tensor
        for name, parameter in model.named_parameters()
        for kind, tensor in optimizer.state[parameter].items()
    }
