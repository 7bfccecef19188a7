"""Which ready-made AWS image suits an instance: Deep Learning AMI by family, and whether SageMaker Studio offers it.

The Base AMIs are named, not the PyTorch ones: this project brings its own torch and wants driver, NCCL plug-in
and EFA only. Families: "supported_ec2_instances" of the release notes of 2026-01-08 (x86, Ubuntu 24.04) and
2026-04-30 (ARM64, Ubuntu 24.04); parameter names: "Finding the ID of a DLAMI" (AWS documentation, 2026-11).
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from smml.data.catalogue import Instance, instances
from smml.hardware.machine import Machine, nominal_gib

X86_GPU = {"g4dn", "g5", "g6", "gr6", "g6e", "p4d", "p4de", "p5", "p5e", "p5en", "p6-b200"}
ARM_GPU = {"g5g", "p6e-gb200", "p6e-gb300"}
UNSERVED = {"p2", "p3", "p3dn", "g2", "g3", "g3s", "g4ad", "inf1"}


@dataclass(frozen=True)
class Image:
    """A machine image and the public Systems Manager parameter that holds its newest id in every region."""

    name: str
    ssm_parameter: str

    def lookup(self, region: str | None = None) -> str:
        """The command that prints the image's id."""
        where = f" --region {region}" if region else ""
        return f"aws ssm get-parameter{where} --name {self.ssm_parameter} --query Parameter.Value --output text"


DEEP_LEARNING = "/aws/service/deeplearning/ami"
GPU_X86 = Image(
    "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04)",
    f"{DEEP_LEARNING}/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id",
)
GPU_ARM = Image(
    "Deep Learning ARM64 Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04)",
    f"{DEEP_LEARNING}/arm64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id",
)
NEURON = Image(
    "Deep Learning AMI Neuron (Ubuntu 24.04)",
    "/aws/service/neuron/dlami/multi-framework/ubuntu-24.04/latest/image_id",
)
UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{}/hvm/ebs-gp3/ami-id"
CPU_X86 = Image("Ubuntu 24.04 (no driver is needed without a GPU)", UBUNTU.format("amd64"))
CPU_ARM = Image(
    "Ubuntu 24.04 for ARM64 (no driver is needed without a GPU)", UBUNTU.format("arm64")
)


def image(instance_type: str) -> Image | None:
    """The image for an instance type such as "g5.xlarge"; None for a family that no current image serves."""
    family = instance_type.split(".")[0]
    if family in ARM_GPU:
        return GPU_ARM
    if family in X86_GPU:
        return GPU_X86
    if family in UNSERVED:
        return None
    if re.match(r"(trn|inf)\d", family):
        return NEURON
    if re.match(r"(g|gr|p)\d", family):  # newer than the release notes above
        return GPU_X86
    return CPU_ARM if _graviton(family) else CPU_X86


def counterpart(machine: Machine) -> Instance | None:
    """The cheapest type of the catalogue that holds as much as `machine`: the same GPU at least as often, else
    the same architecture with at least its cores and memory. None where no priced type does."""
    priced = [
        item
        for item in instances().values()
        if item.price_usd_per_hour and item.status != "withdrawn"
    ]
    if machine.gpus:
        key = machine.accelerator and machine.accelerator.key
        fits = [
            i for i in priced if i.accelerator == key and i.accelerator_count >= len(machine.gpus)
        ]
    else:
        memory_gib, cores, arm = (
            nominal_gib(machine.memory_bytes),
            machine.cpu.usable_cores,
            "neon" in machine.cpu.isa,
        )
        fits = [i for i in priced if i.accelerator is None and _graviton(i.family) == arm]
        fits = [i for i in fits if i.vcpu >= cores and i.memory.value >= memory_gib]
    # A capacity block is cheaper and must be reserved in advance: on-demand prices come first.
    return min(
        fits,
        key=lambda i: (i.price_kind != "on-demand", i.price_usd_per_hour.value, i.name),
        default=None,
    )


def in_studio(instance_type: str) -> bool:
    """Whether SageMaker Studio offers the type (as ml.…): the list that the installed botocore carries."""
    return f"ml.{instance_type}" in _studio_types()


@lru_cache
def _studio_types() -> frozenset[str]:
    import botocore.session  # half a second of imports that nothing else here needs

    loader = botocore.session.get_session().get_component("data_loader")
    shapes = loader.load_service_model("sagemaker", "service-2")["shapes"]
    return frozenset(shapes["AppInstanceType"]["enum"])


def _graviton(family: str) -> bool:
    return bool(re.fullmatch(r"a1|[a-z]+\d+g[a-z]*(-.*)?", family))
