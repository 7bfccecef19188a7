"""What a run says of itself: memory by kind as counted, number format and peak as the hardware has them, the benches' work."""

import pytest
import torch
from llama_variants import GROUPED, random_tokens

from smml.bench.llama_train import step_work
from smml.bench.train_step import SIZES, work_ratio
from smml.hardware import Ceiling, detect
from smml.llama import counts
from smml.llama.config import CONFIGS
from smml.llama.model import Llama
from smml.train.config import read
from smml.train.memory import step_bytes
from smml.train.optimizer import adamw
from smml.train.precision import Peak, choose_device, choose_dtype
from smml.train.progress import Meter
from smml.train.step import train_step

CONFIG = read({"model": "tiny", "data": ("topics",)})


@pytest.mark.parametrize("checkpointing", [False, True])
def test_memory_by_kind_is_what_the_shape_says(checkpointing):
    model = Llama(GROUPED, activation_checkpointing=checkpointing)
    optimizer = adamw(model, CONFIG)
    batch = random_tokens(GROUPED, 3, 33)
    train_step(model, optimizer, batch)
    before = [p.detach().clone() for p in model.parameters()]
    found = step_bytes(model, optimizer, batch)
    state = counts.training_state_bytes(GROUPED)
    predicted = counts.activation_bytes(GROUPED, 3, 32, checkpointing=checkpointing)
    assert (found.weights, found.gradients, found.optimizer) == (
        state.parameters,
        state.gradients,
        state.optimizer,
    )
    assert found.activations == pytest.approx(predicted.saved, rel=0.001)
    assert found.total == found.weights + found.gradients + found.optimizer + found.activations
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_activations_are_what_the_allocator_gave():
    """Not from what autograd says it keeps: the bytes that torch took and did not give back during forward."""
    from torch.profiler import ProfilerActivity, profile

    model = Llama(GROUPED)
    batch = random_tokens(GROUPED, 3, 33)
    tokens, targets = batch[:, :-1].contiguous(), batch[:, 1:].contiguous()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as taken:
        loss = model(tokens, targets)
    net = sum(e.nbytes() for e in taken.profiler.kineto_results.events() if e.name() == "[memory]")
    predicted = counts.activation_bytes(GROUPED, 3, 32).saved - tokens.nbytes - targets.nbytes
    assert loss.item() > 0
    assert net == pytest.approx(predicted, rel=0.005)


class Known:
    """Ceilings of two formats."""

    def __init__(self, **rates: float) -> None:
        self.flops = {
            n: Ceiling(value=r, p20=r, p80=r, n=5, unit="FLOP/s") for n, r in rates.items()
        }


def test_the_number_format_follows_what_was_measured():
    cpu = torch.device("cpu")
    assert choose_dtype("bfloat16", cpu) == torch.bfloat16
    assert choose_dtype("auto", cpu) == torch.float32
    assert choose_dtype("auto", cpu, Known(float32=2e11, bfloat16=5e10)) == torch.float32
    assert choose_dtype("auto", cpu, Known(float32=2e11, bfloat16=2.1e11)) == torch.float32
    assert choose_dtype("auto", cpu, Known(float32=2e11, bfloat16=9e11)) == torch.bfloat16
    assert choose_dtype("auto", cpu, Known(float32=2e11)) == torch.float32


def test_a_device_that_is_not_there_is_refused():
    from smml.errors import UserError

    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == detect().torch_device
    with pytest.raises(UserError, match="device is 'cuda:99' and torch can use"):
        choose_device("cuda:99")


def test_the_progress_line_names_what_its_share_is_of():
    meters = {
        peak: Meter(1000, 5_000_000, 10, 0, peak, torch.device("cpu"))
        for peak in (Peak(1e9, "datasheet"), Peak(1e9, "measured"), None)
    }
    for peak, meter in meters.items():
        speed = meter.lap(4)
        line = meter.text(4, 2.5, speed)
        assert line.startswith("step 4/10  loss 2.5000")
        said = {None: "MFU unknown"}.get(peak) or peak.label
        assert said in line
        if peak:
            seconds = 1000 / speed.tokens_per_second
            assert speed.share == pytest.approx(5_000_000 / seconds / 1e9)
        assert speed.left_s == pytest.approx(6 * 1000 / speed.tokens_per_second)


def test_a_step_is_three_forward_passes_and_nearly_four_with_recomputing():
    for size in SIZES.values():
        assert work_ratio(size) == 3
        assert 3.6 < work_ratio(size, checkpointing=True) < 4
    work = step_work(CONFIGS["tiny"], 8, 128)
    assert work.bytes == 28 * counts.parameters(CONFIGS["tiny"]).total
    assert work.flops == counts.training_flops(CONFIGS["tiny"], 8, 128)
