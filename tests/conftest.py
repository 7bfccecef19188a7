"""Shared by all tests: nothing is written into the checkout or the user's cache; skips name what enables them."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

import smml as smml_package  # noqa: F401  chooses how kernels run, before a test imports triton

OF_RANKS = "test_parallel"
ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("MPLBACKEND", "agg")
# No deadline: the first example pays for imports. Derandomized: the same examples on every machine.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-skips", action="store_true", help="count a skipped test as a failure (CI)"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "gpu: needs an NVIDIA GPU; not collected where there is none"
    )
    config.addinivalue_line(
        "markers", "deepspeed: needs the extra deepspeed; not collected where it is not installed"
    )
    config.addinivalue_line(
        "markers", "document: needs the audited document; not collected without SMML_CASE_DOCUMENT"
    )
    config.addinivalue_line("markers", "notebook: executes a whole notebook of the course")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests out for which hardware or an extra is missing; notebooks, which measure, go last.

    Files that start ranks go first: under make test one process takes them all, and needs the longest.
    """
    from smml.hardware import detect

    missing = {}
    if detect().torch_device != "cuda":
        missing["gpu"] = "an NVIDIA GPU; run make test on a machine that has one"
    if importlib.util.find_spec("deepspeed") is None:
        missing["deepspeed"] = "deepspeed: see the extra in pyproject.toml"
    if "SMML_CASE_DOCUMENT" not in os.environ:
        missing["document"] = "the audited document: SMML_CASE_DOCUMENT=file make test"
    for marker, need in missing.items():
        left_out = [item for item in items if item.get_closest_marker(marker)]
        items[:] = [item for item in items if not item.get_closest_marker(marker)]
        if left_out:
            config.stash.setdefault(_LEFT_OUT, []).append(f"{len(left_out)} tests need {need}")
    items.sort(
        key=lambda item: (
            item.get_closest_marker("notebook") is not None,
            not item.path.stem.startswith(OF_RANKS),
        )
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Under make test a process takes whole files, which share fixtures, and all that start ranks are one to it."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return OF_RANKS if Path(file).stem.startswith(OF_RANKS) else file

    return ByFile(config, log)


def pytest_terminal_summary(terminalreporter, exitstatus: int, config: pytest.Config) -> None:
    for left_out in config.stash.get(_LEFT_OUT, []):
        terminalreporter.write_line(f"not run here: {left_out}")
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        consequence = "counted as failures" if config.getoption("--strict-skips") else "not run"
        terminalreporter.write_line(
            f"{len(skipped)} skipped tests are {consequence}; each names its command above"
        )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    # The second half of make test finds nothing in a selection without notebooks, the first nothing in one of them alone.
    nothing = exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
    if nothing and "notebook" in session.config.getoption("markexpr"):
        session.exitstatus = pytest.ExitCode.OK
    if session.config.getoption("--strict-skips") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


_LEFT_OUT = pytest.StashKey[list[str]]()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every folder that smml writes to, inside the test's own temporary one."""
    for name in ("BUILD", "RECORDS", "RESULTS", "CACHE"):
        monkeypatch.setenv(f"SMML_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("SMML_RECORDS", str(tmp_path / "build" / "records"))
    return tmp_path


@pytest.fixture
def setting():
    """This machine under the cpu profile, with ceilings made up for the test."""
    from made_setting import made_setting

    return made_setting()


@pytest.fixture
def smml(folders: Path):
    """Run the command `smml …` in a process of its own; returns the completed process."""

    def call(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "smml.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=ROOT,
            env=os.environ | environ,
        )

    return call


@pytest.fixture(scope="session")
def ranks_of_all_tests():
    """Workers by their number, started by the first test that asks and kept for all: a start takes seconds."""
    from smml.parallel.launch import Workers

    started: dict[int, Workers] = {}
    yield lambda ranks: started.setdefault(ranks, Workers(ranks))
    for workers in started.values():
        workers.close()


@pytest.fixture
def two(ranks_of_all_tests, monkeypatch: pytest.MonkeyPatch):
    """Two ranks, which find the tasks of this folder."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"), prepend=os.pathsep)
    return ranks_of_all_tests(2)


@pytest.fixture
def four(ranks_of_all_tests, monkeypatch: pytest.MonkeyPatch):
    """Four ranks likewise."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"), prepend=os.pathsep)
    return ranks_of_all_tests(4)
