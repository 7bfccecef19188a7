"""From an empty machine to a shared, watched model in fourteen steps: each here, each on AWS, and when to take which."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smml.cost.steps import build, local, operate
from smml.cost.steps.local import Outcome
from smml.cost.steps.project import Project
from smml.cost.steps.validate import Request
from smml.data.prices import prices
from smml.errors import UserError


@dataclass(frozen=True)
class Step:
    """One step: how it is done `here` and `on_aws`, when each is taken, and both as something that can be run.

    `priced` are items of smml.data.prices that the AWS side is billed by; SageMaker's rates are those of endpoints.
    """

    number: int
    name: str
    here: str
    on_aws: str
    take_here: str
    take_aws: str
    local: Callable[[Path], Outcome]
    requests: Callable[[Project], list[Request]]
    priced: tuple[str, ...] = ()

    def run(self, folder: Path | None = None) -> Outcome:
        """Do the local side in `folder`, which may hold what earlier steps left; in a fresh one if None."""
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            return self.local(Path(folder))
        with tempfile.TemporaryDirectory() as fresh:
            return self.local(Path(fresh))

    def costs(self, region: str = "us-east-1") -> list[str]:
        """What the AWS side is billed by, each with price and date; a price without a source is said to be unknown."""
        known = {row.item: row.price for row in prices(region=region, kind="on-demand")}
        lines = []
        for item in self.priced:
            if item not in known:
                lines.append(f"{item}: no sourced price in {region}")
                continue
            cited = known[item]
            doubt = "" if cited.checked else ", unchecked"
            lines.append(f"{item}: {cited.value:g} {cited.unit} (of {cited.date}{doubt})")
        return lines


STEPS = (
    Step(
        1,
        "environment",
        "a locked virtual environment, examined by smml doctor",
        "a SageMaker notebook or Studio space, or a Deep Learning AMI",
        "the team owns its machines and pins every package",
        "people come and go, and none of them should install anything",
        local.environment,
        build.environment,
        ("sagemaker/ml.m5.xlarge",),
    ),
    Step(
        2,
        "hardware",
        "the CPU or GPU that is there",
        "EC2 types by the second, on demand or Spot",
        "it is busy most of the time",
        "the peak is far above the mean, or the type is still to be found",
        local.hardware,
        build.hardware,
        ("g5.xlarge",),
    ),
    Step(
        3,
        "data storage",
        "disks, NAS",
        "S3; EFS or FSx for Lustre where a file system is needed",
        "the data must stay, or are read all day by one machine",
        "many readers, versions and fine access rules",
        local.storage,
        build.storage,
        ("s3/standard/storage", "efs/standard/storage", "fsx-lustre/ssd/storage"),
    ),
    Step(
        4,
        "preprocessing",
        "numpy or pandas in a resumable script",
        "Processing jobs, Glue, Lambda, Step Functions",
        "it fits into memory and one night",
        "it does not, or it starts by itself when data arrive",
        local.preprocessing,
        build.preprocessing,
        ("sagemaker/ml.m5.xlarge", "lambda/x86/duration"),
    ),
    Step(
        5,
        "model framework",
        "PyTorch and transformers from the lock",
        "the same in a container, from a registry or a managed image",
        "one kind of machine",
        "several, that must not differ",
        local.framework,
        build.framework,
        ("ecr/standard/storage",),
    ),
    Step(
        6,
        "training",
        "a training loop with checkpoints",
        "training jobs, on managed Spot capacity too",
        "the machine is there and fast enough",
        "more accelerators for hours than one would ever own",
        local.training,
        build.training,
        ("g5.xlarge", "sagemaker/ml.g5.xlarge"),
    ),
    Step(
        7,
        "hyperparameter tuning",
        "a loop over settings",
        "tuning jobs, several at once",
        "a trial takes seconds",
        "a trial takes hours, and many can run at once",
        local.tuning,
        build.tuning,
        ("sagemaker/ml.g5.xlarge",),
    ),
    Step(
        8,
        "evaluation",
        "held-out loss and perplexity",
        "Batch Transform and Processing jobs",
        "the held-out set is small",
        "it is large, or every release is judged by itself",
        local.evaluation,
        build.evaluation,
        ("sagemaker/ml.m5.xlarge",),
    ),
    Step(
        9,
        "deployment",
        "a server behind HTTP",
        "SageMaker endpoints, ECS or EKS, Lambda, API Gateway",
        "few users, near the machine",
        "many, or at hours when nobody is at the machine",
        local.deployment,
        operate.deployment,
        ("m5.xlarge", "sagemaker/ml.m5.xlarge", "fargate/x86/vcpu", "fargate/x86/memory"),
    ),
    Step(
        10,
        "monitoring and logging",
        "drift and metrics computed here",
        "CloudWatch alarms, SNS, CloudTrail",
        "somebody looks",
        "nobody does until an alarm comes",
        local.monitoring,
        operate.monitoring,
    ),
    Step(
        11,
        "scaling",
        "servers bought by a queue's formula",
        "target tracking between a least and a most",
        "the load is even",
        "it is not, and idle machines cost more than the premium",
        local.scaling,
        operate.scaling,
        ("sagemaker/ml.m5.xlarge",),
    ),
    Step(
        12,
        "cost management",
        "seconds times the price of an hour",
        "Budgets, Cost Explorer, tags",
        "the machine is paid for",
        "every start is a purchase",
        local.cost,
        operate.cost,
    ),
    Step(
        13,
        "security",
        "file modes, checksums, a firewall",
        "IAM, KMS, VPC endpoints, bucket policies",
        "one team, one network",
        "rights differ by person, and must be audited",
        local.security,
        operate.security,
    ),
    Step(
        14,
        "collaboration",
        "Git",
        "CodeCommit or any Git, CodeBuild, shared spaces",
        "a Git server is there already",
        "identities are AWS's",
        local.collaboration,
        operate.collaboration,
    ),
)


def step(number: int) -> Step:
    """The step of that number, 1 to 14; UserError for another."""
    if not 1 <= number <= len(STEPS):
        raise UserError(f"there is no step {number}; give 1 to {len(STEPS)}.")
    return STEPS[number - 1]
