"""`smml plan`: its arguments, and from them the cluster, the job and what is known of the layout."""

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
    sequence_length: Annotated[
        int | None, typer.Option(help="Tokens; default 8192, or all learned positions of a GPT.")
    ] = None,
    global_batch_size: Annotated[
        int | None, typer.Option(help="Sequences a step; default about 4M tokens.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="bf16, fp16 or fp8.")] = "bf16",
    engine: Annotated[str, typer.Option(help="eager, fused or compiled.")] = "compiled",
    attention: Annotated[str, typer.Option(help="unfused, flash1, flash or flash3.")] = "flash",
    compiled_loss: bool = False,
    tensor_parallel: int | None = None,
    pipeline_parallel: int | None = None,
    context_parallel: int | None = None,
    expert_parallel: int | None = None,
    micro_batch_size: int | None = None,
    interleave: int | None = None,
    zero_stage: int | None = None,
    recompute: Annotated[str | None, typer.Option(help="none, selective or full.")] = None,
    memory_limit_gib: float | None = None,
    network: Annotated[str | None, typer.Option(help="infiniband, efa or ethernet.")] = None,
    network_gbit_per_s: Annotated[float | None, typer.Option(help="An accelerator.")] = None,
    gpus_per_node: int | None = None,
    tokens: Annotated[
        float | None, typer.Option(help="Of the whole run; default Chinchilla's optimum.")
    ] = None,
    price_usd_per_gpu_hour: float | None = None,
    gpu_hours_between_failures: Annotated[
        float | None, typer.Option(help="Of one device; default Llama 3's published rate.")
    ] = None,
    storage_bytes_per_s: Annotated[
        float | None, typer.Option(help="Of all ranks that write a checkpoint together.")
    ] = None,
    detection_s: float | None = None,
    restart_s: float | None = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Also write charter, architecture, schedule and cost into this folder."),
    ] = None,
    errors: Annotated[
        bool, typer.Option(help="Each calibration row: measured, predicted, error.")
    ] = False,
    rows: Annotated[
        Path | None,
        typer.Option(
            help="With --errors: a folder of other published runs, CSV files of the same columns."
        ),
    ] = None,
    others: Annotated[
        bool,
        typer.Option(
            help="With --errors: other packaged runs; on half of them terms were developed."
        ),
    ] = False,
) -> None:
    """Predict a training: memory, step time, cost, goodput; layout fields left out are searched."""
    from smml.plan import planning, report as words
    from smml.plan.amounts import GIB
    from smml.plan.calibration import FITTED, OTHERS, errors_text
    from smml.plan.cluster import cluster
    from smml.plan.layout import Job, Layout
    from smml.plan.pages import folder
    from smml.plan.shape import named_shape

    if errors:
        print(errors_text(rows or (OTHERS if others else FITTED)))
        return
    if report is not None:
        folder.refuse_foreign(report)
    shape = named_shape(model)
    place = cluster(
        accelerator,
        gpus,
        network=network,
        network_gbit_per_s=network_gbit_per_s,
        gpus_per_node=gpus_per_node,
        price_usd_per_gpu_hour=price_usd_per_gpu_hour,
    )
    if sequence_length is None:
        sequence_length = min(8192, shape.learned_positions or 8192)
    if global_batch_size is None:
        global_batch_size = planning.usual_batch(gpus, sequence_length)
    job = Job(shape, sequence_length, global_batch_size, dtype, engine, attention, compiled_loss)
    asked = {
        "tensor_parallel": tensor_parallel,
        "pipeline_parallel": pipeline_parallel,
        "context_parallel": context_parallel,
        "expert_parallel": expert_parallel,
        "micro_batch_size": micro_batch_size,
        "interleave": interleave,
        "zero_stage": zero_stage,
        "recompute": recompute,
    }
    Layout(**{name: value for name, value in asked.items() if value is not None})  # fields checked
    failures = {
        "gpu_hours_between_failures": gpu_hours_between_failures,
        "storage_bytes_per_s": storage_bytes_per_s,
        "detection_s": detection_s,
        "restart_s": restart_s,
    }
    made = planning.make(
        place,
        job,
        None if None in asked.values() else planning.whole_layout(gpus, asked),
        fixed=asked,
        memory_limit_bytes=None if memory_limit_gib is None else memory_limit_gib * GIB,
        tokens=tokens,
        failures=planning.Failures(**{k: v for k, v in failures.items() if v is not None}),
    )
    index = None if report is None else folder.write(made, report)
    print(words.text(made))
    if index is not None:
        print(f"\nreport  {index}")
