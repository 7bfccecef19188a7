"""Read-only and full disks: real ones, mounted in a namespace of the test's own; nothing is half-written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_course import add_notebook

ROOT = Path(__file__).resolve().parent.parent
# Root may mount in a namespace of its own; others need a user namespace as well.
NAMESPACE = (
    ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
)


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(probe, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(
    not can_mount(), reason="needs mount namespaces: sudo make test, or on Linux as root"
)


def on_disk(mount: str, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `command` where the shell line `mount` was done first."""
    return subprocess.run(
        [*NAMESPACE, "sh", "-c", f'{mount} && exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environ,
    )


def smml_run(mount: str, root: Path, build: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "smml.cli", "run", "--no-site"]
    return on_disk(
        mount,
        *command,
        SMML_ROOT=str(root),
        SMML_BUILD=str(build),
        SMML_RECORDS=str(build / "records"),
    )


def test_a_read_only_build_folder_is_one_line_and_runs_nothing(tmp_path):
    add_notebook(tmp_path, "01_x", f"open({str(tmp_path / 'ran')!r}, 'w')")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = smml_run(f"mount -t tmpfs -o ro tmpfs {disk}", tmp_path, disk / "build")
    assert done.returncode == 2
    assert "Read-only file system" in done.stderr
    assert "SMML_BUILD" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "ran").exists()


def test_too_little_space_is_said_before_anything_runs(tmp_path):
    add_notebook(tmp_path, "01_x", f"open({str(tmp_path / 'ran')!r}, 'w')")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = smml_run(f"mount -t tmpfs -o size=1m tmpfs {disk}", tmp_path, disk / "build")
    assert done.returncode == 2
    assert "1 MiB free, 50 MiB are needed" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_disk_that_fills_in_mid_run_leaves_nothing_half_written(tmp_path):
    filler = """
import os
with open(os.environ["SMML_BUILD"] + "/filler", "wb") as file:
    try:
        while True:
            file.write(b"x" * 65536)
            file.flush()
    except OSError as error:
        print(error.strerror)
"""
    add_notebook(tmp_path, "01_x", filler, "print('x' * 10_000_000)")
    disk, seen = tmp_path / "disk", tmp_path / "seen"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=64m tmpfs {disk}"
    keep = f"cp -r {disk}/build {seen}; rm -f {seen}/filler; exit $code"
    script = f"{sys.executable} -m smml.cli run --no-site; code=$?; {keep}"
    done = on_disk(
        mount, "sh", "-c", script, SMML_ROOT=str(tmp_path), SMML_BUILD=str(disk / "build")
    )
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "No space left on device" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not list(seen.rglob("*.partial")), "no half-written file"
    assert (
        json.loads((seen / "run.json").read_text())["notebooks"]["00_module/01_x"]["status"]
        != "passed"
    )


@pytest.fixture
def makefile(tmp_path: Path) -> Path:
    """A folder with what make needs to begin setting up."""
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_make_in_a_read_only_checkout_says_what_to_do(makefile):
    mount = f"mount --bind {makefile} {makefile} && mount -o remount,ro,bind {makefile}"
    done = on_disk(mount, "make", "-C", str(makefile), "run")
    assert done.returncode == 2
    assert "this checkout is read-only; clone it" in done.stdout
    assert not (makefile / ".venv").exists()


def test_make_with_an_old_python_names_the_version_it_needs(makefile):
    old = makefile / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 1\necho "Python 3.9.2"\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "-C", str(makefile), "run", f"PYTHON={old}"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Python 3.9.2, Python 3.11 or newer is needed" in done.stdout
