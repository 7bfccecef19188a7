"""A small checkout and the build folder of a run on it, for the tests of the site."""

import base64
import io
import json
from datetime import UTC, datetime
from pathlib import Path

from smml.measure.record import MachineId, Record

README = """# A small cookbook

Two modules, three notebooks, [one figure](docs/figure.md).

## Run

`make run`. The code is in [the package](smml/code.py), results in [a folder](results/).
"""
MODULE_README = """# Getting started

What a model is, and the machine it runs on. Next: [hardware](../01_leveraging_hardware/).

## In practice

Read [the roofline](../01_leveraging_hardware/01_roofline.ipynb#count) first.
"""
SOLUTION = """<details>
<summary>Solution</summary>

```python
def flops(m, n, k):
    return 2 * m * n * k  # a multiply and an add
```

</details>"""
FINGERPRINT = "epyc-2c"


def plot_png() -> str:
    """A log–log line on white, as base64."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.loglog([0.1, 10, 100, 1000], [1.2e9, 1.2e11, 1.4e11, 1.4e11], label="roof")
    axes.loglog([0.25, 64], [2.6e9, 1.3e11], "s", label="measured")
    axes.set(xlabel="arithmetic intensity (FLOP/byte)", ylabel="FLOP/s")
    axes.legend()
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return base64.b64encode(out.getvalue()).decode()


def markdown(text: str, *tags: str) -> dict:
    return {"cell_type": "markdown", "id": "m", "metadata": {"tags": list(tags)}, "source": text}


def code(text: str, *tags: str, outputs: tuple[dict, ...] = ()) -> dict:
    return {
        "cell_type": "code",
        "id": "c",
        "metadata": {"tags": list(tags)},
        "execution_count": 1,
        "source": text,
        "outputs": list(outputs),
    }


def stream(text: str, name: str = "stdout") -> dict:
    return {"output_type": "stream", "name": name, "text": text}


def display(**data: str) -> dict:
    return {
        "output_type": "display_data",
        "data": {k.replace("_", "/", 1): v for k, v in data.items()},
        "metadata": {},
    }


def write_notebook(path: Path, *cells: dict, outputs: bool = True) -> None:
    """A notebook file; without `outputs`, as a checkout stores it."""
    kept = [
        cell if outputs or cell["cell_type"] != "code" else {**cell, "outputs": []}
        for cell in cells
    ]
    text = json.dumps(
        {"cells": kept, "metadata": {"papermill": {}}, "nbformat": 4, "nbformat_minor": 5}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def record(name: str, value: float, **fields) -> Record:
    """A record with a spread of ±5%."""
    defaults = {
        "schema": 1,
        "unit": "FLOP/s",
        "better": "higher",
        "p20": value * 0.95,
        "p80": value * 1.05,
        "n": 20,
        "machine": MachineId(fingerprint=FINGERPRINT, device="AMD EPYC"),
        "environment": {"torch": "2.13.0", "threads": 2},
        "date": datetime(2026, 11, 21, 8, 30, tzinfo=UTC),
        "source": "01_leveraging_hardware/01_roofline",
    }
    return Record(name=name, value=value, **(defaults | fields))


def records() -> list[Record]:
    """Rates and times, some predicted well, one badly, one not at all."""
    shares = {"share_of_measured": 0.91, "share_of_physical": 0.62}
    return [
        record(
            "gemm 1024", 1.37e11, predicted=1.5e11, inputs={"M": 1024, "dtype": "float32"}, **shares
        ),
        record("gemm 128", 4.1e10, predicted=1.2e11, inputs={"M": 128, "dtype": "float32"}),
        record("copy", 1.21e10, unit="byte/s", predicted=1.25e10, source="bench copy"),
        record("softmax", 2.1e-4, unit="s", better="lower", predicted=1.9e-4),
        record("decode", 812.0, unit="tokens/s", source="00_getting_started/01_your_machine"),
    ]


def make_checkout(root: Path) -> None:
    """The checkout: README, two modules, three notebooks without outputs, files that are linked to."""
    (root / "docs").mkdir(parents=True)
    (root / "smml").mkdir()
    (root / "results").mkdir()
    (root / "README.md").write_text(README)
    (root / "docs" / "figure.md").write_text("# One figure\n\n![A dot](dot.svg)\n")
    (root / "docs" / "dot.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20"><circle cx="9" cy="9" r="4"/></svg>'
    )
    (root / "smml" / "code.py").write_text("x = 1\n")
    for path, cells in notebooks().items():
        write_notebook(root / path, *cells, outputs=False)
    (root / "00_getting_started" / "README.md").write_text(MODULE_README)


def make_run(build: Path) -> None:
    """The build folder: two executed notebooks, one of them failed; a third not run; records."""
    cells = notebooks()
    for path in list(cells)[:2]:
        write_notebook(build / "notebooks" / path, *cells[path])
    run = {
        "profile": "cpu",
        "machine": FINGERPRINT,
        "device": "AMD EPYC",
        "started": "2026-11-21T08:30:00+00:00",
        "finished": "2026-11-21T08:31:30+00:00",
        "notebooks": {
            "00_getting_started/01_your_machine": {
                "status": "failed",
                "seconds": 3.4,
                "error": "ValueError: <no> peak",
            },
            "01_leveraging_hardware/01_roofline": {
                "status": "passed",
                "seconds": 71.2,
                "error": None,
            },
        },
    }
    (build / "run.json").write_text(json.dumps(run))
    for item in records():
        item.save(build / "records" / item.source)


def notebooks() -> dict[str, list[dict]]:
    """Path in the checkout -> cells with outputs, in the order of the course."""
    failure = {
        "output_type": "error",
        "ename": "ValueError",
        "evalue": "<no> peak",
        "traceback": [
            "ValueError                Traceback (most recent call last)",
            "ValueError: <no> peak",
        ],
    }
    table = "<table><tr><th>dtype</th><th>GFLOP/s</th></tr><tr><td>float32</td><td>137</td></tr></table>"
    return {
        "00_getting_started/01_your_machine.ipynb": [
            markdown("# What is this machine good for?\n\n2 minutes on a laptop."),
            code('profile = "auto"\nseed = 0', "parameters"),
            code("raise ValueError('<no> peak')", outputs=(failure,)),
            markdown(
                "## Next\n\nOn to [the roofline](../01_leveraging_hardware/01_roofline.ipynb)."
            ),
        ],
        "01_leveraging_hardware/01_roofline.ipynb": [
            markdown(
                "# Where is the roof?\n\nBack to [the machine](../00_getting_started/01_your_machine.ipynb)."
            ),
            code('profile = "auto"\nprediction_gflops = None', "parameters"),
            markdown(
                "## Count\n\nA product of $M\\times K$ by $K\\times N$ takes\n\n$$\nW = 2MNK\n$$\n\nFLOPs."
            ),
            code(
                'for m in (128, 1024):\n    print(f"{m:5d} {2 * m**3 / 1e9:8.3f} GFLOP")',
                outputs=(
                    stream("  128    0.004 GFLOP\n 1024    2.147 GFLOP\n"),
                    stream("a warning\n", "stderr"),
                ),
            ),
            markdown("## Measure"),
            code("plot(sweep)", outputs=(display(image_png=plot_png(), text_plain="<Figure>"),)),
            code("table", outputs=(display(text_html=table, text_plain="table"),)),
            markdown("## Exercise\n\nCount the FLOPs."),
            code("def flops(m, n, k):\n    raise NotImplementedError", "exercise"),
            code("check.flops(flops)", outputs=(stream("not attempted\n"),)),
            markdown(SOLUTION, "solution"),
            code(
                "summary",
                outputs=(
                    display(text_markdown="Reached **137 GFLOP/s** at $n = 1024$.", text_plain="x"),
                ),
            ),
        ],
        "01_leveraging_hardware/02_batching.ipynb": [
            markdown("# Why does batching cut the price?"),
            code("batch = 8", outputs=(stream("never shown\n"),)),
        ],
    }
