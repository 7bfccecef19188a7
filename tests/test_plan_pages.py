"""The pages of a plan: every number is the plan's, nothing of anyone else's is overwritten, nothing half-written stays."""

import re
from dataclasses import fields, is_dataclass, replace

import pytest
from hypothesis import given, settings, strategies as st

from smml.data.prices import prices
from smml.errors import UserError
from smml.plan import drawings
from smml.plan.amounts import GIB, count, span, usd
from smml.plan.budget import budget
from smml.plan.calibration import OTHERS, compare, read_folder, summary
from smml.plan.cluster import cluster
from smml.plan.coverage import outside
from smml.plan.goodput import (
    Reliability,
    expected_goodput,
    most_failures,
    young_interval_s,
)
from smml.plan.layout import Job, Layout
from smml.plan.pages.architecture import architecture, grid
from smml.plan.pages.charter import charter
from smml.plan.pages.cost import KEPT, STORAGE, cost, parts, storage_usd
from smml.plan.pages.folder import PAGES, PICTURES, pages, write
from smml.plan.pages.schedule import schedule
from smml.plan.planning import Failures, make
from smml.plan.scaling_laws import CHINCHILLA
from smml.plan.shape import named_shape

JOB = Job(named_shape("llama-3.1-8b"), 8192, 96)
LAYOUT = Layout(2, 2, 3, 2, sequence_parallel=True, interleave=2, recompute="selective")
PLAN = make(
    cluster("p5.48xlarge", 24), JOB, LAYOUT, tokens=3e11, failures=Failures(2000, 2e9, 45, 600)
)
# Figures of the house and of the laws that the pages name, not of the plan.
WORDS = r"arXiv:[\d.]+|\(J\. T\. Daly, 2006, equation 20\)|p5[\w.]+|us-[\w-]+|\d{4}-\d\d-\d\d|H100 SXM5 80 GB|llama-3\.1-8b"
WORDS += (
    r"|https?://\S+|FP8|FlashAttention-3|bf16|h100-[\w-]+|a100-[\w-]+|\[[^]]*\]\([^)]*\)|^\d\. "
)


def numbers(text: str) -> list[tuple[str, str, str]]:
    """Every number of a text, its unit or letter, and the line."""
    found = []
    for line in text.splitlines():
        bare = re.sub(WORDS, "", line)
        for match in re.finditer(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)([TBMk](?!\w))?", bare):
            found.append((match[1], match[2] or "", line))
    return found


def held(item, depth: int = 0) -> list[float]:
    """All numbers of a dataclass, its properties and parts included."""
    if isinstance(item, bool) or item is None:
        return []
    if isinstance(item, int | float):
        return [float(item)]
    if isinstance(item, dict):
        return [x for value in item.values() for x in held(value, depth + 1)]
    if isinstance(item, list | tuple):
        return [x for value in item for x in held(value, depth + 1)]
    if not is_dataclass(item) or depth > 4:
        return []
    names = [f.name for f in fields(item)]
    names += [k for k, v in vars(type(item)).items() if isinstance(v, property)]
    return [x for name in names for x in held(getattr(item, name), depth + 1)]


def derived(plan) -> list[float]:
    """What the pages work out of the plan, worked out here again."""
    spent, done, place = plan.budget, plan.step, plan.step.cluster
    sums = summary(compare(read_folder()))
    mean, worst, rows = sums["step time"]
    over = sums["total memory"][1]
    first = round(plan.interval_s / done.seconds)
    period = min(7 * 86_400, spent.wall_s)
    further, most, others = summary(compare(read_folder(OTHERS)))["step time"]
    found = [further, most, others, spent.days * further]
    found += [mean, worst, rows, over, first, done.seconds * (1 + worst), 0.95, KEPT]
    found += [min(plan.limit_bytes, plan.memory.total * (1 + over)), period / 86_400]
    found += [most_failures(plan.reliability, period, 0.95)]
    found += [plan.limit_bytes - plan.memory.total, spent.days * worst, spent.usd * worst]
    found += [over * plan.memory.total]
    found += [spent.days * (1 - plan.goodput), spent.tokens / done.job.shape.parameters]
    found += [spent.usd * (1 - worst), spent.usd * (1 + worst), storage_usd(plan) or 0]
    found += [spent.training_s / 86_400, (spent.wall_s - spent.training_s) / 86_400]
    found += [plan.interval_s / plan.goodput / 86_400, plan.interval_s * done.tokens_per_s]
    found += [young_interval_s(plan.reliability), place.gpus * place.power_w / 1e3]
    found += [
        place.accelerator.memory.value,
        place.peak_flops("bf16"),
        place.accelerator.power.value,
    ]
    found += [done.utilization("causal"), 2 * done.job.global_batch_size]  # what advice doubles
    found += [done.layout.micro_batches(done.job), place.billed_gpus - place.gpus]
    for factor in (1 / 4, 1 / 2, 1, 2, 4):
        interval = factor * plan.interval_s
        found += [interval, expected_goodput(plan.reliability, interval)]
    for share in (0.25, 0.5, 0.75, 1.0):
        tokens = share * spent.tokens
        loss = CHINCHILLA.loss(done.job.shape.parameters, tokens)
        found += [share, share * spent.days, round(share * spent.steps), tokens, loss]
    found += [value / done.seconds for value in done.parts.values()]
    found += [value / plan.memory.total for value in vars(plan.memory).values()]
    found += [plan.memory.total / plan.limit_bytes]
    found += [spent.usd * change.saved for change in plan.advice]
    found += [amount for _, amount in parts(plan) if amount is not None]
    for offer in plan.offers:
        at = place.at_price(offer.usd_per_gpu_hour, offer.accelerators)
        amount = budget(done.on(at), spent.tokens, plan.goodput).usd
        found += [amount, amount * (1 - worst), amount * (1 + worst)]
    for run in read_folder():
        found += [*held(run.layout), *held(run.job), run.cluster.gpus]
    return found


def said(shown: str, letter: str, value: float) -> bool:
    """Whether `shown` is `value` rounded, in some unit that the pages use."""
    plain = float(shown.replace(",", ""))
    digits = shown.partition(".")[2]
    scales = (1, 100, 1e-3, 1e3, 1e6, 1e-9, 1e-12, 1 / 60, 1 / 3600, 1 / 86_400, 1 / GIB)
    if letter:
        scales = ({"T": 1e-12, "B": 1e-9, "M": 1e-6, "k": 1e-3}[letter],)
    # Of four significant digits, or of as many as stand behind the point.
    slack = max(0.5 * 10 ** -len(digits), 0.0005 * plain)
    return any(abs(value * scale - plain) <= slack * 1.02 for scale in scales)


@pytest.mark.parametrize("name", PAGES)
def test_every_number_of_a_page_is_the_plans(name):
    known = [*held(PLAN), *derived(PLAN)]
    text = PAGES[name](PLAN)
    if name == "architecture.md":  # ranks and layers of the grid have a test of their own
        text = text.replace(grid(PLAN), "")
    stray = [
        (number + letter, line)
        for number, letter, line in numbers(text)
        if not any(said(number, letter, value) for value in known)
    ]
    assert not stray
    assert len(numbers(text)) > 20


def test_the_figures_that_people_act_on_stand_where_they_belong():
    spent = PLAN.budget
    page = charter(PLAN)
    assert f"| costs | {usd(spent.usd)} |" in page
    assert f"within {spent.days:.1f} days" in page
    assert f"No rank holds more than {PLAN.memory.total / GIB:.1f} GiB" in page
    for line in outside(PLAN):
        assert line in page
    page = architecture(PLAN)
    assert "| nodes | 3 of 8 × NVIDIA H100 SXM5 80 GB |" in page
    assert f"| optimizer | {PLAN.memory.optimizer / GIB:.2f} |" in page
    page = schedule(PLAN)
    assert f"| goodput | {PLAN.goodput:.2%} |" in page
    assert f"| interruptions expected | {PLAN.interruptions:,.1f} |" in page
    assert f"| a checkpoint every (Daly) | {span(PLAN.interval_s)} |" in page
    page = cost(PLAN)
    assert f"| tokens | {count(spent.tokens)} |" in page
    assert f"| a million tokens | {spent.usd_per_million_tokens:.4g} USD |" in page
    assert f"| date | {PLAN.offer.date} |" in page
    assert PLAN.offer.url in page


def test_the_parts_add_up_to_the_bill():
    known = dict(parts(PLAN))
    known.pop(f"storage of {KEPT} checkpoints")
    assert sum(known.values()) == pytest.approx(PLAN.budget.usd)
    odd = make(cluster("p5.48xlarge", 12), JOB, Layout(12, zero_stage=3), tokens=1e11)
    idle = dict(parts(odd))["accelerators paid for and idle"]
    assert idle == pytest.approx(odd.budget.usd * 4 / 16)


def test_storage_is_priced_where_a_price_is_known():
    known = {row.item: row.price.value for row in prices(region="us-east-1", kind="on-demand")}
    amount = storage_usd(PLAN)
    if STORAGE not in known:
        assert amount is None
        assert f"| storage of {KEPT} checkpoints | no price given |" in cost(PLAN)
    else:
        months = PLAN.budget.wall_s / (365.25 / 12 * 86_400)
        size = 12 * JOB.shape.parameters / GIB
        assert amount == pytest.approx(KEPT * size * known[STORAGE] * months)


def test_a_plan_without_a_price_says_so():
    bare = make(cluster("h100-nvl", 8), JOB, Layout(8, zero_stage=3), tokens=1e11)
    page = cost(bare)
    assert page.startswith("# Cost: no price given")
    assert "| an accelerator-hour | no price given |" in page
    assert "No price of this accelerator has a source." in page
    assert "| costs | no price given |" in charter(bare)


def test_a_layout_that_does_not_fit_is_said_so_first():
    heavy = make(cluster("h100", 8), JOB, Layout(8, zero_stage=0), tokens=1e11)
    over = (heavy.memory.total - heavy.limit_bytes) / GIB
    assert charter(heavy).splitlines()[2] == (
        f"**This layout does not fit: {over:.1f} GiB too much on a rank.**"
    )
    assert "does not fit" not in charter(PLAN)


def test_the_grid_holds_every_rank_once_and_every_layer_once():
    text = grid(PLAN)
    ranks = [int(n) for pair in re.findall(r"(\d+)–(\d+) \(node", text) for n in pair]
    assert sorted(ranks) == list(range(24))
    layers = set()
    for first, last in re.findall(r"(?:^\| |, )(\d+)–(\d+)(?=,| \|)", text, re.M):
        layers |= set(range(int(first), int(last) + 1))
    assert layers == set(range(32))
    assert "data 1, context 1" in text
    large = make(
        cluster("h100", 512), replace(JOB, global_batch_size=64), Layout(64, 8), tokens=1e9
    )
    header, _, row = grid(large).splitlines()
    assert header.count("|") == row.count("|") == 7
    assert "504–511 (node 63)" in row


def test_what_calibration_has_not_seen_is_named():
    lines = "\n".join(outside(PLAN))
    for what in ("accelerator h100-sxm", "context parallel 2: the rows have 1", "network efa"):
        assert what in lines
    seen = read_folder()[0]
    assert outside(make(seen.cluster, seen.job, seen.layout, tokens=1e9)) == []


@settings(max_examples=30)
@given(st.floats(0.01, 5000), st.floats(0.5, 0.99))
def test_failures_beyond_the_quantile_are_rarer_than_the_rest(expected, confidence):
    reliability = Reliability(3600, 1)
    most = most_failures(reliability, 3600 * expected, confidence)
    assert most >= expected - 5 - expected**0.5
    assert most_failures(reliability, 3600 * expected, 0.999) >= most
    if expected < 20:
        chance, below = 2.718281828459045**-expected, 0.0
        for k in range(most):
            below += chance
            chance *= expected / (k + 1)
        assert below < confidence <= below + chance + 1e-12


def test_a_confidence_of_one_is_refused():
    with pytest.raises(UserError, match="confidence is 1"):
        most_failures(Reliability(3600, 1), 3600, 1)


# ------------------------------------------------------------------------------------------------------- the folder


def test_a_report_is_written_whole_and_again(tmp_path):
    index = write(PLAN, tmp_path / "deep" / "report")
    folder = index.parent
    names = {path.name for path in folder.iterdir()}
    assert names == {"index.md", *PAGES, *PICTURES}
    for name in PAGES:
        assert f"]({name})" in index.read_text()
    assert (folder / "memory.svg").read_text().startswith("<?xml")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".md"}
    other = make(cluster("h100", 8), JOB, Layout(8, zero_stage=3), tokens=1e11)
    write(other, folder)
    assert (folder / "charter.md").read_bytes() != before["charter.md"]
    write(PLAN, folder)
    assert {n: (folder / n).read_bytes() for n in before} == before
    assert [path.name for path in folder.parent.iterdir()] == ["report"]


@pytest.mark.parametrize("name", ["notes.txt", "index.md", "charter.md", ".git"])
def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path, name):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text("mine")
    with pytest.raises(UserError, match=rf"holds {name}, which no plan wrote") as caught:
        write(PLAN, folder)
    assert "\n" not in str(caught.value)
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [(name, "mine")]
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_what_is_no_folder_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UserError, match="is no folder"):
        write(PLAN, file)
    with pytest.raises(UserError, match="cannot write"):
        write(PLAN, file / "report")
    assert file.read_text() == "mine"


def test_a_write_that_fails_leaves_the_old_report(tmp_path, monkeypatch):
    folder = write(PLAN, tmp_path / "report").parent
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    from smml.plan.pages import folder as module

    real, calls = module.os.replace, []

    def fails_once(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(source, target)

    monkeypatch.setattr(module.os, "replace", fails_once)
    with pytest.raises(UserError, match="No space left"):
        write(PLAN, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_pages_are_the_same_each_time():
    first, second = pages(PLAN), pages(PLAN)
    for name in ("index.md", *PAGES):
        assert first[name] == second[name]


# ---------------------------------------------------------------------------------------------------- the drawings


def test_drawings_hold_what_they_are_given():
    rows = compare(read_folder())
    axis = drawings.errors(rows, 0.09).axes[0]
    shown = [x for line in axis.lines if line.get_marker() != "None" for x in line.get_xdata()]
    assert sorted(shown) == pytest.approx(sorted(100 * row.error for row in rows))
    assert len(axis.get_yticklabels()) == len(rows)
    curves = {"law": ([1, 2, 4], [1, 2, 3]), "points": ([1, 2, 4], [1, 1.9, 2.8])}
    axis = drawings.lines(
        curves, "title", "x", "y", points=["points"], marks={"here": 2}, base=2
    ).axes[0]
    assert [list(line.get_ydata()) for line in axis.lines[:2]] == [
        list(y) for _, y in curves.values()
    ]
    assert axis.get_xscale() == "log"
    assert axis.lines[1].get_marker() != "None" != axis.lines[0].get_linestyle()
    assert "here" in [text.get_text() for text in axis.texts]
