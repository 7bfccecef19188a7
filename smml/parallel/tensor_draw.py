"""The matrices of one tensor-parallel layer as a picture: which rank holds which rows or columns."""

from typing import TYPE_CHECKING

from smml import plot
from smml.llama.config import LlamaConfig

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MATRICES = {
    "attention.qkv": ("q", "k", "v"),
    "attention.output": ("",),
    "feed_forward.gate_up": ("gate", "up"),
    "feed_forward.down": ("",),
}


def draw(config: LlamaConfig, ranks: int) -> "Figure":
    """Every weight [out, in] of a layer as a square, row 0 on top, with the rank that holds each piece."""
    from matplotlib import pyplot

    figure, all_axes = pyplot.subplots(1, 4, figsize=(9.0, 3.4), dpi=100, layout="constrained")
    pyplot.close(figure)  # else a notebook shows it twice
    for axis, (name, blocks) in zip(all_axes, MATRICES.items(), strict=True):
        _matrix(axis, config, name, blocks, ranks)
    return figure


def _matrix(
    axis: "Axes", config: LlamaConfig, name: str, blocks: tuple[str, ...], ranks: int
) -> None:
    from matplotlib.patches import Rectangle

    from smml.llama.model import Llama
    from smml.parallel.tensor_cut import cut

    whole = Llama(config, device="meta").get_parameter(f"layers.0.{name}.weight")
    height, width = whole.shape
    how = cut(f"layers.0.{name}.weight", config)
    start = 0
    for block, size in zip(blocks, how.blocks, strict=True):
        step = size / ranks
        for rank in range(ranks):
            low = start + rank * step
            corner, box = ((0, low), (width, step)) if how.dim == 0 else ((low, 0), (step, height))
            color = plot.COLORS[rank % len(plot.COLORS)]
            axis.add_patch(Rectangle(corner, *box, facecolor=color, alpha=0.3, edgecolor="black"))
            middle = (corner[0] + box[0] / 2, corner[1] + box[1] / 2)
            axis.text(*middle, str(rank), ha="center", va="center", fontsize=9)
        if block:
            axis.text(-0.03 * width, start + size / 2, block, ha="right", va="center", fontsize=11)
        start += size
    axis.set_title(f"{name}\n{height} × {width}", fontsize=10)
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.set_xlabel("rows cut" if how.dim == 0 else "columns cut", fontsize=10)
