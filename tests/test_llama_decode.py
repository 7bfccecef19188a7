"""Prefill and decode benches: their work is what `counts` says, their predictions are the largest of three terms."""

from dataclasses import replace

import pytest
from llama_variants import random_model
from made_setting import made_setting

from smml.bench import Setting, bench_model, llama_decode
from smml.bench.read_stream import reading
from smml.hardware.reach import cache_bytes
from smml.llama import counts
from smml.llama.config import CONFIGS

TINY = CONFIGS["tiny"]


@pytest.fixture(scope="module")
def setting() -> Setting:
    return made_setting()


def test_work_is_what_the_counts_say(setting):
    decode = llama_decode.decode_work(setting, TINY, past=100, batch=3)
    moved = counts.decode_bytes(TINY, 3, 100, 4)
    assert decode.flops == counts.decode_flops(TINY, 3, 100)
    assert decode.bytes == moved.total
    assert decode.bytes_allocated == moved.kv_written
    prefill = llama_decode.prefill_work(setting, TINY, tokens=64, batch=2)
    assert prefill.flops == counts.prefill_flops(TINY, 2, 64)
    assert prefill.bytes_read == counts.parameters(TINY).active * 4
    assert prefill.bytes_written == counts.kv_cache_bytes(TINY, 2, 64, 4)


def test_a_step_is_predicted_by_the_largest_of_three_terms(setting):
    work = llama_decode.decode_work(setting, TINY, past=100)
    cheap = llama_decode.predict(setting, TINY, work, llama_decode.LaunchCost(0.0, 0.0))
    roof = setting.roof().predict(work)
    assert (cheap.compute_s, cheap.memory_s) == (roof.compute_s, roof.memory_s)
    dear = llama_decode.predict(setting, TINY, work, llama_decode.LaunchCost(1.0, 0.5))
    assert dear.bound == "launch"
    assert dear.seconds == pytest.approx(4.5)  # four layers and the ends


def test_records_of_prefill_and_decode_carry_their_prediction_and_inputs(setting):
    model, cost = random_model(TINY), llama_decode.LaunchCost(1e-3, 1e-3)
    decode = llama_decode.decode(setting, model, cost, past=32, batch=2)
    assert decode.name == "decode/1.12M/batch-2/past-32/float32"
    assert (decode.unit, decode.inputs["bound"], decode.inputs["past"]) == ("B/s", "launch", 32)
    assert decode.predicted == pytest.approx(decode.bytes / cost.seconds(TINY))
    prefill = llama_decode.prefill(setting, model, cost, tokens=32)
    assert prefill.name == "prefill/1.12M/batch-1/tokens-32/float32"
    assert prefill.unit == "FLOP/s"
    assert prefill.flops == counts.prefill_flops(TINY, 1, 32)


def test_launch_cost_is_of_a_layer_and_never_negative(setting):
    cost = llama_decode.launch_cost(setting)
    assert cost.layer_s > 0
    assert cost.ends_s >= 0
    assert cost.seconds(TINY) == cost.ends_s + TINY.layers * cost.layer_s


def test_reading_replaces_the_bandwidth_and_nothing_else(setting):
    reader = reading(setting)
    assert reader.ceilings.bandwidth.settings["pattern"] in ("sum", "matrix-vector")
    assert reader.ceilings.write_allocate == 0
    assert reader.ceilings.flops == setting.ceilings.flops
    assert reader.source == setting.source


def test_the_benches_model_is_larger_than_the_caches_and_bounded(setting):
    def held(l3_bytes: int) -> int:
        cpu = setting.machine.cpu.model_copy(update={"l3_bytes": l3_bytes})
        machine = setting.machine.model_copy(update={"cpu": cpu})
        config = bench_model.config(replace(setting, machine=machine))
        assert 4 * counts.parameters(config).total >= min(4 * cache_bytes(machine), 10**9)
        return config.layers

    assert held(2**20) == bench_model.ON_CPU.layers
    assert held(128 * 2**20) > bench_model.ON_CPU.layers
    assert held(2**40) == bench_model.MOST_LAYERS
