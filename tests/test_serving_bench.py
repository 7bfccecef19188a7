"""What the bench of input, output and cached tokens counts and records; nothing about how fast it was."""

import pytest
import torch
from made_setting import made_setting

from smml.bench import serving
from smml.bench.llama_decode import LaunchCost
from smml.cost.units import from_records, token_seconds
from smml.cost.units.token_seconds import Requests
from smml.cost.units.unit_economics import Instances
from smml.llama import counts
from smml.llama.config import CONFIGS
from smml.llama.model import Llama

TINY = CONFIGS["tiny"]
ASKED = Requests(prompt_tokens=6, new_tokens=4, cached_tokens=10, batch_size=3)
NOTHING = LaunchCost(0.0, 0.0)


def test_work_is_that_of_the_counts():
    work = serving.works(TINY, ASKED, 4)
    assert work["input"].flops == counts.forward_flops(TINY, 1, 6, 10, logits=1).total
    assert work["output"].flops == counts.decode_flops(TINY, 3, 18)
    assert work["output"].bytes == counts.decode_bytes(TINY, 3, 18, 4).total
    assert work["cached"].bytes == 2 * counts.kv_cache_bytes(TINY, 1, 10, 4)
    assert serving.tokens(ASKED) == {"input": 6, "output": 3, "cached": 10}


def test_the_bench_predicts_what_the_pure_prediction_says_and_launching_makes_it_dearer():
    setting = made_setting()
    bench = serving.predictions(setting, setting, NOTHING, TINY, ASKED)
    pure = token_seconds.predicted(setting.roof(), TINY, ASKED, 4)
    assert bench["input"].seconds / 6 == pytest.approx(pure.input_s)
    assert bench["output"].seconds / 3 == pytest.approx(pure.output_s)
    assert bench["cached"].seconds / 10 == pytest.approx(pure.cached_s)
    slow = serving.predictions(setting, setting, LaunchCost(1.0, 0.5), TINY, ASKED)
    assert slow["input"].seconds == slow["input"].launch_s == 0.5 + TINY.layers


def test_records_are_tokens_a_second_that_can_be_priced():
    torch.manual_seed(0)
    setting, model = made_setting(), Llama(TINY).eval()
    records = serving.measure(setting, setting, NOTHING, model, ASKED)
    assert [r.name.split("/")[1] for r in records] == ["input", "output", "cached"]
    for record, tokens in zip(records, serving.tokens(ASKED).values(), strict=True):
        assert record.unit == "tokens/s"
        assert record.inputs["tokens"] == tokens
        assert from_records.world_size(record) == 1
        assert record.predicted
        priced = from_records.priced(record, (Instances("c5.large", 1),))
        assert priced.p20 <= priced.value <= priced.p80
    seconds = token_seconds.measured(*records)
    assert seconds.input_s == pytest.approx(1 / records[0].value)


def test_looking_up_copies_keys_and_values(monkeypatch):
    model, seen, fill = Llama(TINY).eval(), [], serving._filled

    def remembered(*arguments):
        seen.append(fill(*arguments))
        return seen[-1]

    monkeypatch.setattr(serving, "_filled", remembered)
    serving._look_up(model, ASKED)()
    kept, own = seen
    for mine, theirs in zip(own.keys + own.values, kept.keys + kept.values, strict=True):
        assert mine.shape[2] == ASKED.cached_tokens
        assert torch.equal(mine, theirs)
