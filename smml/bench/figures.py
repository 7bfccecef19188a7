"""The figures that kernels and strategies are to reach, read from records alone: asked, reached, by which record."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from smml import plot
from smml.measure import Record


@dataclass(frozen=True)
class Figure:
    """One figure: `pattern` names its records (as a file pattern), `of` the number of them, `asked` the bound.

    Of several records that fit, the one farthest from what is asked counts.
    """

    name: str
    pattern: str
    asked: float
    of: Literal["value", "share_of_measured", "share_of_physical", "error"] = "value"
    at_most: bool = False


@dataclass(frozen=True)
class Reached:
    """A figure and the record that decides it; `record` is None where none was measured."""

    figure: Figure
    record: Record | None

    @property
    def value(self) -> float | None:
        """The number of the deciding record; None where it was not measured."""
        return None if self.record is None else getattr(self.record, self.figure.of)

    @property
    def verdict(self) -> Literal["reached", "short", "not measured"]:
        """Whether the figure is reached."""
        if self.value is None:
            return "not measured"
        within = (
            self.value <= self.figure.asked
            if self.figure.at_most
            else self.value >= self.figure.asked
        )
        return "reached" if within else "short"


KERNELS = (
    Figure(
        "bf16 GEMM ÷ torch.matmul, Llama shapes", "gemm-llama/geomean/smml-to-torch/bfloat16", 1.0
    ),
    Figure("fp8 GEMM ÷ _scaled_mm, Llama shapes", "matmul-fp8/mean/*/smml-to-scaled_mm", 1.0),
    *(
        Figure(f"{name} {way} ÷ copy", f"fused/{operation}/{way}/*/smml-to-copy/bfloat16", asked)
        for way, asked in (("forward", 0.97), ("backward", 0.85))
        for operation, name in (
            ("rms_norm", "RMSNorm"),
            ("add_rms_norm", "add + RMSNorm"),
            ("rope", "RoPE"),
            ("swiglu", "SwiGLU"),
        )
    ),
    Figure("cross-entropy ÷ compiled", "cross_entropy/*x128256/smml-to-compiled/bfloat16", 1.7),
    Figure("linear cross-entropy ÷ Liger", "linear_cross_entropy/*/smml-to-liger/bfloat16", 1.3),
    Figure(
        "linear cross-entropy, memory of unfused",
        "linear_cross_entropy-memory/*/smml-of-torch/bfloat16",
        0.25,
        at_most=True,
    ),
    Figure("attention forward ÷ cuDNN", "attention/d128-*k/forward/smml-to-cudnn/bfloat16", 0.95),
    Figure("attention backward ÷ cuDNN", "attention/d128-*k/backward/smml-to-cudnn/bfloat16", 0.80),
    Figure(
        "split-KV decode, share of bandwidth",
        "decode-attention/*/tokens-32768/smml/bfloat16",
        0.80,
        "share_of_measured",
    ),
    Figure("int8 product ÷ bf16, batch ≤ 16", "quant/int8/*/rows-*/smml-to-torch/bfloat16", 1.8),
    Figure("int4 product ÷ bf16, batch ≤ 16", "quant/int4/*/rows-*/smml-to-torch/bfloat16", 3.0),
    Figure("Llama-1B step, MFU", "llama-step/smml/bfloat16", 0.55, "share_of_physical"),
    Figure("Llama-1B step ÷ compiled", "llama-step/smml-to-compiled/bfloat16", 1.05),
    Figure(
        "Llama-1B decode, share of bandwidth",
        "llama-decode/1B/batch-1/smml/bfloat16",
        0.70,
        "share_of_measured",
    ),
    Figure(
        "Llama-8B decode, share of bandwidth",
        "llama-decode/8B/batch-1/smml/bfloat16",
        0.85,
        "share_of_measured",
    ),
)

DEVICES = (
    Figure("data parallel ÷ DDP, speed", "data-parallel/ranks-*/micro-1/smml-to-torch", 1.0),
    Figure("two ranks ÷ one, tokens/s", "data-parallel/ranks-2-to-1", 1.75),
    Figure("ZeRO-3 ÷ FSDP2, speed", "zero/ranks-*/zero-3-to-torch-fsdp2", 1 / 1.05),
    Figure("tensor parallel ÷ DTensor, speed", "tensor-parallel/*/tensor-to-torch-*", 1 / 0.90),
    *(
        Figure(
            f"α–β at 1 MiB and more, {ranks} ranks, error",
            f"collective/*/hand/ranks-{ranks}/bytes-1??????*",
            0.10,
            "error",
            at_most=True,
        )
        for ranks in (2, 4)
    ),
    Figure("pipeline bubble, error", "pipeline/bubble/*", 0.10, "error", at_most=True),
)
COSTS = (
    *(
        Figure(
            f"planner, {kind}, {which} error (%)",
            f"plan/error/calibration/{name}/{which}",
            asked,
            at_most=True,
        )
        for kind, name, which, asked in (
            ("step time", "step-time", "mean", 4),
            ("step time", "step-time", "largest", 9),
            ("activations", "activations", "largest", 2),
            ("total memory", "total-memory", "largest", 5),
        )
    ),
    Figure("planner, 10,000 layouts (s)", "plan/search/seconds", 2, at_most=True),
    Figure("goodput at Llama 3's failure rate (%)", "plan/goodput/llama-3", 90),
    *(
        Figure(f"{what}, simulated ÷ closed form, {bound}", pattern, asked, at_most=asked > 1)
        for what, pattern in (
            ("goodput", "plan/goodput/simulated-to-closed-form"),
            ("cost on spot", "spot/cost/simulated-to-closed-form/*"),
            ("wait in a queue", "queue/wait/simulated-to-closed-form/*"),
        )
        for bound, asked in (("least", 0.98), ("most", 1.02))
    ),
    Figure("10,000 runs on spot (s)", "spot/simulated-runs/seconds", 5, at_most=True),
)
FIGURES = KERNELS + DEVICES + COSTS


def judge(records: Iterable[Record], figures: Sequence[Figure] = FIGURES) -> list[Reached]:
    """Every figure with the record that decides it, out of the records of one machine."""
    known = list(records)
    return [Reached(figure, _deciding(figure, known)) for figure in figures]


def _deciding(figure: Figure, records: Sequence[Record]) -> Record | None:
    fitting = [
        r
        for r in records
        if fnmatchcase(r.name, figure.pattern) and getattr(r, figure.of) is not None
    ]
    if not fitting:
        return None
    pick = max if figure.at_most else min
    return pick(fitting, key=lambda r: getattr(r, figure.of))


def table(reached: Iterable[Reached]) -> str:
    """The figures as a Markdown table."""
    rows = ["| figure | asked | reached | verdict | record | date |", "|---|---|---|---|---|---|"]
    for item in reached:
        sign = "≤" if item.figure.at_most else "≥"
        value = "—" if item.value is None else f"{item.value:.3g}"
        name, date = (
            ("—", "—")
            if item.record is None
            else (item.record.name, f"{item.record.date:%Y-%m-%d}")
        )
        rows.append(
            f"| {item.figure.name} | {sign} {item.figure.asked:.3g} | {value} | {item.verdict} | {name} | {date} |"
        )
    return "\n".join(rows)


def plot_reached(reached: Iterable[Reached], machine: str, path: Path) -> str:
    """Draw reached ÷ asked of every measured figure into `path`; returns what was drawn, or that nothing was."""
    shares = {
        item.figure.name: item.figure.asked / item.value
        if item.figure.at_most
        else item.value / item.figure.asked
        for item in reached
        if item.value is not None
    }
    if not shares:
        return f"no picture: {machine} has measured none of these figures"
    plot.bars(shares, "× asked", f"Reached ÷ asked: {machine}").savefig(path, bbox_inches="tight")
    return f"{path}: {len(shares)} figures of {machine}"
