"""doctor: what it finds on machines that lack something, and that every finding names its fix."""

import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from smml.doctor import Finding, examine, exit_code, render, setup
from smml.hardware import Cpu, Disk, Ec2, Gpu, Interface, Machine, Note, Software, detect, software
from smml.hardware.ceiling_cache import cache_path
from smml.hardware.machine import GIB, MIB

CPU = Cpu(
    model="AMD EPYC", vendor="AuthenticAMD", physical_cores=4, logical_cores=8, usable_cores=8
)
SOFTWARE = Software(python="3.12.1", torch="2.13.0", triton="3.7.1")
CUDA = SOFTWARE.model_copy(update={"cuda": "13.0", "driver": "580.159.04", "driver_cuda": "13.0"})
H200 = Gpu(index=0, name="NVIDIA H200", memory_bytes=143771 * MIB)


def disk(role: str, total: int = 64 * GIB, free: int = 32 * GIB) -> Disk:
    return Disk(role=role, path=f"/{role}", filesystem="ext4", total_bytes=total, free_bytes=free)


def machine(**changes: object) -> Machine:
    values = {"cpu": CPU, "memory_bytes": 16 * GIB, "software": SOFTWARE}
    values |= {"disks": (disk("build"), disk("shared memory"))}
    return Machine(**(values | changes))


def probe(output: str = "2.13.0|True|", code: int = 0, error: str = "") -> Callable[[], object]:
    return lambda: subprocess.CompletedProcess([], code, stdout=output + "\n", stderr=error)


@pytest.fixture(autouse=True)
def healthy(monkeypatch, tmp_path):
    """Everything around the machine is in order; a test then breaks one thing."""
    monkeypatch.setenv("SMML_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("SMML_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(setup, "_probe_torch", probe())
    monkeypatch.setattr(software, "unmet", lambda: [])
    monkeypatch.setattr(software, "differing", lambda lock: [])
    headers = tmp_path / "include"
    headers.mkdir()
    (headers / "Python.h").touch()
    monkeypatch.setattr(setup.sysconfig, "get_path", lambda name: str(headers))


def not_ok(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.subject) for finding in findings if finding.level != "ok"]


def one(findings: list[Finding], subject: str) -> Finding:
    found = [finding for finding in findings if finding.subject == subject]
    assert len(found) == 1, f"{subject}: {findings}"
    return found[0]


@pytest.mark.parametrize("found", [machine(), machine(gpus=(H200,), software=CUDA)])
def test_healthy_machine(found):
    findings = examine(found)
    assert not_ok(findings) == []
    assert exit_code(findings) == 0
    assert (
        render(findings)
        .splitlines()[-1]
        .startswith("doctor: ready for make run: 0 blocking, 0 warnings")
    )


BUILD_LOW, BUILD_FULL = disk("build", free=GIB), disk("build", free=199 * MIB)
OLD_DRIVER = CUDA.model_copy(update={"driver_cuda": "12.4"})


@pytest.mark.parametrize(
    ("changes", "level", "subject", "fix"),
    [
        ({"software": Software(python="3.10.9", torch="2.13.0", triton="3")}, "block", "Python", "make venv"),
        ({"software": Software(python="3.12.1", triton="3")}, "block", "torch", "make venv"),
        ({"disks": (BUILD_LOW,)}, "warn", "disk", "SMML_BUILD"),
        ({"disks": (BUILD_FULL,)}, "block", "disk", "SMML_BUILD"),
        ({"disks": (disk("shared memory", total=64 * MIB),)}, "warn", "shared memory", "--shm-size"),
        ({"memory_bytes": 3 * GIB}, "warn", "memory", "4 GiB"),
        ({"gpus": (H200,)}, "warn", "GPU and torch", "torch==2.13.0"),
        ({"gpus": (H200,), "software": OLD_DRIVER}, "warn", "GPU and torch", "CUDA 13.0 or newer"),
        ({"gpus": (H200.model_copy(update={"name": "NVIDIA Imaginary"}),), "software": CUDA}, "warn", "catalogue", "smml/data"),
        ({"notes": (Note(text="NVML fails", fix="run nvidia-smi"),)}, "warn", "hardware", "run nvidia-smi"),
        ({"interfaces": (Interface(name="0000:00:06.0", up=False, efa=True),)}, "warn", "EFA", "aws-efa-installer"),
        ({"ec2": Ec2(instance_type="p3.2xlarge")}, "warn", "AWS image", "newer GPU family"),
        ({"ec2": Ec2(instance_type="z99.huge")}, "warn", "catalogue", "smml/data"),
    ],
)  # fmt: skip
def test_what_a_machine_lacks(changes, level, subject, fix):
    findings = examine(machine(**changes))
    assert not_ok(findings) == [(level, subject)]
    assert fix in one(findings, subject).fix
    assert exit_code(findings) == (level == "block")


def test_no_compiler_blocks_and_no_browser_warns(monkeypatch):
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    findings = examine(machine())
    assert not_ok(findings) == [
        ("block", "C compiler"),
        ("block", "C++ compiler"),
        ("warn", "browser"),
    ]
    assert one(findings, "browser").fix == "make system-deps"


def test_compiler_of_the_environment_counts(monkeypatch):
    monkeypatch.setenv("CC", "my-cc")
    monkeypatch.setattr(
        setup.shutil, "which", lambda name: "/opt/my-cc" if name == "my-cc" else None
    )
    assert one(examine(machine()), "C compiler").found == "/opt/my-cc"


def test_python_headers_matter_only_with_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(setup.sysconfig, "get_path", lambda name: str(tmp_path / "nowhere"))
    assert not_ok(examine(machine())) == []
    assert not_ok(examine(machine(gpus=(H200,), software=CUDA))) == [("warn", "Python headers")]


def test_packages(monkeypatch):
    monkeypatch.setattr(
        software, "unmet", lambda: [("boto3>=1.40", None), ("torch>=2.11,<2.14", "2.5")]
    )
    monkeypatch.setattr(software, "differing", lambda lock: [("numpy", "2.4.6", "2.3.0")])
    findings = examine(machine())
    assert not_ok(findings) == [("block", "dependencies"), ("warn", "lock")]
    assert (
        "boto3>=1.40 (not installed), torch>=2.11,<2.14 (2.5)"
        in one(findings, "dependencies").found
    )
    assert "numpy 2.3.0 (locked 2.4.6)" in one(findings, "lock").found


def test_without_a_lock_nothing_is_compared(monkeypatch, tmp_path):
    monkeypatch.setenv("SMML_ROOT", str(tmp_path))
    monkeypatch.setattr(software, "differing", lambda lock: [("numpy", "2", "1")])
    assert not_ok(examine(machine())) == []


def test_package_that_is_not_installed(monkeypatch):
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(setup.metadata, "metadata", missing)
    assert not_ok(examine(machine())) == [("block", "package")]


def test_torch_that_cannot_be_imported(monkeypatch):
    monkeypatch.setattr(setup, "_probe_torch", probe("", 1, "Traceback\nImportError: libfoo.so"))
    finding = one(examine(machine()), "torch")
    assert (finding.level, finding.fix) == ("block", "make venv")
    assert "ImportError: libfoo.so" in finding.found


def test_torch_that_is_killed_without_a_word(monkeypatch):
    monkeypatch.setattr(setup, "_probe_torch", probe("", -11))
    assert "exit code -11" in one(examine(machine()), "torch").found


def test_gpu_that_torch_does_not_see(monkeypatch):
    monkeypatch.setattr(setup, "_probe_torch", probe("2.13.0|False|no CUDA GPUs are available"))
    finding = one(examine(machine(gpus=(H200,), software=CUDA)), "torch on GPU")
    assert finding.level == "warn"
    assert "no CUDA GPUs are available" in finding.found


def test_build_folder_that_cannot_be_written(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(setup.tempfile, "TemporaryFile", refuse)
    finding = one(examine(machine()), "build folder")
    assert finding.level == "block"
    assert "Permission denied" in finding.found
    assert "SMML_BUILD" in finding.fix


def test_examining_leaves_no_files(tmp_path):
    before = sorted(tmp_path.rglob("*"))
    examine(machine())
    assert sorted(tmp_path.rglob("*")) == before


def test_quota_and_governor_are_told_without_a_warning():
    cpu = CPU.model_copy(update={"usable_cores": 2, "quota_cores": 2.5, "governor": "powersave"})
    findings = examine(machine(cpu=cpu))
    assert not_ok(findings) == []
    assert "2 of 8 cores usable, by a container quota of 2.5 cores" in one(findings, "CPU").found
    assert "governor" in one(findings, "CPU clock").found
    assert (
        "affinity"
        in one(examine(machine(cpu=CPU.model_copy(update={"usable_cores": 4}))), "CPU").found
    )


def test_ceilings_measured_or_not():
    found = machine()
    assert "not measured yet" in one(examine(found), "ceilings").found
    path = cache_path(found)
    path.parent.mkdir(parents=True)
    path.touch()
    assert str(path) in one(examine(found), "ceilings").found


def test_aws_image_of_an_instance():
    finding = one(
        examine(machine(ec2=Ec2(instance_type="g5.xlarge", region="eu-west-1"))), "AWS image"
    )
    assert "Deep Learning Base OSS Nvidia Driver GPU AMI" in finding.found
    assert "ml.g5.xlarge in SageMaker Studio" in finding.found
    assert "--region eu-west-1" in finding.fix


def test_aws_counterpart_of_a_gpu_elsewhere():
    finding = one(examine(machine(gpus=(H200,), software=CUDA)), "AWS counterpart")
    assert finding.found.startswith("p5en.")
    assert "USD/h" in finding.found


def test_working_efa_is_fine():
    findings = examine(machine(interfaces=(Interface(name="rdmap0s6", up=True, efa=True),)))
    assert one(findings, "EFA").level == "ok"


def test_rendering():
    findings = [
        Finding("ok", "A", "fine"),
        Finding("ok", "B", "fine", "look"),
        Finding("warn", "C", "bad", "mend"),
    ]
    assert render(findings) == (
        "ok    A: fine\nok    B: fine\n      how: look\nWARN  C: bad\n      fix: mend\n"
        "doctor: ready for make run: 0 blocking, 1 warnings, 2 fine."
    )
    findings.append(Finding("block", "D", "worse", "do it"))
    assert "BLOCK D: worse\n      fix: do it\ndoctor: not ready for make run: 1 blocking" in render(
        findings
    )
    assert exit_code(findings) == 1
    assert exit_code([]) == 0


def test_this_machine(monkeypatch):
    monkeypatch.undo()
    findings = examine(detect())
    assert one(findings, "Python").level == "ok"
    assert one(findings, "torch").level == "ok"
    assert all(finding.fix for finding in findings if finding.level != "ok")
    assert all("\n" not in finding.found + finding.fix for finding in findings)
    assert Path(one(findings, "C compiler").found).is_absolute()
