"""`smml plan`: the command's arguments, which are those of `command.run`."""

from pathlib import Path
from typing import Annotated

import typer


def plan(
    model: Annotated[
        str, typer.Argument(help="Model, such as llama-3.1-70b or gpt-175b.")
    ] = "llama-3.1-8b",
    gpus: Annotated[int, typer.Argument(help="Accelerators in all.")] = 8,
    accelerator: Annotated[
        str, typer.Option(help="h100, a100-40gb, 'h100, 500 W', or an EC2 type.")
    ] = "h100",
    sequence_length: int = 8192,
    global_batch_size: int | None = None,
    dtype: str = "bf16",
    engine: str = "compiled",
    attention: str = "flash",
    compiled_loss: bool = False,
    tensor_parallel: int | None = None,
    pipeline_parallel: int | None = None,
    context_parallel: int | None = None,
    expert_parallel: int | None = None,
    micro_batch_size: int | None = None,
    interleave: int | None = None,
    zero_stage: int | None = None,
    recompute: str | None = None,
    memory_limit_gib: float | None = None,
    network: str | None = None,
    network_gbit_per_s: float | None = None,
    gpus_per_node: int | None = None,
    tokens: float | None = None,
    price_usd_per_gpu_hour: float | None = None,
    errors: Annotated[
        bool, typer.Option(help="Each calibration row: measured, predicted, error.")
    ] = False,
    rows: Annotated[
        Path | None,
        typer.Option(
            help="With --errors: a folder of other published runs, CSV files of the same columns."
        ),
    ] = None,
) -> None:
    """Predict a training: memory, step time, cost, goodput; layout fields left out are searched."""
    options = dict(locals())
    asked, folder = options.pop("errors"), options.pop("rows")
    from smml.plan import command

    print(command.errors(folder) if asked else command.run(**options))
