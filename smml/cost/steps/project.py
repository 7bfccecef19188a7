"""The small project of the fourteen steps on AWS: names that its requests share, examples that no account has."""

import json
from dataclasses import dataclass

from smml.cost.steps.validate import Request


@dataclass(frozen=True)
class Project:
    """Names that the requests share; the account and the resources are examples that no one has."""

    name: str = "smml-steps"
    account: str = "111122223333"
    region: str = "us-east-1"
    cpu_instance: str = "ml.m5.xlarge"
    gpu_instance: str = "ml.g5.xlarge"
    budget_usd: float = 50.0
    email: str = "team@example.com"

    @property
    def bucket(self) -> str:
        """One bucket for data, checkpoints and models."""
        return f"{self.name}-{self.account}"

    @property
    def role(self) -> str:
        """The role that the jobs take."""
        return f"arn:aws:iam::{self.account}:role/{self.name}"

    @property
    def image(self) -> str:
        """The container of training and serving."""
        return f"{self.account}.dkr.ecr.{self.region}.amazonaws.com/{self.name}:1"

    @property
    def topic(self) -> str:
        """Where alarms go."""
        return f"arn:aws:sns:{self.region}:{self.account}:{self.name}"

    @property
    def tags(self) -> list[dict[str, str]]:
        """What everything carries, so that cost and clean-up find it."""
        return [{"Key": "project", "Value": self.name}]

    def s3(self, key: str) -> str:
        """Address of `key` in the bucket."""
        return f"s3://{self.bucket}/{key}"


def model_request(p: Project) -> Request:
    """The trained model with its container, as endpoints and batch jobs name it."""
    fields = {
        "ModelName": p.name,
        "ExecutionRoleArn": p.role,
        "PrimaryContainer": {"Image": p.image, "ModelDataUrl": p.s3("models/model.tar.gz")},
        "Tags": p.tags,
    }
    return Request("sagemaker", "CreateModel", fields, "the trained model with its container")


def policy(*statements: dict) -> str:
    """An IAM policy document of these statements, as JSON text."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
