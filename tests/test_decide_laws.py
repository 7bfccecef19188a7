"""Choosing compute: refusals give their numbers, prices are those worked out by hand, laws hold for all workloads."""

import dataclasses

import pytest
from hypothesis import given, strategies as st
from workloads import (
    BULK,
    CHAT,
    CLASSICAL,
    PRETRAINING,
    SMALL,
)

from smml.cost.decisions.decide import choose, option
from smml.cost.decisions.environments import environments
from smml.cost.decisions.instances import Need, choose_instance
from smml.cost.decisions.standing import barred
from smml.cost.decisions.throughput import Infeasible, Measurement, inference_rate, training_rate
from smml.cost.decisions.workload import Workload
from smml.data import instance, instances
from smml.errors import UserError

REFUSALS = {
    "does not fit": (
        "g6.xlarge",
        CHAT,
        {"extra_memory_bytes": 10e9},
        r"26\.1 GB are needed.*1 device of 24 GB",
    ),
    "dtype not supported": ("g4dn.xlarge", CHAT, {}, r"no bf16 peak of NVIDIA T4"),
    "latency below the bandwidth bound": (
        "g6.xlarge",
        CHAT,
        {"latency_s": 0.05, "extra_memory_bytes": 0},
        r"at least 53\.5 ms \(reading 16\.1 GB at 300 GB/s",
    ),
    "latency below the estimate": (
        "g6.xlarge",
        CHAT,
        {"latency_s": 0.06, "extra_memory_bytes": 0},
        r"at 40% of the roof.*134 ms, wanted are 60 ms \(the bound itself is 53\.5 ms\)",
    ),
    "too slow": ("g6.xlarge", CHAT, {"tokens_per_s": 1e6}, r"instances would be needed"),
    "CUDA operators on Neuron": (
        "inf2.xlarge",
        CHAT,
        {"operators": "CUDA or Triton"},
        r"not on neuron",
    ),
    "CUDA operators on a CPU": (
        "c5.large",
        CLASSICAL,
        {"operators": "CUDA or Triton"},
        r"not on cpu",
    ),
    "dynamic shapes on Neuron": (
        "inf2.xlarge",
        CHAT,
        {"static_shapes": False},
        r"fully static shapes",
    ),
    "Arm": ("c6g.large", CLASSICAL, {"runs_on_arm": False}, r"Arm processor"),
    "training on Inferentia": (
        "inf2.48xlarge",
        PRETRAINING,
        {"operators": "standard"},
        r"Inferentia serves inference only",
    ),
    "training state": (
        "g6.xlarge",
        PRETRAINING,
        {"parameters": 405e9},
        r"6\.48 TB are needed.*64 devices of 24 GB",
    ),
    "network": (
        "g6.xlarge",
        PRETRAINING,
        {"deadline_hours": 24},
        r"64 instances reach .* network-bound, the deadline needs",
    ),
    "unknown CPU": ("x1e.xlarge", CLASSICAL, {}, r"not in the catalogue"),
    "capacity blocks for a service": ("p5e.48xlarge", CHAT, {}, r"Capacity Blocks \(\$39\.80/h"),
    "start-up beyond the deadline": (
        "g6.xlarge",
        BULK,
        {"deadline_hours": 0.05},
        r"start-up takes 5 min",
    ),
}


@pytest.mark.parametrize(("name", "workload", "change", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_gives_the_numbers(name, workload, change, reason):
    with pytest.raises(Infeasible, match=reason):
        option(instance(name), dataclasses.replace(workload, **change))


def test_custom_operators_run_on_inferentia2_not_on_inferentia1():
    custom = dataclasses.replace(CHAT, parameters=1e8, operators="custom C++")
    assert option(instance("inf2.xlarge"), custom).kind == "neuron"
    with pytest.raises(Infeasible, match="not on Inf1"):
        option(instance("inf1.xlarge"), custom)


def test_over_budget_is_no_choice_and_names_the_cheapest():
    decision = choose(dataclasses.replace(CHAT, budget_usd=10))
    assert decision.choice is None
    assert decision.price is None
    cheapest = choose(CHAT)
    assert str(cheapest.choice) in decision.reasons[0]
    assert "budget is $10.00" in decision.reasons[0]
    assert (
        choose(dataclasses.replace(CHAT, budget_usd=cheapest.price.usd)).choice == cheapest.choice
    )


def test_nothing_will_do_gives_the_bound_of_each_kind():
    decision = choose(Workload("real-time inference", 405e9, tokens_per_s=100, latency_s=0.001))
    assert decision.choice is None
    assert [reason.split(":")[0] for reason in decision.reasons] == [
        "No CPU",
        "No GPU",
        "No Inferentia/Trainium",
    ]
    assert "latency unreachable" in decision.why_not("gpu")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"purpose": "serving"}, "purpose is 'serving'"),
        ({"tokens_per_s": None}, "needs tokens_per_s"),
        ({"tokens": 1.0}, "tokens does not belong"),
        ({"parameters": 0}, "parameters is 0"),
        ({"utilization": 40}, "utilization is 40"),
        ({"dtype": "bf17"}, "unknown dtype 'bf17'"),
        ({"latency_s": -1}, "latency_s is -1"),
        ({"parameters": float("nan")}, "parameters is nan"),
    ],
)
def test_a_wrong_field_is_named(fields, named):
    with pytest.raises(UserError, match=named):
        dataclasses.replace(CHAT, **fields)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"'g99\.xlarge'"):
        choose(CHAT, measured={"g99.xlarge": Measurement(1.0)})
    with pytest.raises(UserError, match="allowed are cpu, gpu, neuron"):
        choose(CHAT, kinds=("tpu",))
    with pytest.raises(UserError, match="give 'gpu' or 'neuron' with 1 or more"):
        Need(accelerator="gpu")
    with pytest.raises(UserError, match="training has no environments"):
        environments(PRETRAINING)
    with pytest.raises(UserError, match="contradict each other"):
        dataclasses.replace(SMALL, managed_lifecycle=True, own_infrastructure=True)


# ----------------------------------------------------------------------------------------------------- figures and laws


def test_the_price_by_hand():
    """Llama-3.1-8B on one g6.xlarge: 16.06 GB over 300 GB/s at 40 %, 8 sequences at once, a month of 730 h at $0.8048."""
    workload = dataclasses.replace(CHAT, tokens_per_s=10, batch_size=8, extra_memory_bytes=0)
    found = option(instance("g6.xlarge"), workload)
    assert found.rate.latency_s == pytest.approx(16.06e9 / 300e9 / 0.4)
    assert found.rate.tokens_per_s == pytest.approx(8 / found.rate.latency_s)
    assert found.price.usd == pytest.approx(0.8048 * 730)
    assert found.usd_per_million_tokens == pytest.approx(0.8048 * 730 / (10 * 730 * 3600) * 1e6)


def test_a_measurement_replaces_the_estimate():
    fast = {"g6.xlarge": Measurement(1000.0, 0.01)}
    decision = choose(dataclasses.replace(CHAT, latency_s=0.05), measured=fast, kinds=("gpu",))
    # The bandwidth bound of the L4 is 54 ms: a measurement below it is not believed.
    assert decision.choice.instance.family != "g6"
    decision = choose(dataclasses.replace(CHAT, latency_s=0.08), measured=fast, kinds=("gpu",))
    assert (str(decision.choice), decision.choice.rate.bound) == ("1 × g6.xlarge", "measured")
    assert any("as measured" in reason for reason in decision.reasons)
    without = choose(
        dataclasses.replace(CHAT, latency_s=0.08), measured={"g6.xlarge": Measurement(1000.0)}
    )
    assert without.choice.instance.name != "g6.xlarge"


def test_a_slow_network_bounds_training():
    g6, p5 = instance("g6.xlarge"), instance("p5.48xlarge")
    small = dataclasses.replace(PRETRAINING, parameters=1e9)
    assert training_rate(g6, small, 1).bound == "compute"
    assert training_rate(g6, small, 32).bound == "network"
    assert training_rate(p5, small, 2).bound == "compute"


def test_cpu_credits_are_paid_for():
    idle = option(instance("t3.medium"), CLASSICAL)
    busy = option(
        instance("t3.medium"), dataclasses.replace(CLASSICAL, tokens_per_s=5e4, average_load=1.0)
    )
    assert idle.price.usd == pytest.approx(0.0416 * 730)
    load = 5e4 / busy.rate.tokens_per_s
    assert busy.price.usd == pytest.approx((0.0416 + (load - 0.2) * 2 * 0.05) * 730)


services = st.builds(
    Workload,
    st.just("real-time inference"),
    st.floats(1e6, 1e11),
    tokens_per_s=st.floats(1, 1e4),
    batch_size=st.integers(1, 64),
    latency_s=st.none() | st.floats(1e-3, 1),
)


@given(services)
def test_the_choice_is_the_cheapest_feasible_and_keeps_what_is_asked(workload):
    decision = choose(workload)
    feasible = []
    for entry in instances().values():
        if barred(entry) is None:
            try:
                feasible.append(option(entry, workload).price.usd)
            except Infeasible:
                continue
    if decision.choice is None:
        assert not feasible
        assert decision.reasons
        return
    best = decision.choice
    assert best.price.usd == min(feasible)
    assert best.rate.tokens_per_s >= workload.tokens_per_s * (1 - 1e-9)
    if workload.latency_s is not None:
        assert best.rate.latency_s <= workload.latency_s
    if best.instance.accelerator is not None:
        from smml.data import accelerators

        device = accelerators()[best.instance.accelerator]
        assert workload.memory_bytes <= best.rate.devices_per_copy * device.memory.value
        bound = workload.weight_bytes / (best.rate.devices_per_copy * device.bandwidth.value)
        assert best.rate.latency_s >= bound, "nothing beats the bandwidth"


@given(services, st.floats(1.1, 10))
def test_asking_for_more_never_costs_less(workload, factor):
    base = choose(workload).choice
    more = choose(dataclasses.replace(workload, tokens_per_s=workload.tokens_per_s * factor)).choice
    if more is not None:
        assert base is not None
        assert base.price.usd <= more.price.usd * (1 + 1e-9)


@given(st.integers(1, 96), st.floats(0.5, 700), st.floats(0, 1), st.floats(0, 25))
def test_every_instance_choice_has_what_is_needed_and_explains_the_rest(
    vcpu, memory, load, network
):
    need = Need(vcpu, memory, load, network)
    decision = choose_instance(need)
    entry = decision.choice.instance
    assert (entry.vcpu >= vcpu, entry.memory.value >= memory) == (True, True)
    assert entry.network_baseline.value >= network
    families = {name.split(".")[0] for name in instances()} - {entry.family}
    assert {rejected.option for rejected in decision.rejected} == families
    assert decision.choice.shadow_usd_per_hour >= 0


def test_explain_names_choice_price_reasons_and_refusals():
    text = choose(CHAT).explain()
    assert text.startswith("choice: ")
    for word in ("price: $", "- Cost: ", "- Complexity: ", "- Volume: ", "- not p3: "):
        assert word in text


def test_rates_scale_with_devices():
    one = inference_rate(instance("g6.xlarge"), CHAT)
    four = inference_rate(instance("g6.12xlarge"), CHAT)
    assert four.tokens_per_s == pytest.approx(4 * one.tokens_per_s)
    assert four.latency_s == one.latency_s
