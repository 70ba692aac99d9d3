"""Dockerfiles, compose files and workflows pass the checkers made for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
COMPOSE = [
    "docker-compose.yml",
    "deploy/compose.gpu.yml",
    "deploy/compose.monitoring.yml",
    "tests/docker/compose.events.yml",
]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def check(name: str, *arguments: str | Path) -> None:
    """Run a command of this environment; fails with what it says."""
    command = [Path(sys.executable).parent / name, *arguments]
    run = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_dockerfiles() -> None:
    check("hadolint", "Dockerfile.api", "Dockerfile.worker")


@pytest.mark.parametrize("file", COMPOSE)
def test_compose_files(file: str) -> None:
    check("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)


def test_other_machines_reach_only_what_asks_for_a_key_that_was_made() -> None:
    """The API; the S3 server's key and others' passwords have defaults that everybody can read."""
    public = {
        name
        for file in COMPOSE
        for name, service in YAML(typ="safe").load(ROOT / file)["services"].items()
        for port in service.get("ports", [])
        if not port.startswith(("127.0.0.1:", "${S3_BIND:-127.0.0.1}:"))
    }
    assert public == {"api"}


def test_workflows() -> None:
    check("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    check("zizmor", "--offline", "--no-progress", "--min-severity", "medium", *WORKFLOWS)


def test_every_action_is_pinned_to_a_commit() -> None:
    used = [
        line.split("uses:")[1].strip()
        for file in WORKFLOWS
        for line in file.read_text().splitlines()
        if "uses:" in line
    ]
    elsewhere = [name for name in used if not name.startswith("./")]
    assert elsewhere
    assert [name for name in elsewhere if len(name.split("@")[1].split()[0]) != 40] == []
