"""The status table: every service that the starting documents name has a row, dated, with a successor where it ended."""

import json
import subprocess
import sys

import pytest
import typer
from botocore.session import get_session
from typer.testing import CliRunner

from smml.cost.services_command import services as command
from smml.data.services import MOST_WORDS, read_services, service, services
from smml.errors import UserError

# As the five documents write them.
NAMED = """
SageMaker; SageMaker Studio; AWS DLAMI; SageMaker Notebooks; EC2; Elastic Inference; SageMaker ML compute; S3; EFS;
FSx for Lustre; SageMaker Processing Jobs; Glue; Lambda; Step Functions; HuggingFace on SageMaker; SageMaker Training Jobs;
Distributed Training; Spot Instances; SageMaker Hyperparameter Tuning Jobs; SageMaker Batch Transform; SageMaker Endpoints;
ECS; EKS; API Gateway; SageMaker Model Monitor; CloudWatch; SageMaker Debugger; CloudTrail; EC2 scaling groups;
Reserved Instances; AWS Budgets; Cost Explorer; IAM; VPC; KMS; SageMaker Studio shared spaces; CodeCommit; CodeBuild;
SageMaker Automatic Scaling; Amazon CloudWatch; SageMaker Experiments; ECS Fargate; Application Load Balancer;
Auto Scaling Groups; AWS Glue; Amazon EMR; AWS Batch; AWS X-Ray; Amazon SNS; S3 Intelligent Tiering; Security Groups; NACLs;
VPC Endpoints; AWS CodePipeline; Amazon ECR; AWS CodeDeploy; EC2 Spot Instances; Athena; Kinesis; Kafka on MSK;
Feature Store; SageMaker Neo; SageMaker Inference; TorchServe; The Pile; SageMaker Python SDK v2; SageMaker Studio Lab;
SageMaker Studio Classic; SageMaker Pipelines; ParallelCluster; PCS; HyperPod; MLflow; Savings Plans; Capacity Blocks
"""
NAMES = [" ".join(name.split()) for name in NAMED.split(";")]


@pytest.mark.parametrize("name", NAMES)
def test_every_named_service_has_a_row(name):
    row = service(name)
    assert len(row.purpose.split()) <= MOST_WORDS
    assert row.url.startswith("https://")
    assert row.source


ENDED = {
    "Elastic Inference": ("withdrawn", "2023-04-15"),
    "SageMaker Debugger": ("closed to new customers", "2026-07-30"),
    "SageMaker Model Monitor": ("closed to new customers", "2026-07-30"),
    "SageMaker Studio Lab": ("closed to new customers", "2026-07-30"),
    "SageMaker Experiments": ("closed to new customers", "None"),
    "SageMaker Studio Classic": ("closed to new customers", "None"),
    "SageMaker Python SDK v2": ("withdrawn", "None"),
    "TorchServe": ("withdrawn", "2025-08-07"),
    "The Pile": ("withdrawn", "None"),
    "SageMaker": ("renamed", "2024-12-03"),
    "X-Ray SDK": ("maintenance", "2026-02-25"),
}


@pytest.mark.parametrize(("name", "expected"), ENDED.items(), ids=ENDED)
def test_what_has_ended_says_since_when_and_what_instead(name, expected):
    row = service(name)
    assert (row.status, str(row.since)) == expected
    assert row.successor
    assert row.checked, "an end is not repeated unchecked"
    assert row.successor in str(row)


def test_a_successor_stands_exactly_where_something_ended():
    for row in services().values():
        assert (row.successor is None) == (row.status == "available"), row.name


@pytest.mark.parametrize("row", [r for r in services().values() if r.api], ids=lambda r: r.key)
def test_the_operation_of_an_available_service_is_in_the_api(row):
    api, operation = row.api.split(":")
    assert operation in get_session().get_service_model(api).operation_names


def test_what_has_no_api_any_more_is_not_in_it():
    assert "elastic-inference" not in get_session().get_available_services()


@pytest.mark.parametrize("name", ["sagemker", "", "no such thing at all"])
def test_an_unknown_service_is_named(name):
    with pytest.raises(UserError, match="holds no service"):
        service(name)


GOOD = """
[sources.a]
title = "A"
url = "https://example.com"
date = 2026-01-01
checked = true
[services.one]
name = "One"
purpose = "Does one thing"
status = "available"
source = "a"
"""


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('status = "available"', 'status = "gone"', "row one: status"),
        ('status = "available"', 'status = "withdrawn"', "successor None do not go together"),
        ('source = "a"', 'source = "b"', "missing 'b'"),
        ('source = "a"', 'source = "a"\nsuccessor = "Two"', "do not go together"),
        ("Does one thing", "word " * 13, "purpose has 13 words"),
        ('source = "a"', 'source = "a"\napi = "nothing"', "row one: api"),
        ("[sources.a]", "[sources.a", "is not TOML"),
        (
            'source = "a"\n',
            'source = "a"\n[services.two]\nname = "one"\npurpose = "x"\nstatus = "available"\nsource = "a"\n',
            "'one' is a name of row one too",
        ),
    ],
)
def test_a_wrong_row_is_named(old, new, named):
    assert read_services(GOOD)["one"].name == "One"
    with pytest.raises(UserError, match=named):
        read_services(GOOD.replace(old, new, 1))


def run(*arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_the_command_prints_a_row_a_service():
    assert len(run().output.splitlines()) == len(services())
    one = run("model monitor").output
    assert "closed to new customers since 2026-07-30" in one
    assert "Instead: MLflow Apps" in one
    ended = run("--ended").output
    assert "Elastic Inference" in ended
    assert "AWS Lambda" not in ended
    assert "unchecked" in run("dlami").output


def test_the_command_prints_json():
    rows = json.loads(run("lambda", "kms", "--json").output)
    assert [row["key"] for row in rows] == ["lambda", "kms"]


def test_the_table_needs_neither_torch_nor_botocore():
    code = "import sys, smml.data.services as s; s.services(); print('torch' in sys.modules, 'botocore' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
