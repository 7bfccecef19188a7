"""The lock: every direct dependency is pinned in it, conda's file says the same, torch is the version we test."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [
    Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
]


def locked() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): str(pin.specifier) for pin in pins}


def test_the_lock_pins_every_line_exactly_and_without_hashes():
    pins = locked()
    assert len(pins) > 100
    assert all(re.fullmatch(r"==[\w.!+]+", version) for version in pins.values())
    assert not any("+" in version for version in pins.values()), (
        "a local version is of one build only"
    )


def test_every_direct_dependency_is_locked_inside_its_range():
    pins = locked()
    for requirement in DIRECT:
        version = pins[canonicalize_name(requirement.name)].removeprefix("==")
        assert requirement.specifier.contains(version), (
            f"{requirement} does not admit the locked {version}"
        )


def test_torch_and_its_triton_are_the_tested_ones():
    assert locked()["torch"] == "==2.13.0"
    assert locked()["triton"] == "==3.7.1"


def test_conda_users_get_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert pip[0] == "--constraint constraints.txt"
    assert pip[-1] == "--editable .[dev]"
    listed = {canonicalize_name(r.name): r for r in map(Requirement, pip[1:-1])}
    pins = locked()
    assert set(listed) == {canonicalize_name(r.name) for r in DIRECT}
    assert {name: str(r.specifier) for name, r in listed.items()} == {
        name: pins[name] for name in listed
    }


def test_conda_gets_a_python_that_the_package_allows():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(
        i for i in environment["dependencies"] if isinstance(i, str) and i.startswith("python=")
    )
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(
        python.removeprefix("python=")
    )


def test_everything_imported_is_a_direct_dependency():
    import ast
    import sys
    from importlib.metadata import packages_distributions

    extras = PROJECT["optional-dependencies"]
    peers = map(Requirement, extras["gpu-peers"] + extras["deepspeed"])
    known = {canonicalize_name(r.name) for r in [*DIRECT, *peers]}
    distributions = packages_distributions()
    for path in (ROOT / "smml").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            for module in {m.split(".")[0] for m in modules} - sys.stdlib_module_names - {"smml"}:
                owners = {canonicalize_name(o) for o in distributions.get(module, [module])}
                assert owners & known, (
                    f"{path.name} imports {module}, which pyproject.toml does not name"
                )
