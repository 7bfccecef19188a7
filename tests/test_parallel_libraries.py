"""Libraries under the proofs of our own strategies: what they claim and hold, and what they leave undone without a word."""

import importlib.util

import pytest

from smml.bench import libraries, strategies as bench
from smml.errors import UserError
from smml.llama.config import LlamaConfig
from smml.parallel.launch import Workers
from smml.parallel.libraries import deepspeed
from smml.parallel.libraries.accelerate import AccelerateDDP, AccelerateFSDP2
from smml.parallel.libraries.deepspeed_autotp import DeepSpeedAutoTP
from smml.parallel.strategy_tasks import PROOF

TIED = PROOF | {"tie_embeddings": True}
UNEVEN = PROOF | {"vocab_size": 193}  # rows, and elements, that no number of ranks above 1 divides
SMALL = {"dim": 64, "layers": 1, "heads": 4, "head_dim": 16, "kv_heads": 2, "vocab_size": 256}
MODEL = 1_035_648  # bytes of PROOF's parameters
ZERO = [f"deepspeed-zero-{stage}" for stage in (1, 2, 3)]


@pytest.fixture(scope="module")
def two():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", "tests")
        with Workers(2) as started:
            yield started


@pytest.fixture(scope="module")
def four():
    with Workers(4) as started:
        yield started


@pytest.fixture(scope="module")
def compiled(two):
    two.run("smml.parallel.libraries.deepspeed:compile_operators", timeout_s=600)


@pytest.fixture(params=["two", "four"])
def workers(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("model", [PROOF, TIED])
def test_accelerate_is_data_parallel(workers, model):
    for proof in bench.prove(workers, "accelerate-ddp", model=model):
        assert proof["sent"]["broadcast"] == 2 * 4 * 512 * 4, "two tables of 512 positions × 4"


def test_accelerates_fsdp2_on_a_cpu_is_data_parallel_and_says_so_nowhere(workers):
    whole = bench.prove(workers, "accelerate-ddp")[0]
    for rank, proof in enumerate(bench.findings(workers, "accelerate-fsdp2")):
        if workers.backend == "nccl":
            assert proof["problems"] == []
            continue
        sent, held = proof["problems"]  # loss, gradients and updates are right
        assert sent.startswith("it sent broadcast 16,384 bytes, all-reduce 1,035,648 bytes, ")
        assert held.startswith("it holds parameters 1,035,648 bytes, gradients 1,035,648 bytes, ")
        assert f"predicted were parameters {MODEL // workers.ranks:,} bytes" in held
        assert (proof["sent"], proof["held"]) == (whole["sent"], whole["held"])
        assert "shard" not in workers.output(rank).lower()


@pytest.mark.parametrize("model", [PROOF, TIED, UNEVEN])
def test_accelerates_fsdp2_shards_when_its_state_is_given_a_type_that_it_looks_at(workers, model):
    proofs = bench.prove(workers, "accelerate-fsdp2", {"insist": True}, model=model)
    assert all(set(proof["sent"]) == {"all-gather", "reduce-scatter"} for proof in proofs)
    if model is PROOF:
        assert all(proof["held"]["parameters"] == MODEL // workers.ranks for proof in proofs)


def test_what_a_plugin_leaves_behind_is_forgotten(two):
    bench.prove(two, "accelerate-fsdp2", {"insist": True})
    bench.prove(two, "accelerate-ddp")


def test_no_speed_for_a_library_that_does_not_do_what_it_claims(two, setting, monkeypatch):
    for name, value in (("MODEL", SMALL), ("BATCH", 4), ("TOKENS", 16)):
        monkeypatch.setattr(libraries, name, value)
    peers = {name: p for name, p in libraries.PEERS.items() if p.library == "accelerate"}
    monkeypatch.setattr(libraries, "installed", lambda: peers)
    proofs = libraries.findings(two)
    proved = ["accelerate-ddp", "accelerate-fsdp2#insist"]
    if two.backend == "gloo":
        assert [name for name, proof in proofs.items() if not proof["problems"]] == proved
        assert libraries.kept(proofs["accelerate-fsdp2"]) == 0.5
        with pytest.raises(UserError, match=r"accelerate-fsdp2: on rank 0 it sent .*mend it"):
            list(libraries.speeds(setting, two, ["accelerate-fsdp2"]))
    assert [libraries.kept(proofs[name]) for name in proved] == [1.0, 1.0]
    found = {record.name: record for record in libraries.speeds(setting, two, proved[:1])}
    prefix = "libraries/accelerate-ddp/ranks-2"
    assert set(found) == {
        f"{prefix}/{name}" for name in ("data", "accelerate-ddp", "data-to-accelerate-ddp")
    }
    assert found[f"{prefix}/accelerate-ddp"].predicted == found[f"{prefix}/data"].value


@pytest.mark.parametrize("strategy", ["NeverSynchronised", "NotToldOfTheCPU"])
def test_gradients_that_stay_on_their_rank_are_found(two, strategy):
    for problems in two.run("parallel_tasks_libraries:problems", strategy=strategy):
        if two.backend == "nccl" and strategy == "NotToldOfTheCPU":
            assert problems == [], "there is nothing to be told"
            continue
        assert any("the gradient of" in problem for problem in problems), problems
        assert any("counted were all-reduce" in problem for problem in problems), problems


@pytest.mark.parametrize("name", ["accelerate-ddp", "accelerate-fsdp2"])
def test_a_batch_that_ranks_do_not_divide_is_refused(two, name):
    with pytest.raises(UserError, match="2 ranks cannot share batch = 7 equally"):
        bench.findings(two, name, batch=7)


def test_a_library_that_is_not_installed_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"deepspeed is not installed: .*pip install .*\[deepspeed\]"
    ):
        deepspeed.library()


def test_bytes_counted_by_hand():
    """Width 4, one head, one layer, 10 tokens: 40 elements of embedding, 120 of the layer, 4 of the norm, 40 of output."""
    shape = {"dim": 4, "layers": 1, "heads": 1, "kv_heads": 1, "head_dim": 4}
    shape |= {"feed_forward_dim": 4, "vocab_size": 10, "max_sequence_length": 8}
    config = LlamaConfig(**shape)
    layer = 4 + 12 * 4 + 4 * 4 + 4 + 8 * 4 + 4 * 4  # norm, qkv, output, norm, gate and up, down
    total = 40 + layer + 4 + 40
    assert (layer, total) == (120, 204)
    at = {"rank": 0, "ranks": 4, "batch": 4, "tokens": 2}
    assert AccelerateDDP.sends(config, **at) == {"all-reduce": 4 * 204, "broadcast": 2 * 4 * 8 * 4}
    # 10 rows in parts of 3, 3, 3, 1, padded to 12: 48 elements instead of 40, twice.
    padded = 4 * (204 + 8 + 8)
    assert AccelerateFSDP2.sends(config, **at) == {
        "all-gather": padded + 4 * layer,
        "reduce-scatter": padded,
    }
    assert AccelerateFSDP2.holds(config, 3, 4)["parameters"] == 4 * (4 + (layer + 4) // 4 + 4)
    # 204 elements are padded to 208, a multiple of 2 on each of 4 ranks; rank 0's 52 lie in embedding, norm and qkv.
    one, three = deepspeed.DeepSpeedZeRO1, deepspeed.DeepSpeedZeRO3
    assert one.holds(config, 0, 4) == {
        "parameters": 4 * 208,
        "gradients": 4 * (40 + 4 + 48),
        "optimizer": 12 * 52,
    }
    assert one.sends(config, **at) == {"all-reduce": 4 * 204 + 4, "all-gather": 4 * 208}
    apart = {"use_multi_rank_bucket_allreduce": False}
    assert one.sends(config, **at, settings=apart) == {
        "reduce": 4 * 204,
        "all-reduce": 4,
        "all-gather": 4 * 208,
    }
    assert three.holds(config, 0, 4) == {"parameters": 204, "gradients": 204, "optimizer": 612}
    assert three.sends(config, **at, settings=libraries.FREED) == {
        "all-gather": 2 * 4 * 204,
        "reduce-scatter": 4 * 204,
        "all-reduce": 8,
    }
    held = 4 * (40 + 12 + 40 + (64 + 48) // 2)
    assert DeepSpeedAutoTP.holds(config, 0, 2)["parameters"] == held
    assert DeepSpeedAutoTP.sends(config, 0, 2, 4, 2) == {"all-reduce": 4 * 4 * 4 * 2 * 4 + held}


@pytest.mark.deepspeed
@pytest.mark.parametrize("name", ["deepspeed-zero-1", "deepspeed-zero-2"])
@pytest.mark.parametrize("model", [PROOF, UNEVEN])
def test_deepspeed_shares_states_and_all_reduces_gradients(compiled, workers, name, model):
    for proof in bench.prove(workers, name, model=model):
        assert set(proof["sent"]) == {"all-reduce", "all-gather"}
        assert proof["held"]["gradients"] < proof["held"]["parameters"]


@pytest.mark.deepspeed
def test_deepspeed_reduces_to_the_rank_that_needs_it_when_told(compiled, workers):
    settings = {"use_multi_rank_bucket_allreduce": False}
    for proof in bench.prove(workers, "deepspeed-zero-2", {"settings": settings}):
        assert proof["sent"] == {"reduce": MODEL, "all-reduce": 4, "all-gather": MODEL}


@pytest.mark.deepspeed
@pytest.mark.parametrize("model", [PROOF, TIED, UNEVEN])
def test_deepspeeds_stage_3_shards_when_told(compiled, workers, model):
    bench.prove(workers, "deepspeed-zero-3", {"settings": libraries.FREED}, model=model)


@pytest.mark.deepspeed
def test_deepspeeds_stage_3_does_not_shard_a_small_model(compiled, workers):
    for proof in bench.findings(workers, "deepspeed-zero-3"):
        (held,) = proof["problems"]  # loss, gradients, updates and bytes sent are right
        part = MODEL // workers.ranks
        assert held.startswith(f"it holds parameters {MODEL + part:,} bytes, ")
        assert f"predicted were parameters {part:,} bytes" in held


@pytest.mark.deepspeed
@pytest.mark.parametrize("name", ZERO)
def test_the_gradients_that_deepspeed_clips_where_nobody_asks_are_found(compiled, two, name):
    options = {"clipping": 1.0, "settings": libraries.FREED if name.endswith("3") else {}}
    for proof in bench.findings(two, name, options):
        assert any("a parameter after its updates" in problem for problem in proof["problems"])


@pytest.mark.deepspeed
@pytest.mark.parametrize("model", [PROOF, TIED])
def test_deepspeeds_tensor_parallel_cuts_layers_and_nothing_else(compiled, workers, model):
    for proof in bench.prove(workers, "deepspeed-autotp", model=model):
        assert set(proof["sent"]) == {"all-reduce"}


@pytest.mark.deepspeed
def test_engines_of_several_kinds_live_one_after_the_other(compiled, two):
    for name in ("deepspeed-autotp", "deepspeed-zero-1", "deepspeed-autotp"):
        bench.prove(two, name)
    in_turns = {"deepspeed-autotp": {}, "deepspeed-zero-1": {}}
    with pytest.raises(UserError, match="holds the groups of one engine a process"):
        bench.seconds(two, in_turns, SMALL, 4, 16, samples=5)


@pytest.mark.deepspeed
def test_heads_that_ranks_do_not_divide_are_refused(compiled, two):
    odd = PROOF | {"kv_heads": 3}
    with pytest.raises(UserError, match="2 ranks cannot share kv heads = 3 equally"):
        bench.findings(two, "deepspeed-autotp", model=odd)
