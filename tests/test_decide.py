"""Choosing compute: every row of the decision tables that this course starts from is a case here."""

import dataclasses
import re

import pytest
from hypothesis import given, strategies as st
from workloads import (
    BULK,
    CHAT,
    CLASSICAL,
    NIGHTLY,
    PERFORMANCE,
    PRETRAINING,
    PROTOTYPE,
    SMALL,
    UNHURRIED,
    URGENT,
)

from smml.cost.decisions.decide import choose, option
from smml.cost.decisions.deployment import choose_deployment, lambda_usd_per_request
from smml.cost.decisions.environments import environments
from smml.cost.decisions.instances import Need, choose_instance
from smml.cost.decisions.standing import barred, successor
from smml.data import instance, instances, limits

# The table "Decision factors: CPU vs. GPU", both columns, then the lists "When to use CPUs" and "When to use GPUs".
CPU_OR_GPU = {
    "model complexity: simple/classical ML -> CPU": (CLASSICAL, "cpu"),
    "model complexity: large deep learning -> GPU": (PRETRAINING, "gpu"),
    "cost sensitivity: lower cost, dev/test -> CPU": (PROTOTYPE, "cpu"),
    "cost sensitivity: higher cost, performance-critical -> GPU": (PERFORMANCE, "gpu"),
    "inference volume: low-throughput, batch -> CPU": (NIGHTLY, "cpu"),
    "inference volume: high-volume, low-latency -> GPU": (
        dataclasses.replace(CHAT, latency_s=0.1),
        "gpu",
    ),
    "time constraints: non-urgent -> CPU": (UNHURRIED, "cpu"),
    "time constraints: time-sensitive training/inference -> GPU": (URGENT, "gpu"),
    "use CPUs: light ML models (linear regression, decision trees)": (CLASSICAL, "cpu"),
    "use CPUs: development and prototyping": (PROTOTYPE, "cpu"),
    "use CPUs: low-throughput or batch inference": (NIGHTLY, "cpu"),
    "use GPUs: deep learning (vision, NLP, recommendation)": (PRETRAINING, "gpu"),
    "use GPUs: high-volume, real-time inference (BERT/GPT)": (CHAT, "gpu"),
    "use GPUs: strict training deadlines": (URGENT, "gpu"),
}


@pytest.mark.parametrize(("workload", "kind"), CPU_OR_GPU.values(), ids=CPU_OR_GPU)
def test_row_of_cpu_or_gpu(workload, kind):
    decision = choose(workload, kinds=("cpu", "gpu"))
    assert decision.choice.kind == kind
    assert decision.price == decision.choice.price
    other = "gpu" if kind == "cpu" else "cpu"
    assert decision.why_not(other), "the loser's reason stands in the decision"
    assert re.search(r"\d", decision.why_not(other)) or "operators" in decision.why_not(other)


def test_batch_goes_to_the_cpu_only_while_there_is_little_of_it():
    """The tables send batch inference to CPUs; that holds as long as start-up outweighs the work."""
    assert choose(NIGHTLY, kinds=("cpu", "gpu")).choice.kind == "cpu"
    assert choose(BULK, kinds=("cpu", "gpu")).choice.kind == "gpu"


def test_best_practice_train_on_gpus_serve_on_inferentia():
    """Match compute to the phase: the chat model is served by Inferentia where memory bandwidth a dollar decides."""
    assert choose(PRETRAINING).choice.kind == "gpu"
    served = dataclasses.replace(CHAT, tokens_per_s=150, batch_size=8)
    decision = choose(served)
    assert (decision.choice.kind, decision.choice.instance.family) == ("neuron", "inf2")
    assert "times the price" in decision.why_not("gpu")


def test_best_practice_p4d_for_training_has_been_overtaken_and_says_by_what():
    decision = choose(PRETRAINING)
    assert decision.choice.instance.family.startswith(("p5", "p6"))
    assert "p4d.24xlarge" in decision.why_not("p4d")
    assert option(instance("p4d.24xlarge"), PRETRAINING).price.usd > decision.price.usd


def test_best_practice_inf1_for_inference_names_its_successor_with_the_date():
    why = choose(CHAT).why_not("inf1")
    assert "successor: inf2.xlarge" in why
    assert str(limits.fact("inf1_software").date) in why


# "Instance types and their impact": the need that each family is praised for, and the family that meets it today.
FAMILIES = {
    "R5: large datasets, analytics": (Need(vcpu=4, memory_gib=30), "r5", "memory"),
    "X1e: memory-bound, in-memory databases": (Need(vcpu=64, memory_gib=3000), "x1e", "memory"),
    "C5: CPU-bound ML": (Need(vcpu=8, memory_gib=16, runs_on_arm=False), "c5", "compute"),
    "C6g: Arm-based, cost-efficient, high-performance CPU": (
        Need(vcpu=8, memory_gib=16),
        "c6g",
        "compute",
    ),
    "T3: development at a low mean load": (
        Need(vcpu=2, memory_gib=4, average_cpu=0.1),
        "t3",
        "memory",
    ),
    "M5: general purpose, sustained": (Need(vcpu=2, memory_gib=8, average_cpu=0.6), "m5", "memory"),
    "G4: GPU inference": (
        Need(accelerator="gpu", accelerators=1, accelerator_memory_bytes=16e9),
        "g4dn",
        "accelerator",
    ),
    "P4: training over a fast network": (
        Need(accelerator="gpu", accelerators=8, network_gbit_per_s=400),
        "p4d",
        "network",
    ),
    "Inf1: low-cost inference -> Inf2": (
        Need(accelerator="neuron", accelerators=1),
        "inf2",
        "accelerator",
    ),
    "G4ad: real-time multimedia and ML inference -> G4dn": (
        Need(accelerator="gpu", accelerators=1, accelerator_memory_bytes=8e9),
        "g4dn",
        "accelerator",
    ),
    "burst: above the baseline T3 is no bargain": (Need(vcpu=2, memory_gib=4), "c6g", "burst"),
    "network: 25 Gbit/s that last": (
        Need(vcpu=4, memory_gib=8, network_gbit_per_s=25),
        "c6g",
        "network",
    ),
}


@pytest.mark.parametrize(("need", "family", "binding"), FAMILIES.values(), ids=FAMILIES)
def test_row_of_instance_families(need, family, binding):
    decision = choose_instance(need)
    assert decision.choice.instance.family == family
    assert decision.choice.binding == binding
    assert any(f"{binding.capitalize()} binds" in reason for reason in decision.reasons)


WITHDRAWN = {
    "P3: p-series (p3, p4)": ("p3", "p4d.24xlarge", "2025-02-23"),
    "G4ad: GPU-based, real-time": ("g4ad", "g5.xlarge", "2026-05-10"),
    "Inf1: AWS Inferentia": ("inf1", "inf2.xlarge", "2026-03-11"),
}


@pytest.mark.parametrize(("family", "heir", "date"), WITHDRAWN.values(), ids=WITHDRAWN)
def test_an_outdated_family_is_refused_with_date_and_successor(family, heir, date):
    for decision in (choose(CHAT), choose_instance(Need(accelerator="gpu", accelerators=1))):
        why = decision.why_not(family)
        assert f"successor: {heir}" in why
        assert date in why


def test_the_previous_generation_is_chosen_with_its_dated_status():
    decision = choose_instance(Need(vcpu=4, memory_gib=30))
    dated = str(instance("r5.xlarge").memory.date)
    assert any("previous generation" in reason and dated in reason for reason in decision.reasons)


@pytest.mark.parametrize("name", [name for name, entry in instances().items() if barred(entry)])
def test_a_successor_is_usable_and_in_nothing_less(name):
    from smml.data import accelerators

    heir = successor(instance(name))
    assert barred(heir) is None
    old, new = accelerators()[instance(name).accelerator], accelerators()[heir.accelerator]
    assert new.memory.value >= old.memory.value
    assert new.bandwidth.value >= old.bandwidth.value
    assert all(
        new.peak_flops(dtype).value >= peak.value for dtype, peak in old.dense_peak_flops.items()
    )


# "Managing compute resources across environments".
def test_rows_of_environments():
    development, staging, production = environments(dataclasses.replace(CHAT, latency_s=0.1))
    assert (development.name, staging.name, production.name) == (
        "development",
        "staging",
        "production",
    )
    assert development.instance == "t3.medium", "small CPU instances (t3.medium, m5.large)"
    assert development.interruptible, "spot instances for cost savings"
    assert not staging.interruptible
    assert not production.interruptible
    assert staging.instance.split(".")[0] == production.instance.split(".")[0], (
        "staging mimics production"
    )
    assert staging.count >= 2, "the distribution over instances is tested too"
    assert development.usd_per_month < staging.usd_per_month < production.usd_per_month
    assert all(environment.reasons for environment in (development, staging, production))


def test_the_other_development_machine_is_m5_large():
    busy = Need(vcpu=2, memory_gib=8, average_cpu=0.6, runs_on_arm=False)
    assert environments(CHAT, development=busy)[0].instance == "m5.large"


def test_production_survives_the_loss_of_an_instance_and_its_price_says_so():
    one = environments(CLASSICAL, minimum_production=1)[2]
    two = environments(CLASSICAL)[2]
    assert (one.count, two.count) == (1, 2)
    assert two.usd_per_month == pytest.approx(2 * one.usd_per_month)


HEAVY = dataclasses.replace(SMALL, needs_accelerator=True, accelerator_memory_bytes=20e9)
# The table "Choosing the right deployment method", then the list "When NOT to use SageMaker".
DEPLOYMENTS = {
    "full ML lifecycle management -> SageMaker": (
        dataclasses.replace(SMALL, managed_lifecycle=True),
        "SageMaker",
    ),
    "low-latency serverless inference -> Lambda": (SMALL, "Lambda"),
    "heavy models with GPU requirements -> ECS/EKS": (HEAVY, "ECS/EKS"),
    "batch predictions -> AWS Batch": (
        dataclasses.replace(SMALL, batch=True, requests_per_month=1e7),
        "AWS Batch",
    ),
    "real-time data + retraining -> Kinesis + SageMaker": (
        dataclasses.replace(SMALL, retrains_on_stream=True),
        "Kinesis + SageMaker",
    ),
    "not SageMaker: very simple models -> Lambda": (
        dataclasses.replace(SMALL, latency_s=None),
        "Lambda",
    ),
    "not SageMaker: full custom infrastructure -> ECS/EKS": (
        dataclasses.replace(SMALL, own_infrastructure=True),
        "ECS/EKS",
    ),
    "Lambda for low traffic only: much of it -> ECS/EKS": (
        dataclasses.replace(SMALL, requests_per_month=1e8),
        "ECS/EKS",
    ),
}


@pytest.mark.parametrize(("wanted", "service"), DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_row_of_deployment_methods(wanted, service):
    decision = choose_deployment(wanted)
    assert decision.choice == service
    assert re.search(r"\d", decision.reasons[0])
    assert service not in [entry.option for entry in decision.rejected]
    assert all(entry.why for entry in decision.rejected)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"needs_accelerator": True, "accelerator_memory_bytes": 1e9}, "CPUs only"),
        ({"memory_bytes": 11e9}, "10.7 GB at most"),
        ({"image_bytes": 12e9}, "the image has 12 GB"),
        ({"work_seconds_per_request": 1000.0}, "stops it after 15 min"),
        ({"cold_start_s": 3.0}, "cold start takes 3.05 s"),
    ],
)
def test_a_limit_of_lambda_is_named_with_both_numbers(change, named):
    decision = choose_deployment(dataclasses.replace(SMALL, **change))
    assert decision.choice == "ECS/EKS"
    assert named in decision.why_not("Lambda")


@given(st.floats(1e3, 1e9))
def test_the_cheaper_of_lambda_and_an_instance_is_chosen(requests):
    wanted = dataclasses.replace(SMALL, requests_per_month=requests)
    decision = choose_deployment(wanted)
    serverless = lambda_usd_per_request(wanted) * requests
    if decision.choice == "Lambda":
        assert decision.price.usd == pytest.approx(serverless)
    else:
        assert decision.price.usd <= serverless
