"""Versions read from files and metadata, and how they fit the lock."""

from pathlib import Path

import pytest

from smml.hardware import software


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("cuda: Optional[str] = None", None),
        ("cuda: Optional[str] = '13.0'", "13.0"),
        ('cuda = "12.8"', "12.8"),
        ("", None),
    ],
)
def test_cuda_version_is_read_from_torchs_version_file(line, version):
    assert (
        software.cuda_of(
            f"__version__ = '2.13.0'\ncuda_like = '1'\n{line}\nhip: Optional[str] = '6'\n"
        )
        == version
    )


def test_differing_packages_ignore_local_parts_and_absent_packages(tmp_path):
    lock = write(
        tmp_path,
        {
            "c.txt": f"# lock\nPytest=={pytest.__version__}+cpu\npydantic==0.1 ; python_version > '3'\nno-such-thing==1"
        },
    )
    differing = software.differing(lock / "c.txt")
    assert [(name, locked) for name, locked, _ in differing] == [("pydantic", "0.1")]


def test_efa_version(tmp_path):
    write(
        tmp_path,
        {"opt/amazon/efa_installed_packages": "# EFA installer version: 1.47.0\n# Debug: no"},
    )
    assert software.read(root=tmp_path).efa == "1.47.0"


def test_dependencies_that_are_missing_or_out_of_range(monkeypatch):
    needs = [
        "pytest>=1",
        "pytest<1",
        "no-such-thing>=2",
        "other; extra == 'dev'",
        "gone; python_version < '3'",
    ]
    monkeypatch.setattr(software.metadata, "requires", lambda package: needs)
    assert software.unmet("x") == [("pytest<1", pytest.__version__), ("no-such-thing>=2", None)]


@pytest.mark.parametrize(
    ("cuda", "wheel"),
    [("13.0", "nvidia-nccl-cu13"), ("12.8", "nvidia-nccl-cu12"), ("13.1", "nvidia-nccl")],
)
def test_nccl_comes_from_the_wheel_of_torchs_cuda(monkeypatch, tmp_path, cuda, wheel):
    monkeypatch.setattr(software, "torch_cuda", lambda: cuda)
    monkeypatch.setattr(
        software, "installed", lambda package: "2.28.9" if package == wheel else None
    )
    found = software.read(root=tmp_path)
    assert (found.nccl, found.cudnn) == ("2.28.9", None)
