"""The trained model as a folder to hand on: Hugging Face files, the run's record, and a card rendered from it."""

import math
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from smml.errors import UserError
from smml.llama import counts, weights
from smml.llama.folder import read_json, whole_folder, write_json
from smml.train.config import TOPICS
from smml.train.loop import Run

RECORD, CARD = "training.json", "README.md"
LAST = 50  # steps whose mean stands for the training loss at the end


def record(run: Run, command: str, device_name: str) -> dict[str, Any]:
    """What was done and what came of it, as plain values."""
    config, shape = run.config, run.model.config
    last = [run.losses[step] for step in sorted(run.losses)[-LAST:]]
    return {
        "command": command,
        "config": config.model_dump(
            mode="json", exclude={"out", "export", "resume", "overwrite", "device"}
        ),
        "parameters": counts.parameters(shape).total,
        "tokens_trained": config.steps * config.step_tokens,
        "epochs": config.steps * config.step_tokens / run.data.train.count,
        "training_text": _text(run.data.train),
        "held_out_text": _text(run.data.held_out) if run.data.held_out else None,
        "train": {"loss": fmean(last), "perplexity": math.exp(fmean(last)), "steps": len(last)},
        "held_out": run.held_out.as_dict() if run.held_out else None,
        "dtype": str(run.dtype).removeprefix("torch."),
        "seconds": round(run.seconds, 1),
        "device": device_name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "date": datetime.now(UTC).date().isoformat(),
    }


def export(run: Run, record: dict[str, Any]) -> Path:
    """Write model, tokenizer, record and card, whole or not at all; UserError rather than replace another folder."""
    folder = run.config.export_folder
    if folder.exists() and not (folder / "config.json").exists():
        raise UserError(f"{folder} exists and holds no model: give --export another folder.")
    with whole_folder(folder, overwrite=True) as partial:
        weights.save(run.model, partial, tokenizer=run.data.tokenizer, overwrite=True)
        write_json(partial / RECORD, record)
        (partial / CARD).write_text(render(record), encoding="utf-8")
    return folder


def render(record: dict[str, Any]) -> str:
    """The card as Markdown; every figure is the record's."""
    config, train, held_out = record["config"], record["train"], record["held_out"]
    origin = (
        f"fine-tuned from `{config['init']}`" if config["init"] else "trained from random weights"
    )
    text = (
        "`pydoc_data.topics`, the reference that every Python ships"
        if TOPICS in config["data"]
        else ""
    )
    text = text or ", ".join(f"`{Path(path).name}`" for path in config["data"])
    rows = [
        f"| training text, mean of the last {train['steps']} steps | {train['loss']:.4f} | {train['perplexity']:.2f} | |"
    ]
    if held_out:
        rows.append(
            f"| held-out text, {held_out['tokens']:,} tokens | {held_out['loss']:.4f} | "
            f"{held_out['perplexity']:.2f} | {held_out['bits_per_byte']:.3f} |"
        )
    lines = [
        "# " + (config["model"] or Path(config["init"]).name),
        "",
        f"A Llama of {record['parameters']:,} parameters, {origin} on {text}. To learn with, not to rely on.",
        "",
        "```sh",
        record["command"],
        "```",
        "",
        "| | loss (nats a token) | perplexity | bits per byte |",
        "|---|---|---|---|",
        *rows,
        "",
        f"- Seed {config['seed']}, {config['steps']} steps of {config['batch_size']} × {config['sequence_length']} "
        f"tokens: {record['tokens_trained']:,} tokens, {record['epochs']:.1f} passes over the training text.",
        f"- {record['seconds']:.0f} s on {record['device']}, {record['threads']} threads, {record['dtype']}.",
        f"- Python {record['python']}, torch {record['torch']}, {record['date']}.",
        f"- Training text: {record['training_text']['bytes']:,} bytes, {record['training_text']['tokens']:,} tokens, "
        f"sha256 of text and tokenizer `{record['training_text']['fingerprint'][:16]}…`.",
        "- The same seed gives the same order of data everywhere and the same losses, bit for bit, on the same CPU "
        "type, thread count and torch; elsewhere they agree within rounding.",
        "- The number of steps and the weight decay were chosen on this same held-out text, so that its perplexity "
        "flatters the model a little.",
        f"- Every figure above stands in `{RECORD}`, written by the same run.",
    ]
    return "\n".join(lines) + "\n"


def load_record(folder: Path | str) -> dict[str, Any]:
    """The record of a folder that `export` wrote."""
    return read_json(Path(folder) / RECORD)


def command_line(arguments: list[str] | None = None) -> str:
    """The command that this process was started with, as a reader types it."""
    return " ".join(["python -m smml.train", *(sys.argv[1:] if arguments is None else arguments)])


def _text(tokens) -> dict[str, Any]:
    return {"bytes": tokens.text_bytes, "tokens": tokens.count, "fingerprint": tokens.fingerprint}
