"""Records become money only where they say what was measured: unit, ranks; and seconds a token come from counts."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings, strategies as st

from smml.cost.units import from_records, token_seconds
from smml.cost.units.token_seconds import Requests
from smml.cost.units.unit_economics import Instances
from smml.data import accelerators, instance
from smml.errors import UserError
from smml.llama import counts
from smml.llama.config import CONFIGS
from smml.measure import MachineId, Record
from smml.roofline import Roof

few = settings(max_examples=100, deadline=None)
SHAPE = CONFIGS["llama-3.1-8b"]


def of(value=100.0, unit="tokens/s", **fields):
    """A made-up record, spread by a tenth."""
    told = {"name": "made/up", "better": "higher", "n": 5, "inputs": {"world_size": 1}}
    told |= {"machine": MachineId(fingerprint="x", device="x"), "date": datetime.now(UTC)}
    spread = {"value": value, "p20": 0.9 * value, "p80": 1.1 * value}
    return Record(unit=unit, source="test", **(told | spread | fields))


@few
@given(st.floats(1e-3, 1e9), st.integers(1, 64), st.floats(0.001, 1e3), st.integers(1, 64))
def test_the_price_of_a_record_is_that_of_its_job(rate, count, price, ranks):
    record = of(rate, predicted=2 * rate, inputs={"ranks": ranks})
    fleet = (Instances("c5.large", count, price),)
    made = from_records.priced(record, fleet)
    job = from_records.job(record, fleet)
    assert job.world_size == ranks
    assert made.value == pytest.approx(job.usd_per_million_tokens)
    assert made.predicted == pytest.approx(made.value / 2)
    assert (made.unit, made.better) == ("USD/Mtoken", "lower")
    assert made.inputs["usd_per_hour"] == pytest.approx(count * price)
    # The slow fifth is the dear one.
    assert made.p80 == pytest.approx(job.usd_per_hour / (record.p20 * 3600) * 1e6)


@few
@given(st.integers(1, 512), st.integers(2, 64), st.floats(0.01, 1))
def test_a_record_of_more_ranks_is_not_cheaper_at_an_efficiency_of_1_or_less(
    ranks, factor, efficiency
):
    """Each rank on an instance of its own: at perfect scaling the price of a token stays, else it rises."""
    one = from_records.priced(of(ranks * 10.0), (Instances("c5.large", ranks),))
    more = of(ranks * factor * efficiency * 10.0, inputs={"world_size": ranks * factor})
    many = from_records.priced(more, (Instances("c5.large", ranks * factor),))
    assert many.value >= one.value * (1 - 1e-12)
    assert many.value == pytest.approx(one.value / efficiency)


def test_a_record_without_prediction_has_none_in_money():
    made = from_records.priced(of(), (Instances("c5.large", 1),), "made/up/in-usd")
    assert (made.predicted, made.name) == (None, "made/up/in-usd")
    assert made.inputs["instances"] == ["1 × c5.large"]


FLEET = (Instances("c5.large", 1),)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: from_records.throughput(of(unit="FLOP/s")), "made/up is in FLOP/s"),
        (lambda: from_records.throughput(of(inputs={"batch": 8})), "no world_size"),
        (lambda: from_records.world_size(of(inputs={"world_size": 0})), "world_size 0"),
        (lambda: from_records.world_size(of(inputs={"ranks": 2.5})), "ranks 2.5"),
        (lambda: from_records.world_size(of(inputs={"world_size": True})), "world_size True"),
        (
            lambda: from_records.world_size(of(inputs={"world_size": 2, "ranks": 4})),
            "world_size 2 and ranks 4",
        ),
        (lambda: from_records.priced(of(), (Instances("c5.large", 1, 0.0),)), "usd_per_hour is 0"),
        (lambda: from_records.job(of(), ()), "instances is empty"),
        (
            lambda: from_records.job(of(inputs={"ranks": 8}), (Instances("g6.xlarge", 1),)),
            "world_size is 8",
        ),
        (lambda: token_seconds.measured(of(), of(unit="s")), "made/up is in s"),
        (
            lambda: token_seconds.memory_share(instance("g6.xlarge"), 24e12),
            "held_bytes is 24,000,000,000,000 and g6.xlarge",
        ),
        (lambda: Requests(0, 1), "prompt_tokens is 0"),
        (lambda: Requests(1, 1, cached_tokens=-1), "cached_tokens is -1"),
        (lambda: Requests(1, 1.5), "new_tokens is 1.5"),
        (lambda: Requests(1, 1, batch_size=True), "batch_size is True"),
    ],
)
def test_what_cannot_be_priced_is_named(make, named):
    with pytest.raises(UserError, match=named):
        make()


def test_seconds_of_a_token_are_one_over_the_rate():
    seconds = token_seconds.measured(of(1000.0), of(50.0), of(1e6))
    assert (seconds.input_s, seconds.output_s, seconds.cached_s) == (1e-3, 0.02, 1e-6)
    assert token_seconds.measured(of(), of()).cached_s == 0


def test_reading_is_bound_by_flops_and_writing_by_bytes_on_a_roof():
    """Two made-up ceilings, 100 TFLOP/s and 1 TB/s: the terms of an 8B in two bytes, by hand."""
    roof = Roof("made up", 100e12, 1e12)
    asked = Requests(2000, 200, cached_tokens=1000, batch_size=4)
    found = token_seconds.predicted(roof, SHAPE, asked, 2)
    flops = counts.forward_flops(SHAPE, 1, 2000, 1000, logits=1).total
    assert found.input_s == pytest.approx(flops / 100e12 / 2000)
    step = counts.decode_bytes(SHAPE, 4, 3100, 2).total / 1e12
    assert found.output_s == pytest.approx(step / 4)
    assert found.cached_s == pytest.approx(2 * counts.kv_cache_bytes(SHAPE, 1, 1, 2) / 1e12)
    assert found.output_s > found.input_s > found.cached_s


@few
@given(st.integers(1, 4000), st.integers(1, 1000), st.integers(1, 64))
def test_a_larger_batch_never_makes_a_written_token_slower(prompt, new, batch):
    roof = Roof("made up", 100e12, 1e12)
    one = token_seconds.predicted(roof, SHAPE, Requests(prompt, new), 2)
    many = token_seconds.predicted(roof, SHAPE, Requests(prompt, new, batch_size=batch), 2)
    assert many.output_s <= one.output_s * (1 + 1e-12)
    assert many.input_s == one.input_s


def test_without_a_cache_nothing_is_looked_up():
    assert token_seconds.predicted(Roof("x", 1e12, 1e11), SHAPE, Requests(10, 10), 2).cached_s == 0


def test_what_is_kept_takes_a_share_of_the_memory_that_computes():
    gpu = accelerators()[instance("g6.12xlarge").accelerator].memory.value
    assert token_seconds.memory_share(instance("g6.12xlarge"), gpu) == pytest.approx(1 / 4)
    assert token_seconds.memory_share(instance("c5.large"), 2**30) == pytest.approx(1 / 4)
