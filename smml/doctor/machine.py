"""Is the machine fit: memory, CPU, GPUs, network, what the catalogue and the cache hold of it, its place on AWS?"""

from collections.abc import Iterator

from smml.data.catalogue import instance, match_accelerator
from smml.doctor.finding import Finding
from smml.hardware import images
from smml.hardware.ceiling_cache import cache_path
from smml.hardware.machine import GIB, Machine

MEMORY_WANTED = 4 * GIB
HOW_TO_ADD = "add it to smml/data with value, unit, source and date"


def memory(machine: Machine) -> Iterator[Finding]:
    """Main memory."""
    size = f"{machine.memory_bytes / GIB:.1f} GiB"
    if machine.memory_bytes >= MEMORY_WANTED:
        yield Finding("ok", "memory", size)
    else:
        fix = "give the machine or container 4 GiB, or run one notebook at a time"
        yield Finding("warn", "memory", f"{size}: some notebooks may be killed", fix)


def cpu(machine: Machine) -> Iterator[Finding]:
    """CPU governor, and a quota that leaves fewer cores than there are."""
    cpu = machine.cpu
    cores = f"{cpu.model}, {cpu.usable_cores} of {cpu.logical_cores} cores usable"
    if cpu.usable_cores < cpu.logical_cores:
        limit = (
            "the affinity mask"
            if cpu.quota_cores is None
            else f"a container quota of {cpu.quota_cores:g} cores"
        )
        yield Finding(
            "ok", "CPU", f"{cores}, by {limit}", "docker run --cpus, or taskset, gives more"
        )
    else:
        yield Finding("ok", "CPU", cores)
    if cpu.governor == "powersave":
        found = "governor powersave: clocks rise late, timings spread"
        yield Finding("ok", "CPU clock", found, "sudo cpupower frequency-set -g performance")


def gpus(machine: Machine) -> Iterator[Finding]:
    """GPUs that torch can or cannot use."""
    for gpu in machine.gpus:
        yield Finding("ok", f"GPU {gpu.index}", f"{gpu.name}, driver {machine.software.driver}")
    problem = machine.cuda_problem
    if problem is None:
        return
    if machine.software.torch and machine.software.cuda is None:
        wheel = f"torch=={machine.software.torch.split('+')[0]}"
        fix = f"from an index with CUDA builds: pip install --force-reinstall -c constraints.txt {wheel}"
    elif machine.software.cuda:
        fix = (
            f"update the NVIDIA driver until nvidia-smi shows CUDA {machine.software.cuda} or newer"
        )
    else:
        fix = "make venv"
    yield Finding("warn", "GPU and torch", problem, fix)


def notes(machine: Machine) -> Iterator[Finding]:
    """What was found and cannot be used."""
    for note in machine.notes:
        yield Finding("warn", "hardware", note.text, note.fix)


def efa(machine: Machine) -> Iterator[Finding]:
    """EFA where the instance has it."""
    for item in machine.interfaces:
        if item.efa and not item.up:
            fix = "install the EFA software (aws-efa-installer) or start from a Deep Learning AMI"
            yield Finding("warn", "EFA", f"{item.name} is there but has no working driver", fix)
        elif item.efa:
            yield Finding(
                "ok", "EFA", f"{item.name}, software {machine.software.efa or 'not found'}"
            )


def catalogue(machine: Machine) -> Iterator[Finding]:
    """Does the catalogue hold this accelerator and this instance?"""
    whole = {gpu.name: gpu.memory_bytes for gpu in machine.gpus if not gpu.mig}
    for name, memory in whole.items():
        if match_accelerator(name, memory) is None:
            yield Finding(
                "warn", "catalogue", f"{name} is not in it: no datasheet peak is shown", HOW_TO_ADD
            )
    if machine.ec2 and instance(machine.ec2.instance_type) is None:
        yield Finding(
            "warn",
            "catalogue",
            f"{machine.ec2.instance_type} is not in it: no price is known",
            HOW_TO_ADD,
        )


def ceilings(machine: Machine) -> Iterator[Finding]:
    """Were the ceilings of this machine measured?"""
    if machine.software.torch is None:
        return
    path = cache_path(machine)
    state = (
        f"measured, in {path}"
        if path.exists()
        else "not measured yet: the first notebook that needs them does"
    )
    yield Finding("ok", "ceilings", state)


def aws(machine: Machine) -> Iterator[Finding]:
    """The image for this instance, or the AWS counterpart of this machine."""
    subject, region = "AWS image", None
    if machine.ec2:
        kind, region = machine.ec2.instance_type, machine.ec2.region
        text = kind
    elif found := images.counterpart(machine):
        kind, price = found.name, found.price_usd_per_hour
        subject = "AWS counterpart"
        text = (
            f"{kind}, {price.value:.2f} USD/h {found.price_kind} in {found.region} ({price.date})"
        )
    else:
        yield Finding(
            "ok", "AWS counterpart", "no priced type of the catalogue holds as much as this machine"
        )
        return
    image = images.image(kind)
    if image is None:
        fix = "choose a newer GPU family, such as g5, g6 or p5"
        yield Finding("warn", subject, f"{text}: no current Deep Learning AMI serves it", fix)
        return
    studio = (
        f"ml.{kind} in SageMaker Studio"
        if images.in_studio(kind)
        else "not offered in SageMaker Studio"
    )
    yield Finding("ok", subject, f"{text}: {image.name}; {studio}", image.lookup(region))
