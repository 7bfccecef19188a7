"""The training loop: from a configuration to a trained model, through interruptions."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smml.errors import UserError
from smml.llama import counts, weights
from smml.llama.model import Llama
from smml.train import checkpoint
from smml.train.batches import Batches
from smml.train.config import TrainConfig
from smml.train.data import Data, model_config, prepare
from smml.train.evaluate import Evaluation, evaluate
from smml.train.log import RunLog, curve
from smml.train.optimizer import adamw, learning_rate
from smml.train.precision import Peak, choose_device, choose_dtype
from smml.train.progress import Meter, show
from smml.train.step import train_step


@dataclass(frozen=True)
class Run:
    """A finished run; `seconds` are of its last part where it was resumed, `held_out` is None without such text."""

    config: TrainConfig
    model: Llama
    data: Data
    losses: dict[int, float]
    held_out: Evaluation | None
    dtype: torch.dtype
    seconds: float


class Stopped(Exception):
    """The run was asked to stop; a checkpoint holds all `step` steps that it made.

    No evaluation comes before that checkpoint: time is short, so one that was due at this very step is left out.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step


def train(
    config: TrainConfig,
    *,
    dtype: torch.dtype | None = None,
    peak: Peak | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Train as configured; log, checkpoints and tokens go to `config.out`. `peak` is what speed is a share of.

    `dtype` is what "auto" came to, where the caller knows the ceilings. `stop` is asked after each step: once it says
    yes, a checkpoint is written and Stopped raised. Raises UserError for an `out` that holds a run already (without
    resume), and whatever data, model and checkpoint raise.
    """
    began = time.perf_counter()
    device = choose_device(config.device)
    dtype = dtype or choose_dtype(config.dtype, device)
    shape = model_config(config)
    folder = config.out / "checkpoints"
    found = checkpoint.steps(folder)
    if config.overwrite:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(config.out / "tensorboard", ignore_errors=True)
        found = []
    if found and not config.resume:
        raise UserError(
            f"{config.out} holds a run at {found[-1].name}: add --resume to go on, --overwrite to start anew, or give another --out."
        )
    data = prepare(config, shape)
    same = checkpoint.identity(config, shape, data, dtype)
    start, position = checkpoint.read_state(found[-1], same) if found else (0, 0)
    if found:
        model = checkpoint.load_model(found[-1], device)
    elif config.init:
        model = weights.load(config.init, device=device, dtype=torch.float32)
    else:
        model = Llama(shape, device=device, seed=config.seed)
    model.activation_checkpointing = config.activation_checkpointing
    optimizer = adamw(model, config)
    if found:
        checkpoint.load_optimizer(found[-1], model, optimizer)
    else:
        torch.manual_seed(config.seed)
    batches = Batches(data.train, config.sequence_length, config.batch_size, config.seed, position)
    flops = counts.training_flops(shape, config.batch_size, config.sequence_length)
    meter = Meter(config.step_tokens, flops, config.steps, start, peak, device)
    with RunLog(config.out, start) as log:
        held_out = _steps(
            config, model, optimizer, batches, data, same, start, dtype, meter, log, stop
        )
    losses = curve(config.out)
    return Run(config, model, data, losses, held_out, dtype, time.perf_counter() - began)


def _steps(
    config: TrainConfig,
    model: Llama,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    data: Data,
    same: dict[str, Any],
    start: int,
    dtype: torch.dtype,
    meter: Meter,
    log: RunLog,
    stop: Callable[[], bool],
) -> Evaluation | None:
    """Steps start … config.steps, in stretches between which something else is due; the last held-out evaluation."""

    def held_out() -> Evaluation | None:
        if data.held_out is None:
            return None
        return evaluate(model, data.held_out, config.sequence_length, config.micro_batch, dtype)

    every = (config.log_every, config.evaluate_every, config.checkpoint_every)
    stops = sorted(
        {start, config.steps, *(s for e in every for s in range(e, config.steps, e) if s > start)}
    )
    evaluation = held_out() if start == config.steps else None
    for first, planned in pairwise(stops):
        last = _stretch(config, model, optimizer, batches, first, planned, dtype, meter, log, stop)
        if last < config.steps and stop():
            log.flush()
            _save(config, last, batches, model, optimizer, data, same)
            raise Stopped(last)
        with meter.paused():
            if last % config.evaluate_every == 0 or last == config.steps:
                evaluation = held_out()
            if evaluation and (last % config.evaluate_every == 0 or last == config.steps):
                log.line(last, "held_out", evaluation.as_dict())
                show(
                    f"step {last}/{config.steps}  held-out loss {evaluation.loss:.4f}  "
                    f"perplexity {evaluation.perplexity:.2f}  {evaluation.bits_per_byte:.3f} bits/byte",
                    stays=True,
                )
            log.flush()
            if last % config.checkpoint_every == 0 or last == config.steps:
                _save(config, last, batches, model, optimizer, data, same)
    return evaluation


def _stretch(
    config: TrainConfig,
    model: Llama,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    first: int,
    last: int,
    dtype: torch.dtype,
    meter: Meter,
    log: RunLog,
    stop: Callable[[], bool],
) -> int:
    """Steps first … last − 1, without waiting for the device in between; then their lines in the log.

    Ends after the step during which `stop` came to say yes; returns the steps made since the run began.
    """
    device = meter.device
    results: list[tuple[Tensor, Tensor]] = []
    for step in range(first, last):
        rate = learning_rate(config, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = batches.next().to(device, non_blocking=True)
        results.append(
            train_step(
                model,
                optimizer,
                batch,
                micro_batch_size=config.micro_batch,
                clip_norm=config.clip_norm,
                dtype=dtype,
            )
        )
        if stop():
            last = step + 1
            break
    figures = torch.stack([torch.stack(pair) for pair in results]).tolist()  # waits for the device
    speed = meter.lap(last)
    for step, (loss, norm) in enumerate(figures, first + 1):
        values = {
            "loss": loss,
            "learning_rate": learning_rate(config, step - 1),
            "gradient_norm": norm,
        }
        log.line(step, "train", values)
    log.line(
        last,
        "speed",
        {
            "tokens_per_second": speed.tokens_per_second,
            "share_of_peak": speed.share,
            "peak": meter.peak.kind if meter.peak else None,
            "memory_bytes": speed.memory_bytes,
            "epoch": batches.epoch,
        },
    )
    if not all(loss < float("inf") for loss, _ in figures):
        raise UserError(
            f"the loss is no number after step {last}: lower --learning-rate (now {config.learning_rate}), "
            "or --resume from the last checkpoint with other data."
        )
    if last % config.log_every == 0 or last == config.steps:
        show(meter.text(last, figures[-1][0], speed), stays=False)
    return last


def _save(
    config: TrainConfig,
    step: int,
    batches: Batches,
    model: Llama,
    optimizer: torch.optim.Optimizer,
    data: Data,
    same: dict[str, Any],
) -> Path:
    return checkpoint.save(
        config.out / "checkpoints",
        step,
        batches.position,
        model,
        optimizer,
        data.tokenizer,
        same,
        config.keep_checkpoints,
    )
