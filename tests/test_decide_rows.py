"""The rows of the starting documents' tables and lists that tests/test_decide.py does not hold, each as a case."""

import dataclasses

import pytest
from workloads import BULK, CHAT, CLASSICAL, PRETRAINING, SMALL, UNHURRIED

from smml.cost.buying.choose import Interruptible, choose_purchase
from smml.cost.buying.demand import monthly
from smml.cost.decisions.decide import choose, option
from smml.cost.decisions.decide_data import DataTask, choose_data_tool
from smml.cost.decisions.decide_place import Placement, choose_place
from smml.cost.decisions.deployment import choose_deployment
from smml.cost.decisions.environments import environments
from smml.cost.decisions.instances import Need, choose_instance
from smml.cost.decisions.standing import barred
from smml.cost.decisions.workload import Workload
from smml.data import instance, instances

# Made-up workloads of each kind: an image classifier of 25.6 M parameters and 4.1 G multiply-adds an image, a sentence
# encoder of 0.34 G, a recommender that holds 20 GB of tables and computes little of them.
VISION = {"parameters": 2.56e7, "dtype": "fp16", "flops_per_token": 8.2e9}
VISION_TRAINING = Workload(
    "training",
    2.56e7,
    dtype="fp16",
    bytes_per_parameter=16,
    flops_per_token=2.46e10,
    extra_memory_bytes=6e9,
    tokens=1e8,
    deadline_hours=24,
)
VISION_SERVICE = Workload(
    "real-time inference", **VISION, tokens_per_s=20_000, batch_size=32, latency_s=0.05
)
ENCODER = Workload(
    "real-time inference", 3.4e8, dtype="fp16", tokens_per_s=2e5, batch_size=512, latency_s=0.02
)
RECOMMENDER = Workload(
    "real-time inference",
    1e8,
    dtype="fp16",
    extra_memory_bytes=2e10,
    tokens_per_s=2e5,
    batch_size=1024,
    latency_s=0.4,
)
CHATBOT = dataclasses.replace(CHAT, latency_s=0.15)
TRIAL = dataclasses.replace(UNHURRIED, tokens=1e6)

CPU_OR_GPU = {
    "CPU: general purpose, small-scale inference": (
        dataclasses.replace(CLASSICAL, tokens_per_s=1),
        "cpu",
    ),
    "CPU: lower cost, experimentation": (TRIAL, "cpu"),
    "GPU: parallel processing, vector/matrix operations": (PRETRAINING, "gpu"),
    "GPU: fast training for large models (CNNs)": (VISION_TRAINING, "gpu"),
    "GPU: deep learning, vision": (VISION_SERVICE, "gpu"),
    "GPU: deep learning, NLP": (ENCODER, "gpu"),
    "GPU: deep learning, recommendation": (RECOMMENDER, "gpu"),
}


@pytest.mark.parametrize(("workload", "kind"), CPU_OR_GPU.values(), ids=CPU_OR_GPU)
def test_row_of_cpu_or_gpu(workload, kind):
    decision = choose(workload, kinds=("cpu", "gpu"))
    assert decision.choice.kind == kind
    assert decision.why_not("gpu" if kind == "cpu" else "cpu")


@pytest.mark.parametrize("family", ["t3", "m5", "c5"], ids="CPU: wide availability ({})".format)
def test_row_of_availability(family):
    types = [entry for entry in instances().values() if entry.family == family]
    assert types
    assert all(barred(entry) is None and entry.price_usd_per_hour for entry in types)


PHASES = {
    "specialised: P-series trains": (PRETRAINING, "p"),
    "specialised: G-series serves": (CHATBOT, "g"),
}


@pytest.mark.parametrize(("workload", "series"), PHASES.values(), ids=PHASES)
def test_row_of_gpu_series(workload, series):
    assert choose(workload, kinds=("gpu",)).choice.instance.family.startswith(series)


INFERENCE_OPTIMISED = {
    "real-time recommender systems": RECOMMENDER,
    "computer vision (image classification)": VISION_SERVICE,
    "chatbots, virtual assistants": CHATBOT,
}


@pytest.mark.parametrize("workload", INFERENCE_OPTIMISED.values(), ids=INFERENCE_OPTIMISED)
def test_row_of_inference_optimised(workload):
    """What the table gives to Inf1 and G4ad goes to what succeeded them: an inference accelerator, by price."""
    decision = choose(workload)
    assert decision.choice.instance.family in ("inf2", "g4dn", "g5", "g6", "g6e")
    assert "inf1" in [one.option for one in decision.rejected]
    assert not next(one for one in decision.rejected if one.option == "inf1").feasible


FAMILIES = {
    "memory-optimized: NLP models held in memory": (Need(vcpu=8, memory_gib=60), "r5", "memory"),
    "memory-optimized: large-scale data preprocessing": (
        Need(vcpu=16, memory_gib=120),
        "r5",
        "memory",
    ),
    "compute-optimized: training simple models": (Need(vcpu=16, memory_gib=30), "c6g", "compute"),
    "compute-optimized: real-time analytics, scientific computing (x86)": (
        Need(vcpu=16, memory_gib=30, runs_on_arm=False),
        "c5",
        "compute",
    ),
    "G-series: one GPU of 24 GB (G5, G6)": (
        Need(accelerator="gpu", accelerators=1, accelerator_memory_bytes=24e9),
        "g6",
        "accelerator",
    ),
}


@pytest.mark.parametrize(("need", "family", "binding"), FAMILIES.values(), ids=FAMILIES)
def test_row_of_instance_families(need, family, binding):
    decision = choose_instance(need)
    assert decision.choice.instance.family == family
    assert decision.choice.binding == binding


def test_row_production_scales_out_with_the_load():
    small, large = (
        environments(dataclasses.replace(CHATBOT, tokens_per_s=rate))[2] for rate in (400, 4000)
    )
    assert large.count > small.count
    assert large.usd_per_month > small.usd_per_month


@pytest.mark.parametrize(
    ("workload", "kind"), [(CLASSICAL, "cpu"), (CHATBOT, "accelerator")], ids=["CPU", "GPU"]
)
def test_row_production_is_a_cluster_of_cpus_or_accelerators_as_needed(workload, kind):
    production = environments(workload)[2]
    assert production.count >= 2
    assert (instance(production.instance).accelerator is None) == (kind == "cpu")


def test_row_batch_pays_for_its_runtime_only():
    """ "Spin up GPU clusters only during job runtime": hours of the job, not of the month."""
    job = choose(BULK, kinds=("gpu",)).choice
    assert job.hours < 10
    hourly = job.instance.price_usd_per_hour.value * job.rate.instances
    assert job.price.usd == pytest.approx(hourly * job.hours)


def test_row_spot_for_retriable_jobs():
    """ "Use EC2 Spot Instances for non-critical or retriable jobs": the same job, at a recorded spot price, costs less."""
    demanded, spot = (
        choose(BULK, kinds=("gpu",), region="us-east-1", capacity=capacity).price.usd
        for capacity in ("on-demand", "spot")
    )
    assert spot < demanded
    work = Interruptible(checkpoint_s=30, restart_s=300, taken_back=0.2)
    bought = choose_purchase("g5.xlarge", monthly(300), 12, interruptible=work)
    assert str(bought.choice) == "spot"
    assert "may not be interrupted" in choose_purchase("g5.xlarge", monthly(300), 12).why_not(
        "spot"
    )


def test_row_inference_sizes_are_chosen_carefully():
    """ "GPUs are expensive": what carries the load in one size costs more in the next."""
    light = dataclasses.replace(CHAT, tokens_per_s=50)
    fitting, larger = (option(instance(name), light) for name in ("g6.xlarge", "g6.12xlarge"))
    assert larger.price.usd > 3 * fitting.price.usd


# "When to use each approach", local or AWS. Prices are made up: a machine that costs 2 USD an hour, or 30,000 to buy.
ALWAYS_ON = Placement(1, 1, usd_per_hour=2, own_purchase_usd=30_000, own_usd_per_month=300)
PLACES = {
    "local: cost-sensitive, persistent workloads": (ALWAYS_ON, "own hardware"),
    "local: full control over hardware and environment": (
        dataclasses.replace(ALWAYS_ON, mean_machines=0.1, shapes_hardware=True),
        "own hardware",
    ),
    "local: sensitive data, strict data residency": (
        dataclasses.replace(ALWAYS_ON, mean_machines=0.1, data_must_stay=True),
        "own hardware",
    ),
    "AWS: scalability": (dataclasses.replace(ALWAYS_ON, peak_machines=8), "AWS"),
    "AWS: quick start": (dataclasses.replace(ALWAYS_ON, needed_in_days=7), "AWS"),
    "AWS: managed infrastructure, collaboration, integrated security": (
        dataclasses.replace(ALWAYS_ON, managed=True),
        "AWS",
    ),
    "AWS: experimentation, quick prototyping": (
        dataclasses.replace(ALWAYS_ON, mean_machines=0.05, horizon_months=2),
        "AWS",
    ),
    "AWS: scaling to production": (
        dataclasses.replace(ALWAYS_ON, mean_machines=2, peak_machines=20),
        "AWS",
    ),
}


@pytest.mark.parametrize(("wanted", "place"), PLACES.values(), ids=PLACES)
def test_row_of_local_or_aws(wanted, place):
    decision = choose_place(wanted)
    assert decision.choice == place
    assert decision.rejected[0].why
    assert any("month" in reason for reason in decision.reasons)


# "Core AWS tools", "Storage & data pipeline integration" and step 4 of the mapping sheet.
TABLE = DataTask(data_bytes=1e12, piece_bytes=1e9)
DATA = {
    "pandas, numpy, custom scripts -> this machine": (
        DataTask(2e9, 1e8, in_s3=False),
        "this machine",
    ),
    "data cleaning on CPUs -> this machine": (DataTask(1e8, 1e8, in_s3=False), "this machine"),
    "Athena: query data directly from S3": (dataclasses.replace(TABLE, sql=True), "Amazon Athena"),
    "Glue: data preparation & cataloguing before training": (
        dataclasses.replace(TABLE, catalogue=True),
        "AWS Glue",
    ),
    "Lambda: event-driven, when new data arrives in S3": (
        dataclasses.replace(TABLE, piece_bytes=1e8, on_arrival=True),
        "AWS Lambda",
    ),
    "SageMaker Processing Jobs": (
        dataclasses.replace(TABLE, managed=True),
        "SageMaker Processing",
    ),
    "Step Functions: orchestrate multi-step workflows": (
        dataclasses.replace(TABLE, steps=4),
        "AWS Step Functions",
    ),
    "Batch: massive datasets, not real-time": (TABLE, "AWS Batch"),
    "Batch: retraining jobs with a GPU": (dataclasses.replace(TABLE, needs_gpu=True), "AWS Batch"),
    "Kinesis: real-time streaming data": (
        dataclasses.replace(TABLE, stream=True),
        "Amazon Kinesis",
    ),
    "Kafka on MSK": (dataclasses.replace(TABLE, stream=True, kafka=True), "Amazon MSK"),
}


@pytest.mark.parametrize(("task", "tool"), DATA.values(), ids=DATA)
def test_row_of_data_tools(task, tool):
    decision = choose_data_tool(task)
    assert decision.choice == tool
    assert tool not in [one.option for one in decision.rejected]


DEPLOYMENTS = {
    "Lambda: small, optimised models": (dataclasses.replace(SMALL, memory_bytes=2e8), "Lambda"),
    "Lambda: max package size": (dataclasses.replace(SMALL, package_bytes=5e8), "ECS/EKS"),
    "Lambda: memory constraints": (dataclasses.replace(SMALL, memory_bytes=2e10), "ECS/EKS"),
    "Lambda: execution time constraints": (
        dataclasses.replace(SMALL, work_seconds_per_request=1e4, requests_per_month=10),
        "ECS/EKS",
    ),
    "ECS/EKS: custom inference containers (TensorFlow Serving, TorchServe)": (
        dataclasses.replace(SMALL, own_infrastructure=True),
        "ECS/EKS",
    ),
    "ECS/EKS: horizontal scaling for high request volumes": (
        dataclasses.replace(SMALL, requests_per_month=3e8),
        "ECS/EKS",
    ),
}


@pytest.mark.parametrize(("wanted", "service"), DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_row_of_deployment_tools(wanted, service):
    assert choose_deployment(wanted).choice == service


def test_the_managed_lifecycle_says_what_has_ended():
    decision = choose_deployment(dataclasses.replace(SMALL, managed_lifecycle=True))
    assert decision.choice == "SageMaker"
    assert any("Model Monitor: closed to new customers" in reason for reason in decision.reasons)
