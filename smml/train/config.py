"""What fixes a training run: one typed configuration, from a preset or TOML file and the command line."""

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from smml import paths
from smml.errors import UserError

TOPICS = "topics"  # the text that every Python ships, in place of files


class TrainConfig(BaseModel):
    """One run. Raises UserError through `read`, naming field and values, for one that cannot be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(
        None, description="shape by name (smml.llama.config.CONFIGS), random weights"
    )
    init: Path | None = Field(
        None, description="Hugging Face folder to fine-tune, instead of model"
    )
    data: tuple[str, ...] = Field(
        (), description="text or JSONL files, or the word topics: Python's own"
    )
    held_out: tuple[str, ...] = Field(
        (), description="files to evaluate on; none: the end of each data file"
    )
    held_out_share: float = Field(
        0.05, ge=0, lt=1, description="share of each file to hold out; 0: none"
    )
    text_field: str = Field("text", description="the field of a JSONL line that holds its text")
    out: Path = Field(
        default_factory=lambda: paths.build() / "train" / "run",
        description="folder of the run: data, checkpoints, log, model (default train/NAME in build)",
    )
    export: Path | None = Field(
        None, description="where the trained model goes; none: model in out"
    )
    sequence_length: int = Field(128, ge=1, description="tokens a sequence")
    batch_size: int = Field(8, ge=1, description="sequences a step")
    micro_batch_size: int | None = Field(
        None, ge=1, description="sequences at once, gradients accumulate; none: all"
    )
    steps: int = Field(1000, ge=1, description="optimizer steps")
    learning_rate: float = Field(3e-3, gt=0, description="highest rate, after the warm-up")
    final_learning_rate_share: float = Field(
        0.1, ge=0, le=1, description="rate at the end ÷ highest rate"
    )
    warmup_steps: int = Field(50, ge=0, description="steps of linear warm-up; cosine decay follows")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's decay, on matrices only")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's decay of the first moment")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW's decay of the second moment")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the whole gradient")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="autocast; auto: bfloat16 where the hardware gains"
    )
    activation_checkpointing: bool = Field(
        False, description="keep a layer's input only, compute the rest again"
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N"
    )
    seed: int = Field(0, ge=0, description="of the weights and of the order of the data")
    log_every: int = Field(20, ge=1, description="steps between progress lines")
    evaluate_every: int = Field(
        200, ge=1, description="steps between evaluations on the held-out text"
    )
    checkpoint_every: int = Field(
        200, ge=1, description="steps between checkpoints; there is one at the end"
    )
    keep_checkpoints: int = Field(2, ge=1, description="checkpoints that are kept, the newest")
    resume: bool = Field(
        False, description="go on from the newest checkpoint in out, or start if none"
    )
    overwrite: bool = Field(False, description="start anew over the run that out holds")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.model is None) == (self.init is None):
            raise ValueError(f"model is {self.model} and init is {self.init}: give one of the two")
        if self.init and self.export_folder.absolute() == self.init.absolute():
            raise ValueError(f"init and export are both {self.init}: give export another folder")
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite are both true: give one of the two")
        if not self.data:
            raise ValueError(f"data is empty: give text or JSONL files, or {TOPICS}")
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"batch_size is {self.batch_size} and micro_batch_size is {self.micro_batch_size}: "
                "the first must be a multiple of the second"
            )
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps} and steps is {self.steps}: warm up for fewer steps"
            )
        return self

    @property
    def micro_batch(self) -> int:
        """Sequences that go through the model at once."""
        return self.micro_batch_size or self.batch_size

    @property
    def step_tokens(self) -> int:
        """Tokens of one optimizer step."""
        return self.batch_size * self.sequence_length

    @property
    def export_folder(self) -> Path:
        """Where the trained model is written."""
        return self.export or self.out / "model"


# The commands that the repository's own models were made with: python -m smml.train NAME.
PRESETS: dict[str, dict[str, Any]] = {
    # Twice as many passes over a hundred thousand tokens were tried: the held-out loss rose again after nine.
    "tiny": {
        "model": "tiny",
        "data": (TOPICS,),
        "seed": 0,
        "steps": 800,
        "warmup_steps": 80,
        "sequence_length": 256,
        "batch_size": 4,
        "weight_decay": 0.5,
    },
}

# What may change between two parts of one run without changing its loss curve.
FREE = {
    *(
        "data",
        "held_out",
        "held_out_share",
        "text_field",
        "out",
        "export",
        "init",
        "model",
        "device",
        "resume",
        "overwrite",
    ),
    *("log_every", "evaluate_every", "checkpoint_every", "keep_checkpoints"),
}


def read(values: Mapping[str, Any]) -> TrainConfig:
    """Configuration from field values; UserError names the first field that is wrong and what it was given."""
    try:
        return TrainConfig.model_validate(dict(values))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            raise UserError(
                f"no field is called {where!r}: there are {', '.join(TrainConfig.model_fields)}."
            ) from error
        reason = problem["msg"].removeprefix("Value error, ")
        given = f"{where} is {problem['input']!r}: " if where else ""
        raise UserError(
            f"{given}{reason}; python -m smml.train --help lists every field."
        ) from error


def parse(arguments: Sequence[str]) -> TrainConfig:
    """Configuration of `python -m smml.train [PRESET | FILE.toml] [--field value …]`; the command line wins."""
    given = vars(_parser().parse_args(arguments))
    base = given.pop("base")
    values = {} if base is None else _base(base)
    return read(values | given)


def _base(base: str) -> dict[str, Any]:
    """Field values of a preset's name or of a TOML file."""
    if base in PRESETS:
        return {"out": paths.build() / "train" / base} | PRESETS[base]
    path = Path(base)
    if path.suffix != ".toml":
        raise UserError(
            f"{base!r} is neither a preset ({', '.join(PRESETS)}) nor a .toml file: give one of them."
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(
            f"cannot read {path}: {error}. Give a TOML file of fields such as steps = 100."
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m smml.train",
        description="Train a Llama on text, from random weights (--model) or from a Hugging Face folder (--init).",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "base",
        nargs="?",
        default=None,
        help=f"preset ({', '.join(PRESETS)}) or TOML file of the fields below",
    )
    for name, field in TrainConfig.model_fields.items():
        unsaid = field.default in (None, ()) or field.default_factory
        default = "" if unsaid else f" (default {field.default})"
        options: dict[str, Any] = {"help": f"{field.description}{default}".replace("%", "%%")}
        if field.annotation is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["metavar"] = "FILE" if get_origin(field.annotation) is tuple else "VALUE"
            if get_origin(field.annotation) is tuple:
                options["nargs"] = "+"
        parser.add_argument("--" + name.replace("_", "-"), dest=name, **options)
    return parser
