"""What cannot be done is refused with the reason and both numbers: memory, limits of services, Spot, what has ended."""

import dataclasses

import pytest
from hypothesis import given, strategies as st
from workloads import BULK, CHAT, SMALL

from smml.cost.decisions.decide import choose
from smml.cost.decisions.decide_data import DataTask, lambda_refusal
from smml.cost.decisions.decide_memory import serving_memory
from smml.cost.decisions.decide_region import known_instance, offered, recorded_spot
from smml.cost.decisions.decide_target import judge, known_target, refusals
from smml.cost.decisions.decide_workload import decide
from smml.data import instances, limits
from smml.data.spot_history import spot_history
from smml.errors import UserError

HEAVY = dataclasses.replace(SMALL, needs_accelerator=True, accelerator_memory_bytes=2e10)
TARGETS = {
    "GPU on Fargate": ("Fargate", HEAVY, "Fargate runs no GPU task"),
    "GPU on Lambda": ("Lambda", HEAVY, "CPUs only"),
    "GPU on SageMaker serverless": ("SageMaker serverless", HEAVY, "has no GPU"),
    "package over Lambda's limit": (
        "Lambda",
        dataclasses.replace(SMALL, package_bytes=7e8),
        "700 MB unzipped, Lambda takes 262 MB at most",
    ),
    "image over Lambda's limit": (
        "Lambda",
        dataclasses.replace(SMALL, image_bytes=2e10),
        "image has 20 GB, Lambda takes 10.7 GB",
    ),
    "memory over a Fargate task": (
        "Fargate",
        dataclasses.replace(SMALL, memory_bytes=2e11),
        "200 GB of memory in a task, at most",
    ),
    "image over a Fargate task's storage": (
        "Fargate",
        dataclasses.replace(SMALL, image_bytes=3e11),
        "300 GB of image in a task's storage, at most 215 GB",
    ),
    "memory over SageMaker serverless": (
        "SageMaker serverless",
        dataclasses.replace(SMALL, memory_bytes=8e9),
        "8 GB of memory, at most 6.44 GB",
    ),
    "two minutes of work on a real-time endpoint": (
        "SageMaker real-time",
        dataclasses.replace(SMALL, work_seconds_per_request=120, latency_s=None),
        "2 min of work for a request, at most 60 s",
    ),
    "somebody waits for an asynchronous endpoint": (
        "SageMaker asynchronous",
        SMALL,
        "not the answer, and somebody waits 2 s",
    ),
    "somebody waits for a batch job": ("AWS Batch", SMALL, "queue"),
    "a slow answer behind API Gateway": (
        "ECS/EKS on EC2",
        dataclasses.replace(SMALL, work_seconds_per_request=40, behind_api_gateway=True),
        "runs 40 s, API Gateway waits 29 s",
    ),
}


@pytest.mark.parametrize(("target", "wanted", "named"), TARGETS.values(), ids=TARGETS)
def test_a_target_is_refused_with_the_reason(target, wanted, named):
    decision = judge(wanted, target)
    assert decision.choice is None
    assert any(named in reason for reason in decision.reasons), decision.reasons


SPOT = {
    "real-time endpoint": ("SageMaker real-time", SMALL, "a real-time endpoint has no such field"),
    "Lambda": ("Lambda", SMALL, "no Spot capacity"),
    "a service on containers": ("ECS/EKS on EC2", SMALL, "reclaimed 2 min after a notice"),
}


@pytest.mark.parametrize(("target", "wanted", "named"), SPOT.values(), ids=SPOT)
def test_spot_is_refused_where_somebody_waits(target, wanted, named):
    assert any(named in reason for reason in judge(wanted, target, "spot").reasons)
    assert not refusals(wanted, target)


def test_spot_will_do_for_a_batch():
    nobody = dataclasses.replace(SMALL, latency_s=None)
    assert refusals(nobody, "AWS Batch", "spot") == []
    assert judge(nobody, "AWS Batch", "spot").choice == "AWS Batch"


def test_spot_for_a_service_is_no_choice_of_compute():
    decision = choose(CHAT, capacity="spot")
    assert decision.choice is None
    assert "reclaimed 2 min after a notice" in decision.reasons[0]


def test_the_endpoint_of_the_api_has_no_field_for_spot_and_the_training_job_has():
    from botocore.session import get_session

    model = get_session().get_service_model("sagemaker")
    assert not [m for m in model.shape_for("ProductionVariant").members if "Spot" in m]
    training = model.operation_model("CreateTrainingJob").input_shape.members
    assert "EnableManagedSpotTraining" in training
    serverless = model.shape_for("ProductionVariantServerlessConfig")
    assert serverless.members["MemorySizeInMB"].metadata["max"] * 2**20 == (
        limits.limit("sagemaker_serverless_memory").value
    )
    assert not [m for m in serverless.members if "ccelerator" in m]


def test_what_can_be_done_has_a_price():
    assert judge(SMALL, "Lambda").price.usd > 0
    assert judge(HEAVY, "ECS/EKS on EC2").price.usd > judge(SMALL, "ECS/EKS on EC2").price.usd
    assert judge(SMALL, "Fargate").choice == "Fargate"


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("elastic inference", "withdrawn since 2023-04-15; successor: EC2 Inf2"),
        ("TorchServe", "withdrawn since 2025-08-07"),
        ("amazon s3", "serves no model by itself"),
        ("heroku", "no deployment target is called 'heroku'; there are Lambda, Fargate"),
    ],
)
def test_an_unknown_or_ended_target_is_named(name, named):
    with pytest.raises(UserError, match=named):
        known_target(name)


def test_targets_are_known_under_their_common_names():
    assert known_target("ECS") == known_target("eks") == "ECS/EKS on EC2"
    assert known_target("sagemaker-async") == "SageMaker asynchronous"


# Memory: 2 · 32 layers · 8 heads · 128 · 2 B = 128 KiB of KV cache a token of Llama-3.1-8B.
def test_a_context_of_128k_takes_16_gib_and_does_not_fit_beside_8b_on_24_gb():
    memory = serving_memory("llama-3.1-8b", "g5.xlarge", 131_072, 1)
    assert memory.kv_cache_bytes == 16 * 2**30
    assert not memory.fits
    assert "does not fit" in str(memory)
    assert "17.2 GB of KV cache" in str(memory)
    assert "1 device of 24 GB" in str(memory)


def test_the_room_that_is_named_is_exact():
    memory = serving_memory("llama-3.1-8b", "g5.xlarge", 8192, 4)
    most = memory.most_tokens
    assert serving_memory("llama-3.1-8b", "g5.xlarge", most, 1).fits
    assert not serving_memory("llama-3.1-8b", "g5.xlarge", most + 1, 1).fits


@given(st.integers(1, 64), st.sampled_from(["g5.xlarge", "g6e.xlarge", "p4d.24xlarge"]))
def test_more_sequences_never_fit_where_fewer_do_not(sequences, name):
    fewer = serving_memory("llama-3.1-8b", name, 16_384, sequences)
    more = serving_memory("llama-3.1-8b", name, 16_384, sequences + 1)
    assert fewer.fits or not more.fits
    assert more.held_bytes > fewer.held_bytes


def test_fewer_bytes_a_number_make_room():
    bf16, fp8 = (serving_memory("llama-3.1-8b", "g5.xlarge", 8192, 1, d) for d in ("bf16", "fp8"))
    assert fp8.held_bytes * 2 == bf16.held_bytes
    assert fp8.most_tokens > 4 * bf16.most_tokens


def test_weights_that_are_too_large_alone_say_so():
    assert str(serving_memory("llama-3.1-70b", "g5.xlarge", 8, 1)).endswith(
        "the weights alone are too large"
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("llama-9", "g5.xlarge", 8, 1), "no model is called 'llama-9'"),
        (("llama-3.1-8b", "g5.huge", 8, 1), "no instance type 'g5.huge'; the nearest are g5"),
        (("llama-3.1-8b", "m5.large", 8, 1), "m5.large has no accelerator"),
        (("llama-3.1-8b", "g5.xlarge", 8, 0), "sequences is 0"),
        (("llama-2-7b", "g5.xlarge", 100_000, 1), "made for 4,096 at most"),
    ],
)
def test_wrong_input_of_memory_is_named(arguments, named):
    with pytest.raises(UserError, match=named):
        serving_memory(*arguments)


CHAT_8B = {"model": "llama-3.1-8b", "tokens_per_s": 10.0}


def test_decide_refuses_one_type_with_its_reason():
    too_long = decide(
        "real-time inference", **CHAT_8B, context_tokens=131_072, instance="g5.xlarge"
    )
    assert too_long.choice is None
    assert "KV cache" in too_long.reasons[0]
    withdrawn = decide("real-time inference", **CHAT_8B, instance="p3.2xlarge")
    assert "successor" in withdrawn.reasons[0]
    fits = decide("real-time inference", **CHAT_8B, context_tokens=8192, instance="g5.xlarge")
    assert str(fits.choice) == "1 × g5.xlarge"


def test_a_longer_context_never_costs_less():
    prices = [
        decide("real-time inference", **CHAT_8B, sequences=4, context_tokens=tokens).price.usd
        for tokens in (1024, 16_384, 131_072)
    ]
    assert prices == sorted(prices)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tokens_per_s": 1.0}, "give --model or --parameters"),
        ({**CHAT_8B, "parameters": 1e9}, "one of them"),
        ({"parameters": 1e9, "tokens_per_s": 1.0, "context_tokens": 8}, "needs --model"),
        ({**CHAT_8B, "region": "mars-north-1"}, "known are .*us-east-1"),
        ({**CHAT_8B, "instance": "g9.large"}, "no instance type 'g9.large'"),
        ({**CHAT_8B, "capacity": "free"}, "allowed are on-demand, spot"),
    ],
)
def test_wrong_input_of_decide_is_named(fields, named):
    with pytest.raises(UserError, match=named):
        decide("real-time inference", **fields)


def test_prices_of_a_region_are_taken_and_a_type_without_one_is_not_judged():
    here = offered("us-east-1")
    assert {name for name, e in here.items() if e.price_usd_per_hour} <= set(instances())
    assert here["g6.xlarge"].price_usd_per_hour == instances()["g6.xlarge"].price_usd_per_hour
    assert here["p5e.48xlarge"].price_usd_per_hour is None, "it has no on-demand price"
    assert offered() is instances()
    assert known_instance("g6.xlarge").name == "g6.xlarge"
    assert choose(BULK, region="us-east-1").choice is not None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"piece_bytes": 2e10}, "a piece has 20 GB, Lambda gives 10.7 GB"),
        ({"seconds_per_gb": 2000}, "stops after 15 min"),
        ({"needs_gpu": True}, "CPUs only"),
    ],
)
def test_lambda_refuses_a_piece_of_data_with_both_numbers(change, named):
    assert named in lambda_refusal(DataTask(**{"data_bytes": 1e12, "piece_bytes": 1e9, **change}))


def test_wrong_input_of_a_data_task_is_named():
    with pytest.raises(UserError, match="no larger than all"):
        DataTask(1e6, 1e9)
    with pytest.raises(UserError, match="steps is 0"):
        DataTask(1e9, 1e6, steps=0)


def test_the_recorded_spot_price_is_one_of_a_zone_and_keeps_its_source():
    held = recorded_spot("us-east-1")["g5.xlarge"]
    zones = [row.price.value for row in spot_history("g5.xlarge", "us-east-1")]
    assert min(zones) <= held.value <= max(zones)
    assert offered("us-east-1", "spot")["g5.xlarge"].price_usd_per_hour == held
    assert recorded_spot("nowhere-1") == {}
