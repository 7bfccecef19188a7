"""The architecture: nodes and links, the ranks drawn as a grid, memory of a rank, storage. Pure."""

from dataclasses import fields

from smml.plan.amounts import GIB, count, span
from smml.plan.pages.table import table
from smml.plan.planning import Plan

SHOWN = 4  # rows and columns of the grid at most; of more, the first ones and the last


def architecture(plan: Plan) -> str:
    """The page as Markdown; it refers to memory.svg and step.svg beside it."""
    return "\n\n".join(
        (
            f"# Architecture: {plan.step.layout}",
            "## Nodes and network",
            _nodes(plan),
            "## Ranks",
            _meaning(plan),
            grid(plan),
            "## Memory of the fullest rank",
            "![Memory by kind](memory.svg)",
            _memory(plan),
            "## A step",
            "![Seconds by part](step.svg)",
            _step(plan),
            "## Storage",
            _storage(plan),
        )
    )


def _nodes(plan: Plan) -> str:
    place = plan.step.cluster
    rows = [
        ("nodes", f"{place.nodes:,} of {place.gpus_per_node} × {place.accelerator.name}"),
        ("inside a node", _link(place.inside)),
    ]
    if place.nodes > 1:
        rows.append(("between nodes, an accelerator", _link(place.between)))
    if place.power_w is not None:
        rows.append(
            (
                "power of the boards",
                f"{place.power_w:g} W each, {place.gpus * place.power_w / 1e3:,.1f} kW in all",
            )
        )
    if place.billed_gpus > place.gpus:
        rows.append(("paid for and idle", f"{place.billed_gpus - place.gpus} accelerators"))
    return table(("", ""), rows)


def _link(link) -> str:
    return (
        f"{link.kind}, {link.bandwidth_bytes_per_s / 1e9:.1f} GB/s one way as collectives get it, "
        f"{link.latency_s * 1e6:.3g} µs a message"
    )


def _meaning(plan: Plan) -> str:
    layout, job = plan.step.layout, plan.step.job
    sharded = ("nothing", "the optimizer", "optimizer and gradients", "all state")[
        layout.zero_stage
    ]
    rows = [
        ("data", layout.data_parallel, "each has other sequences"),
        ("tensor", layout.tensor_parallel, "each has a part of every matrix"),
        ("pipeline", layout.pipeline_parallel, "each has other layers"),
        ("context", layout.context_parallel, "each has a part of every sequence"),
        ("expert", layout.expert_parallel, "each has other experts, along data and context"),
    ]
    return (
        table(("parallel", "ranks", ""), [(name, f"{n:,}", why) for name, n, why in rows])
        + f"\n\nZeRO {layout.zero_stage}: {sharded} shared among {layout.shards:,} ranks. {layout.micro_batches(job):,} "
        f"micro-batches of {layout.micro_batch_size} a step, {layout.interleave} model chunks a stage, recompute "
        f"{layout.recompute}. In a cell: the ranks of a tensor-parallel group, and the node that they are in."
    )


def grid(plan: Plan) -> str:
    """Stages of the pipeline down, replicas (data × context) across; in each cell the ranks that cut matrices."""
    layout, place = plan.step.layout, plan.step.cluster
    t, c, d = layout.tensor_parallel, layout.context_parallel, layout.data_parallel
    stages, replicas = _some(layout.pipeline_parallel), _some(d * c)
    headers = ["layers"]
    for replica in replicas:
        if replica is None:
            headers.append("…")
        else:
            headers.append(f"data {replica // c}" + (f", context {replica % c}" if c > 1 else ""))
    rows = []
    for stage in stages:
        if stage is None:
            rows.append(["…"] * len(headers))
            continue
        cells = [_layers(plan, stage)]
        for replica in replicas:
            if replica is None:
                cells.append("…")
                continue
            first = (stage * d * c + replica) * t
            nodes = sorted({rank // place.gpus_per_node for rank in (first, first + t - 1)})
            ranks = str(first) if t == 1 else f"{first}–{first + t - 1}"
            cells.append(f"{ranks} (node {'–'.join(map(str, nodes))})")
        rows.append(cells)
    return table(headers, rows)


def _layers(plan: Plan, stage: int) -> str:
    layout, layers = plan.step.layout, plan.step.job.shape.layers
    held, p = layout.chunk_layers(plan.step.job.shape), layout.pipeline_parallel
    spans = []
    for chunk in range(layout.interleave):
        first = (chunk * p + stage) * held
        last = min(first + held, layers) - 1
        if first <= last:
            spans.append(str(first) if first == last else f"{first}–{last}")
    some = _some(len(spans))
    return ", ".join("…" if i is None else spans[i] for i in some) or "the ends"


def _some(number: int) -> list[int | None]:
    if number <= SHOWN:
        return list(range(number))
    return [*range(SHOWN - 1), None, number - 1]


def _memory(plan: Plan) -> str:
    held = plan.memory
    rows = [
        (f.name, f"{getattr(held, f.name) / GIB:.2f}", f"{getattr(held, f.name) / held.total:.1%}")
        for f in fields(held)
    ]
    rows.append(("all", f"{held.total / GIB:.2f}", f"{held.total / plan.limit_bytes:.1%} of limit"))
    return table(("what", "GiB", "share"), rows)


def _step(plan: Plan) -> str:
    done = plan.step
    parts = sorted(done.parts.items(), key=lambda item: -item[1])
    rows = [(name, span(s), f"{s / done.seconds:.1%}") for name, s in parts if s > 0]
    return table(("part", "time", "share"), [*rows, ("all", span(done.seconds), "")])


def _storage(plan: Plan) -> str:
    rows = [
        ("a checkpoint", f"{plan.checkpoint_bytes / 1e9:,.1f} GB"),
        (
            "storage that ranks write to together",
            f"{plan.failures.storage_bytes_per_s / 1e9:,.4g} GB/s",
        ),
        ("written in the whole run", f"{count(plan.checkpoints)} checkpoints"),
    ]
    return table(("", ""), rows)
