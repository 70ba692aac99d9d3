"""docs/dependencies.md and requirements.lock keep up with pyproject.toml."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("api", "benchmarks", "cli", "client", "docs", "jobs", "migrations", "model", "tests", "worker")
OURS = {*PACKAGES, "captionfleet_client"}
# Parts of direct dependencies: of boto3, boto3-stubs[s3], celery[redis], pydantic, flask and transformers.
BROUGHT_ALONG = {
    *("botocore", "urllib3", "mypy-boto3-cloudwatch", "mypy-boto3-s3", "mypy-boto3-sqs"),
    *("kombu", "redis", "pydantic-core", "werkzeug"),
    *("huggingface-hub", "tokenizers"),
}


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def _direct_dependencies() -> set[str]:
    found: set[str] = set()
    for file in [ROOT / "pyproject.toml", *ROOT.glob("client/pyproject.toml")]:
        document = tomllib.loads(file.read_text())
        extras = document["project"].get("optional-dependencies", {})
        groups = [document["project"]["dependencies"], document["build-system"]["requires"], *extras.values()]
        found |= {_name(requirement) for group in groups for requirement in group}
    return {name for name in found if not name.startswith("captionfleet")}


def _rows() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", (ROOT / "docs/dependencies.md").read_text(), re.M)
    return {name: [cell.strip() for cell in rest.split("|")] for name, rest in rows}


def test_every_direct_dependency_has_a_row_and_every_row_a_dependency() -> None:
    assert set(_rows()) == _direct_dependencies()


def test_every_row_gives_a_licence_and_a_reason() -> None:
    empty = [name for name, cells in _rows().items() if len(cells) != 2 or not all(cells)]
    assert empty == []


def _imported_modules() -> set[str]:
    found: set[str] = set()
    for file in [file for folder in PACKAGES for file in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - OURS


def test_everything_that_is_imported_is_a_direct_dependency() -> None:
    distributions = packages_distributions()
    known = _direct_dependencies() | BROUGHT_ALONG
    strangers = {
        module
        for module in _imported_modules()
        if not known & {_name(distribution) for distribution in distributions.get(module, [module])}
    }
    assert strangers == set()


def test_the_lock_pins_every_direct_dependency() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = {_name(line) for line in lines if "==" in line and not line.startswith("#")}
    # Build isolation fetches the build backend on its own.
    assert _direct_dependencies() - {"setuptools"} <= locked


def test_the_lock_names_no_machine() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "/home/" not in text


def _pins(text: str) -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+(?:\[[^]]*\])?)==([^ ;\\\n]+)", text, re.M):
        pins.setdefault(_name(name), set()).add(version)
    return pins


def test_what_is_installed_for_others_is_locked_file_by_file_in_the_same_versions() -> None:
    everything = _pins((ROOT / "requirements.lock").read_text())
    locks = sorted((ROOT / "deploy/locks").glob("*.txt"))
    assert [lock.stem for lock in locks] == ["api", "cuda", "embedded", "worker"]
    for lock in locks:
        text = lock.read_text()
        assert all(versions <= everything.get(name, set()) for name, versions in _pins(text).items()), lock
        requirements = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.M)[1:]
        assert [one for one in requirements if "--hash=sha256:" not in one] == []
        assert "://" not in text


def test_images_install_by_hash_alone() -> None:
    for name in ("Dockerfile.api", "Dockerfile.worker"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if "pip install" in line]
        assert lines
        assert all("--require-hashes" in line or "--no-deps --no-build-isolation" in line for line in lines)
