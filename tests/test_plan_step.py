"""Step time: counts against other counts, laws that every prediction keeps, errors that name the field."""

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st
from plan_runs import eight_billion, planned

from smml.data import accelerators
from smml.errors import UserError
from smml.llama.config import CONFIGS
from smml.llama.counts import parameters, training_flops
from smml.parallel.links import Link, sent
from smml.plan.budget import budget
from smml.plan.cluster import cluster
from smml.plan.communication import all_reduce_seconds, gather_seconds
from smml.plan.compute import matmul_seconds
from smml.plan.layout import Job, Layout
from smml.plan.shape import ModelShape, gpt, named_shape
from smml.plan.step import PARTS, step


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ["causal", "full"])
def test_counts_are_those_of_the_model(name, attention):
    shape, config = named_shape(name), CONFIGS[name]
    assert shape.parameters == parameters(config).total
    assert shape.active_parameters == parameters(config).active
    length = 2048
    expected = training_flops(config, 1, length, attention=attention) / length
    assert shape.model_flops_per_token(length, attention) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "billions"), [("gpt-22b", 22), ("gpt-175b", 175), ("gpt-530b", 530), ("gpt-1t", 1008)]
)
def test_gpts_have_the_published_size_and_flops(name, billions):
    shape = named_shape(name)
    assert shape.parameters == pytest.approx(billions * 1e9, rel=0.01)
    # arXiv:2205.05198, appendix A: 72·B·L·s·h²·(1 + s/6h + v/12hL).
    L, h, v, s = shape.layers, shape.dim, shape.vocab_size, 2048
    expected = 72 * L * h * h * (1 + s / (6 * h) + v / (12 * h * L))
    assert shape.model_flops_per_token(s, "full") == pytest.approx(expected)


def test_hardware_flops_count_full_recomputation_as_one_more_forward():
    shape = gpt("g", 48, 6144, 64)
    job = Job(shape, 2048, 8, "fp16", "fused", "unfused")
    place = cluster("a100", 8)
    none, full = (
        step(place, job, Layout(1, 8, recompute=r)).flops("hardware") for r in ("none", "full")
    )
    assert none == pytest.approx(step(place, job, Layout(1, 8)).flops("full"))
    logits = 2 * shape.dim * shape.vocab_size * job.tokens_per_step
    assert full - none == pytest.approx(none / 3 - logits)


@settings(deadline=None, max_examples=80)
@given(planned())
def test_parts_are_the_step_and_utilization_stays_below_one(run):
    place, job, layout = run
    done = step(place, job, layout)
    assert set(done.parts) == set(PARTS)
    assert min(done.parts.values()) >= 0
    assert done.tokens_per_s * done.seconds == pytest.approx(job.tokens_per_step)
    for convention in ("causal", "hardware"):
        assert 0 < done.utilization(convention) < 1
    assert done.flops("causal") < done.flops("full")


@settings(deadline=None, max_examples=60)
@given(planned(), st.floats(1.01, 8))
def test_time_never_grows_with_bandwidth_or_power(run, factor):
    place, job, layout = run
    now = step(place, job, layout).seconds
    for name in ("inside", "between"):
        link = getattr(place, name)
        quicker = replace(link, bandwidth_bytes_per_s=factor * link.bandwidth_bytes_per_s)
        nearer = replace(link, latency_s=link.latency_s / factor)
        for better in (quicker, nearer):
            assert step(replace(place, **{name: better}), job, layout).seconds <= now * (1 + 1e-9)
    memory = replace(place, bandwidth_bytes_per_s=factor * place.bandwidth_bytes_per_s)
    assert step(memory, job, layout).seconds <= now * (1 + 1e-9)
    if place.power_w:
        cooler = replace(place, power_w=place.power_w / factor)
        assert step(cooler, job, layout).seconds >= now * (1 - 1e-9)


@settings(deadline=None, max_examples=60)
@given(planned())
def test_time_grows_with_work_and_never_with_overlap(run):
    place, job, layout = run
    now = step(place, job, layout).seconds
    more = replace(job, global_batch_size=2 * job.global_batch_size)
    assert now < step(place, more, layout).seconds <= 2 * now * (1 + 1e-9)
    longer = replace(job, sequence_length=2 * job.sequence_length)
    assert step(place, longer, layout).seconds > now
    recomputed = [step(place, job, replace(layout, recompute=r)).seconds for r in ("none", "full")]
    assert recomputed[0] < recomputed[1]
    for field in ("overlap_data", "overlap_pipeline"):
        off, on = (
            step(place, job, replace(layout, **{field: value})).seconds for value in (False, True)
        )
        assert on <= off
    tensor = [
        step(place, job, replace(layout, overlap_tensor=o)).seconds
        for o in ("none", "backward", "full")
    ]
    assert tensor == sorted(tensor, reverse=True)


def test_interleaving_shortens_the_bubble_by_its_factor():
    job = Job(named_shape("gpt-175b"), 2048, 64, "fp16", "fused", "unfused")
    place = cluster("a100", 64)
    plain, three = (
        step(place, job, Layout(1, 8, 8, interleave=v)).parts["pipeline bubble"] for v in (1, 3)
    )
    assert three == pytest.approx(plain / 3)


def test_fp8_speeds_up_the_products_only_and_pays_for_casts():
    place, job, layout = eight_billion()
    before, after = step(place, job, layout), step(place, replace(job, dtype="fp8"), layout)
    assert after.parts["matmul"] < 0.7 * before.parts["matmul"]
    assert after.parts["attention"] == before.parts["attention"]
    assert after.parts["cast"] > before.parts["cast"] == 0
    assert after.seconds < before.seconds


def test_hand_fused_kernels_cast_inside_others():
    place, job, layout = eight_billion()
    job = replace(job, dtype="fp8")
    casts = [
        step(place, replace(job, engine=e), layout).parts["cast"] for e in ("compiled", "fused")
    ]
    assert 0 < casts[1] < 0.8 * casts[0]


def test_fusion_saves_memory_traffic_only():
    place, job, layout = eight_billion()
    eager, compiled = (step(place, replace(job, engine=e), layout) for e in ("eager", "compiled"))
    assert eager.parts["elementwise"] > 1.5 * compiled.parts["elementwise"]
    assert eager.parts["matmul"] == compiled.parts["matmul"]


def test_product_times_follow_waves_and_bytes():
    place = cluster("h100", 1)
    full = matmul_seconds(place, "bf16", 11 * 256, 12 * 128, 8192)  # 132 tiles: one wave
    spilled = matmul_seconds(place, "bf16", 12 * 256, 12 * 128, 8192)
    assert spilled > 1.2 * full  # twelve tiles more are a wave more, of smaller tiles at best
    narrow = matmul_seconds(place, "bf16", 16, 8192, 8192)
    assert narrow >= 2 * 8192 * 8192 / place.accelerator.bandwidth.value
    flops = 2 * 16384**3
    assert flops / matmul_seconds(place, "bf16", 16384, 16384, 16384) < place.peak_flops("bf16")


@pytest.mark.parametrize("ranks", [2, 3, 8, 64, 1000])
@pytest.mark.parametrize("payload", [1e3, 1e6, 1e9])
def test_collectives_agree_with_the_messages_that_are_sent(ranks, payload):
    link = cluster("h100", 1024).between
    counted = Link(link.latency_s, 1 / link.bandwidth_bytes_per_s)
    ring = counted.seconds(sent("all-reduce/ring", ranks, payload))
    assert all_reduce_seconds(link, ranks, payload) <= ring * (1 + 1e-12)
    gathered = counted.seconds(sent("all-gather", ranks, payload))
    assert gather_seconds(link, ranks, payload) <= gathered * (1 + 1e-12)
    if payload == 1e9 and ranks <= 8:
        assert all_reduce_seconds(link, ranks, payload) == pytest.approx(ring, rel=0.01)


def test_groups_use_the_node_then_every_adapter():
    place = cluster("h100", 64)
    assert place.group(8, 1) == place.inside
    assert place.group(8, 8).bandwidth_bytes_per_s == place.between.bandwidth_bytes_per_s
    assert place.group(64, 1).bandwidth_bytes_per_s == pytest.approx(
        min(place.inside.bandwidth_bytes_per_s, 8 * place.between.bandwidth_bytes_per_s)
    )
    assert place.group(16, 4).bandwidth_bytes_per_s == pytest.approx(
        2 * place.between.bandwidth_bytes_per_s
    )


def test_a_power_limit_slows_and_the_full_board_does_not():
    assert cluster("h100", 8).clock_share == 1
    capped = cluster("h100, 350 W", 8)
    assert capped.clock_share == pytest.approx(0.5**0.5)
    assert capped.matmul_flops_per_s("bf16") < cluster("h100", 8).matmul_flops_per_s("bf16")
    assert cluster("h100-96gb, 500 W, 2.4 TB/s", 8) == cluster("h100-96gb", 8)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("A100 80GB", "a100-80gb-sxm"),
        ("a100-40gb", "a100-40gb-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("h100-80gb-hbm3", "h100-sxm"),
        ("H100 SXM5 96GB", "h100-96gb-sxm"),
        ("A100-SXM4-40GB", "a100-40gb-sxm"),
        ("a100-80gb-pcie", "a100-80gb-pcie"),
        ("h100 nvl", "h100-nvl"),
        ("v100-32gb", "v100-32gb"),
        ("h200", "h200-sxm"),
        ("p4de.24xlarge", "a100-80gb-sxm"),
        ("l4", "l4"),
    ],
)
def test_accelerators_are_known_by_the_names_in_tables(name, key):
    assert cluster(name, 8).key == key


def test_every_gpu_of_the_catalogue_with_a_16_bit_peak_can_be_planned_for():
    shape = named_shape("llama-3.2-1b")
    for key, device in accelerators().items():
        if device.peak_flops("fp16") is not None:
            done = step(cluster(key, 8), Job(shape, 2048, 8, "fp16"), Layout(8))
            assert 0 < done.utilization("causal") < 1, key


@given(st.floats(1e6, 1e14), st.floats(1.01, 10), st.floats(0.1, 1))
def test_costs_grow_with_tokens_price_and_failures(tokens, factor, goodput):
    place, job, layout = eight_billion()
    done = step(place.at_price(2.0), job, layout)
    spent = budget(done, tokens, goodput)
    assert spent.gpu_hours == pytest.approx(place.gpus * spent.wall_s / 3600)
    assert spent.usd == pytest.approx(2 * spent.gpu_hours)
    assert budget(done, tokens * factor, goodput).usd >= spent.usd
    assert budget(done, tokens, goodput / factor).usd > spent.usd
    dearer = step(place.at_price(2.0 * factor), job, layout)
    assert budget(dearer, tokens, goodput).usd == pytest.approx(factor * spent.usd)


def test_accelerator_hours_grow_with_the_world_while_days_fall():
    job = Job(named_shape("llama-3.1-8b"), 8192, 1024)
    spent = [
        budget(step(cluster("h100", n), job, Layout(n, zero_stage=3)), 1e12) for n in (8, 64, 512)
    ]
    assert [s.gpu_hours for s in spent] == sorted(s.gpu_hours for s in spent)
    assert [s.days for s in spent] == sorted((s.days for s in spent), reverse=True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Layout(tensor_parallel=0), "tensor_parallel is 0"),
        (lambda: Layout(micro_batch_size=True), "micro_batch_size is True"),
        (lambda: Layout(zero_stage=4), "zero_stage is 4"),
        (lambda: Layout(recompute="half"), "recompute is 'half'"),
        (lambda: Layout(overlap_tensor="some"), "overlap_tensor is 'some'"),
        (lambda: Layout(8, shard_ranks=3), "shard_ranks is 3"),
        (lambda: Job(named_shape("tiny"), 0, 1), "sequence_length is 0"),
        (lambda: Job(named_shape("tiny"), 8, 1.5), "global_batch_size is 1.5"),
        (lambda: Job(named_shape("tiny"), 8, 1, "fp4"), "dtype is 'fp4'"),
        (lambda: Job(named_shape("tiny"), 8, 1, engine="x"), "engine is 'x'"),
        (lambda: Job(named_shape("tiny"), 8, 1, attention="x"), "attention is 'x'"),
        (lambda: named_shape("gpt-9"), "model is 'gpt-9'.*gpt-22b"),
        (lambda: gpt("g", 2, 100, 3), "heads is 3"),
        (lambda: ModelShape("m", 1, 8, 1, 4, 3, 2, 8), "kv_heads is 3"),
        (lambda: ModelShape("m", 1, 8, 0, 4, 4, 2, 8), "layers is 0"),
        (
            lambda: ModelShape("m", 1, 8, 1, 4, 4, 2, 8, experts=2, experts_per_token=3),
            "experts_per_token is 3",
        ),
        (lambda: cluster("h100", 0), "gpus is 0"),
        (lambda: cluster("h100", 8, network="string"), "network is 'string'"),
        (lambda: cluster("h100", 8, network_gbit_per_s=-1), "network_gbit_per_s is -1"),
        (lambda: cluster("h100", 8, gpus_per_node=0), "gpus_per_node is 0"),
        (lambda: cluster("abacus", 8), "accelerator is 'abacus'"),
        (lambda: cluster("a100", 8).matmul_flops_per_s("fp8"), "dtype is 'fp8'.*A100"),
        (lambda: named_shape("tiny").model_flops_per_token(8, "hardware"), "convention is"),
        (lambda: step(*eight_billion()).flops("half"), "convention is 'half'"),
        (lambda: budget(step(*eight_billion()), 0), "tokens is 0"),
        (lambda: budget(step(*eight_billion()), 1e9, 0), "goodput is 0"),
    ],
)
def test_what_cannot_be_names_its_field(make, said):
    with pytest.raises(UserError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (Layout(4), "data_parallel × .* is 4, gpus is 8"),
        (Layout(8, micro_batch_size=3), "global_batch_size 64"),
        (Layout(1, 8, sequence_parallel=True, micro_batch_size=128), "global_batch_size 64"),
        (Layout(8, sequence_parallel=True), "sequence_parallel needs tensor_parallel"),
        (Layout(8, interleave=2), "interleave 2 needs pipeline_parallel"),
        (Layout(1, 1, 8, interleave=8), "pipeline_parallel 8 × interleave 8"),
        (Layout(1, 1, 8, micro_batch_size=16, interleave=2), "interleave 2 needs at least"),
        (Layout(8, expert_parallel=3), "expert_parallel 3"),
    ],
)
def test_a_layout_that_cannot_carry_the_job_names_its_field(layout, said):
    place, job, _ = eight_billion()
    with pytest.raises(UserError, match=said):
        step(place, job, layout)
