"""`smml decide`: what it prints, as text and as JSON, and how it ends; wrong input is one line."""

import json

import pytest
from typer.testing import CliRunner

from smml.cost.decisions.decide_command import app
from smml.errors import UserError

CHAT = ["compute", "real-time", "--model", "llama-3.1-8b", "--tokens-per-s", "10"]
SMALL = ["deploy", "--memory-gb", "0.5", "--requests-per-month", "1e5", "--work-seconds", "0.05"]
GPU = [*SMALL, "--gpu-memory-gb", "20"]
PLACE = ["place", "--mean-machines", "1", "--peak-machines", "1", "--usd-per-hour", "2"]
PLACE += ["--own-purchase-usd", "30000", "--own-usd-per-month", "300"]


def run(*arguments):
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


CHOICES = {
    "compute": (CHAT, "× "),
    "compute, one type": ([*CHAT, "--instance", "g5.xlarge"], "choice: 1 × g5.xlarge"),
    "compute, training": (
        ["compute", "training", "--model", "llama-3.2-1b", "--tokens", "1e9"],
        "per million tokens",
    ),
    "compute, batch in a region": (
        ["compute", "batch", "--parameters", "1e8", "--tokens", "1e8", "--region", "us-east-1"],
        "a job",
    ),
    "deploy": (SMALL, "choice: Lambda"),
    "deploy, GPU": (GPU, "choice: ECS/EKS"),
    "deploy, one target": ([*SMALL, "--on", "lambda"], "price: $"),
    "deploy, lifecycle": ([*SMALL, "--managed"], "choice: SageMaker"),
    "deploy, batch": ([*SMALL, "--batch"], "choice: AWS Batch"),
    "deploy, stream": ([*SMALL, "--stream"], "choice: Kinesis + SageMaker"),
    "buy": (["buy", "g6.xlarge", "--hours-per-month", "100"], "price: $"),
    "buy, may be interrupted": (
        ["buy", "g5.xlarge", "--hours-per-month=300", "--checkpoint-s=30", "--taken-back=0.2"],
        "choice: spot",
    ),
    "compute, batch on spot": (
        ["compute", "batch", "--parameters", "1e8", "--tokens", "1e8", "--capacity", "spot"],
        "a job",
    ),
    "place": (PLACE, "choice: own hardware"),
}


@pytest.mark.parametrize(("arguments", "shown"), CHOICES.values(), ids=CHOICES)
def test_a_decision_is_printed_with_its_reasons(arguments, shown):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("choice: ")
    assert shown in result.output
    assert "\n- " in result.output


REFUSED = {
    "KV cache": (
        [*CHAT, "--context-tokens", "131072", "--instance", "g5.xlarge"],
        "17.2 GB of KV cache",
    ),
    "Spot for a service": ([*CHAT, "--capacity", "spot"], "reclaimed 2 min after a notice"),
    "GPU on Fargate": ([*GPU, "--on", "fargate"], "Fargate runs no GPU task"),
    "GPU on SageMaker serverless": ([*GPU, "--on", "sagemaker serverless"], "has no GPU"),
    "package over Lambda's limit": (
        [*SMALL, "--package-mb", "700", "--on", "lambda"],
        "700 MB unzipped",
    ),
    "Spot for an endpoint": (
        [*SMALL, "--on", "endpoint", "--capacity", "spot"],
        "a real-time endpoint has no such field",
    ),
    "withdrawn type": ([*CHAT, "--instance", "p3.2xlarge"], "successor"),
    "over budget": ([*CHAT, "--budget-usd", "1"], "Over budget"),
}


@pytest.mark.parametrize(("arguments", "reason"), REFUSED.values(), ids=REFUSED)
def test_the_impossible_is_refused_and_ends_with_1(arguments, reason):
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.output.startswith("choice: none")
    assert reason in result.output


@pytest.mark.parametrize(("arguments", "shown"), CHOICES.values(), ids=CHOICES)
def test_json_holds_the_same(arguments, shown):
    told = json.loads(run(*arguments, "--json").output)
    assert told["choice"]
    assert told["reasons"]
    assert set(told) == {"choice", "price", "reasons", "rejected"}
    assert all(set(one) == {"option", "would_do", "why"} for one in told["rejected"])


def test_json_of_a_refusal_has_no_choice_and_ends_with_1():
    result = run(*GPU, "--on", "fargate", "--json")
    assert result.exit_code == 1
    assert json.loads(result.output)["choice"] is None


WRONG = {
    "purpose": (["compute", "fun", "--parameters", "1e9"], "allowed are training, real-time"),
    "no size": (["compute", "batch", "--tokens", "1e9"], "give --model or --parameters"),
    "unknown model": (["compute", "batch", "--model", "gpt-9", "--tokens", "1"], "no model is"),
    "unknown type": ([*CHAT, "--instance", "g9.xlarge"], "no instance type 'g9.xlarge'"),
    "unknown region": ([*CHAT, "--region", "mars-1"], "known are"),
    "unknown capacity": ([*CHAT, "--capacity", "free"], "allowed are on-demand, spot"),
    "unknown target": ([*SMALL, "--on", "heroku"], "no deployment target is called 'heroku'"),
    "ended target": ([*SMALL, "--on", "elastic inference"], "withdrawn since"),
    "capacity without target": ([*SMALL, "--capacity", "spot"], "name it with --on"),
    "contradiction": ([*SMALL, "--managed", "--own"], "contradict each other"),
    "lost instances of work that goes on": (
        ["buy", "g5.xlarge", "--taken-back", "0.2"],
        "give --checkpoint-s",
    ),
    "unknown type to buy": (["buy", "g9.xlarge"], "g9.xlarge"),
    "negative price": ([*PLACE, "--own-delivery-days", "-1"], "own_delivery_days is -1"),
}


@pytest.mark.parametrize(("arguments", "named"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_line_that_names_it(arguments, named):
    with pytest.raises(UserError, match=named) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)
