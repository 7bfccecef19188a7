"""USD per token over the whole job: laws that hold for every world size, and figures worked out by hand."""

import pytest
from hypothesis import assume, given, strategies as st

from smml.cost.units.unit_economics import (
    GlobalThroughput,
    Instances,
    Job,
    RankReport,
    ThroughputPerReplica,
    flops,
    model_flops_utilization,
    peak_flops_per_rank,
    planned_job,
    run_cost,
    throughput_of,
)
from smml.data import accelerators, instance, instances
from smml.errors import UserError

TYPES = sorted(name for name, entry in instances().items() if entry.accelerator is not None)
BF16 = [
    name
    for name in TYPES
    if accelerators()[instance(name).accelerator].peak_flops("bf16") is not None
]

nodes = st.integers(1, 32)
rates = st.floats(1, 1e7)
sizes = st.floats(1e6, 1e12)


@st.composite
def full_jobs(draw):
    """A job whose ranks fill its instances, plain data parallel, each rank reporting its own share."""
    group = Instances(draw(st.sampled_from(TYPES)), draw(nodes))
    return Job((group,), group.accelerators, ThroughputPerReplica(draw(rates)))


@given(full_jobs(), st.integers(2, 16))
def test_more_ranks_on_more_instances_at_perfect_scaling_leave_the_price_of_a_token(job, factor):
    group = job.instances[0]
    larger = Job(
        (Instances(group.type, group.count * factor),), job.world_size * factor, job.throughput
    )
    assert larger.usd_per_million_tokens == pytest.approx(job.usd_per_million_tokens)
    assert larger.tokens_per_s == pytest.approx(factor * job.tokens_per_s)
    assert larger.usd_per_hour == pytest.approx(factor * job.usd_per_hour)


@given(full_jobs(), st.integers(2, 16))
def test_more_instances_for_the_same_global_throughput_cost_as_much_more(job, factor):
    group, seen = job.instances[0], GlobalThroughput(job.tokens_per_s)
    larger = Job((Instances(group.type, group.count * factor),), job.world_size * factor, seen)
    assert larger.usd_per_million_tokens == pytest.approx(factor * job.usd_per_million_tokens)


@given(st.integers(1, 512), st.integers(1, 10**7), st.floats(0.01, 100))
def test_ranks_that_report_the_global_batch_do_not_multiply_its_tokens(world_size, tokens, seconds):
    reports = [RankReport(rank, tokens, seconds, "global") for rank in range(world_size)]
    assert throughput_of(reports).tokens_per_s == pytest.approx(tokens / seconds)


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 10**6), st.floats(0.01, 100))
def test_both_ways_of_reporting_agree(replicas, ranks_per_replica, share, seconds):
    """Whether ranks report the global batch or their replica's share, the job has replicas × share tokens."""
    ranks = range(replicas * ranks_per_replica)
    own = [RankReport(rank, share, seconds, "replica", rank // ranks_per_replica) for rank in ranks]
    everything = [RankReport(rank, share * replicas, seconds, "global") for rank in ranks]
    assert throughput_of(own).tokens_per_s == pytest.approx(throughput_of(everything).tokens_per_s)
    per_replica = ThroughputPerReplica(share / seconds, ranks_per_replica)
    assert per_replica.of_job(len(ranks)) == pytest.approx(throughput_of(own).tokens_per_s)


@given(st.integers(1, 1024), rates)
def test_a_global_throughput_does_not_depend_on_the_world_size(world_size, rate):
    assert GlobalThroughput(rate).of_job(world_size) == rate
    assert ThroughputPerReplica(rate).of_job(world_size) == world_size * rate


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=16))
def test_the_slowest_rank_sets_the_time(times):
    reports = [
        RankReport(rank, 100, seconds, "replica", rank) for rank, seconds in enumerate(times)
    ]
    assert throughput_of(reports).tokens_per_s == pytest.approx(100 * len(times) / max(times))


@given(st.sampled_from(TYPES), nodes, rates, st.data())
def test_the_price_belongs_to_instances_so_idle_accelerators_are_paid_for(name, count, rate, data):
    group = Instances(name, count)
    world_size = data.draw(st.integers(1, group.accelerators))
    job = Job((group,), world_size, GlobalThroughput(rate))
    full = Job((group,), group.accelerators, GlobalThroughput(rate))
    assert job.usd_per_hour == full.usd_per_hour == count * instance(name).price_usd_per_hour.value
    assert job.idle_accelerators == group.accelerators - world_size
    # The same speed per rank on fewer ranks: what is idle makes every token dearer, by the share that works.
    part = Job((group,), world_size, ThroughputPerReplica(rate))
    whole = Job((group,), group.accelerators, ThroughputPerReplica(rate))
    ratio = group.accelerators / world_size
    assert part.usd_per_million_tokens == pytest.approx(ratio * whole.usd_per_million_tokens)


@given(st.lists(st.tuples(st.sampled_from(TYPES), nodes), min_size=1, max_size=4), rates)
def test_every_instance_is_priced_once(groups, rate):
    fleet = tuple(Instances(name, count) for name, count in groups)
    job = Job(fleet, 1, GlobalThroughput(rate))
    one_by_one = tuple(Instances(name, 1) for name, count in groups for _ in range(count))
    assert job.usd_per_hour == pytest.approx(
        Job(one_by_one, 1, GlobalThroughput(rate)).usd_per_hour
    )


@given(full_jobs(), sizes, st.floats(1, 1e13))
def test_the_price_of_a_run_is_its_tokens_at_the_price_of_a_token(job, parameters, tokens):
    run = run_cost(job, tokens, parameters=parameters)
    assert run.usd_per_million_tokens == pytest.approx(job.usd_per_million_tokens)
    assert run.usd == pytest.approx(run.hours * job.usd_per_hour)
    assert run.flops == 6 * parameters * tokens


@given(
    st.sampled_from(BF16),
    nodes,
    sizes,
    st.floats(0.01, 1),
    st.sampled_from(["training", "inference"]),
)
def test_utilization_to_throughput_and_back(name, count, parameters, utilization, phase):
    group = Instances(name, count)
    job = planned_job((group,), group.accelerators, parameters, utilization, phase=phase)
    assert model_flops_utilization(job, parameters, phase=phase) == pytest.approx(utilization)


@given(st.sampled_from(BF16), nodes, sizes, st.floats(0.01, 1), st.floats(1e6, 1e13))
def test_the_price_of_a_planned_run_does_not_depend_on_the_world_size(
    name, count, parameters, utilization, tokens
):
    """At equal utilization n instances take 1/n of the time: accelerator-hours, and USD, are those of 6NT."""
    one, many = Instances(name, 1), Instances(name, count)
    single = run_cost(planned_job((one,), one.accelerators, parameters, utilization), tokens)
    spread = run_cost(planned_job((many,), many.accelerators, parameters, utilization), tokens)
    assert spread.usd == pytest.approx(single.usd)
    assert spread.hours * count == pytest.approx(single.hours)


@given(sizes, st.floats(1, 1e13))
def test_training_takes_three_times_the_flops_of_inference(parameters, tokens):
    assert flops("training", parameters, tokens) == pytest.approx(
        3 * flops("inference", parameters, tokens)
    )


def test_a_training_run_by_hand():
    """8.03e9 parameters on 1e12 tokens, 16 p5.48xlarge (128 H100, dense 989.4 TFLOP/s) at 40 %, $55.04 an hour each."""
    run = run_cost(
        planned_job((Instances("p5.48xlarge", 16),), 128, 8.03e9, 0.4), 1e12, parameters=8.03e9
    )
    assert run.flops == pytest.approx(4.818e22)
    assert run.hours == pytest.approx(4.818e22 / (128 * 989.4e12 * 0.4) / 3600)
    assert run.hours == pytest.approx(264.2, abs=0.1)
    assert run.usd == pytest.approx(run.hours * 16 * 55.04)
    assert run.usd_per_million_tokens == pytest.approx(0.2327, abs=1e-4)


def test_four_gpus_of_one_instance_cost_the_price_of_that_instance():
    """g6.12xlarge has 4 L4 for $4.6016: one GPU's share would be $1.15, and no rank changes what is paid."""
    job = Job((Instances("g6.12xlarge", 1),), 4, ThroughputPerReplica(1000.0))
    assert job.usd_per_hour == pytest.approx(4.6016)
    assert job.usd_per_million_tokens == pytest.approx(4.6016 / (4000 * 3600) * 1e6)
    parallel = Job(
        (Instances("g6.12xlarge", 1),), 4, ThroughputPerReplica(1000.0, ranks_per_replica=4)
    )
    assert parallel.usd_per_million_tokens == pytest.approx(4.6016 / (1000 * 3600) * 1e6)


def test_another_price_replaces_the_catalogues():
    spot = Job((Instances("g6.12xlarge", 2, price_usd_per_hour=2.0),), 8, GlobalThroughput(1000.0))
    assert spot.usd_per_hour == 4.0
    owned = Job(
        (Instances("our own server", 1, price_usd_per_hour=0.5),), 2, GlobalThroughput(1000.0)
    )
    assert (owned.usd_per_hour, owned.accelerators, owned.idle_accelerators) == (0.5, None, None)
    on_cpu = Job((Instances("c5.large", 1),), 2, GlobalThroughput(1000.0))
    assert (on_cpu.usd_per_hour, on_cpu.idle_accelerators) == (0.085, 0)


def test_of_mixed_types_the_slowest_sets_the_pace():
    mixed = (Instances("g6.xlarge", 1), Instances("g6e.xlarge", 1))
    assert peak_flops_per_rank(mixed, "bf16") == 121e12


@given(st.integers(1, 64), st.integers(2, 8))
def test_ranks_that_form_no_whole_replica_are_refused(world_size, ranks_per_replica):
    assume(world_size % ranks_per_replica)
    with pytest.raises(
        UserError, match=f"world_size is {world_size} and ranks_per_replica is {ranks_per_replica}"
    ):
        Job(
            (Instances("p5.48xlarge", 8),),
            world_size,
            ThroughputPerReplica(1.0, ranks_per_replica=ranks_per_replica),
        )


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (
            lambda: Job((Instances("g6.12xlarge", 1),), 8, GlobalThroughput(1.0)),
            "world_size is 8 .* 4 accelerators",
        ),
        (lambda: Job((), 1, GlobalThroughput(1.0)), "instances is empty"),
        (lambda: Job((Instances("g6.xlarge", 1),), 0, GlobalThroughput(1.0)), "world_size is 0"),
        (lambda: Instances("g6.xlarge", 0), "count is 0"),
        (lambda: Instances("g99.xlarge", 1), "no price of 'g99.xlarge'"),
        (lambda: Instances("g6.xlarge", 1, -1.0), "price_usd_per_hour is -1.0"),
        (lambda: GlobalThroughput(0.0), "tokens_per_s is 0.0"),
        (lambda: GlobalThroughput(float("nan")), "tokens_per_s is nan"),
        (lambda: throughput_of([]), "reports is empty"),
        (lambda: throughput_of([RankReport(0, 8, 0.0, "global")]), "seconds is 0.0"),
        (
            lambda: throughput_of(
                [RankReport(0, 8, 1.0, "global"), RankReport(0, 8, 1.0, "global")]
            ),
            "a rank twice",
        ),
        (
            lambda: throughput_of(
                [RankReport(0, 8, 1.0, "global"), RankReport(1, 2, 1.0, "replica")]
            ),
            "mixes the scopes global, replica",
        ),
        (
            lambda: throughput_of(
                [RankReport(0, 8, 1.0, "global"), RankReport(1, 2, 1.0, "global")]
            ),
            "rank 1 reports 2 tokens .* reports 8",
        ),
        (lambda: flops("serving", 1.0, 1.0), "phase is 'serving'"),
        (
            lambda: planned_job((Instances("g6.xlarge", 1),), 1, 1e9, 40.0),
            "model_flops_utilization is 40.0",
        ),
        (
            lambda: planned_job((Instances("c5.large", 1),), 1, 1e9, 0.4),
            "no bf16 peak .* 'c5.large'",
        ),
        (
            lambda: planned_job((Instances("g4dn.xlarge", 1),), 1, 1e9, 0.4),
            "no bf16 peak .* 'g4dn.xlarge'",
        ),
    ],
)
def test_what_cannot_be_is_named(make, named):
    with pytest.raises(UserError, match=named):
        make()
