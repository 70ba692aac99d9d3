"""Dockerfiles, compose files and workflows pass the checkers made for them."""

from __future__ import annotations

import os
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


def script(workflow: str, job: str, step: str) -> str:
    """The commands of a workflow's step."""
    steps = YAML(typ="safe").load(ROOT / ".github/workflows" / workflow)["jobs"][job]["steps"]
    (found,) = [entry["run"] for entry in steps if step in (entry.get("name"), entry.get("id"))]
    return str(found)


def run_step(folder: Path, commands: str, **given: str) -> None:
    """Run a step's commands as GitHub does, with a `docker` that notes its arguments in the file `asked`."""
    docker = folder / "docker"
    docker.write_text(
        f'#!/bin/sh\necho "$*" >> {folder}/asked\n[ "$1" != buildx ] || [ -e {folder}/pushed ]\n'
    )
    docker.chmod(0o755)
    places = {"GITHUB_OUTPUT": f"{folder}/output", "GITHUB_STEP_SUMMARY": f"{folder}/summary"}
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", **places, **given}
    subprocess.run(["bash", "-eo", "pipefail", "-c", commands], env=environment, check=True, timeout=20)


@pytest.mark.parametrize(
    ("registry", "region", "pushed", "asks"),
    [
        ("1.dkr.ecr.us-east-1.amazonaws.com", "us-east-1", False, ["buildx", "tag", "push"]),
        # Its tags cannot be given anew.
        ("1.dkr.ecr.us-east-1.amazonaws.com", "us-east-1", True, ["buildx"]),
        ("ghcr.io/Some-Owner", "", True, ["tag", "push"]),
    ],
)
def test_an_image_is_pushed_once_to_a_name_in_small_letters(
    tmp_path: Path, registry: str, region: str, pushed: bool, asks: list[str]
) -> None:
    if pushed:
        (tmp_path / "pushed").touch()
    wanted = "photos-api:v1.0-RC1"
    commands = script("images.yml", "build", "Push")
    run_step(tmp_path, commands, BUILT="built", REGION=region, REGISTRY=registry, WANTED=wanted)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.split()[0] for line in asked] == asks
    assert all(line.endswith(f" {registry.lower()}/{wanted}") for line in asked)


@pytest.mark.parametrize(
    ("choices", "name"),
    [("", "captionfleet"), ("gpu=false name=photos alarm_email=me@example.com", "photos")],
)
def test_images_go_to_the_repositories_of_the_deployment(tmp_path: Path, choices: str, name: str) -> None:
    commands = script("deploy.yml", "where", "read")
    run_step(tmp_path, commands, CHOICES=choices, REGION="r", REGISTRY="g", ROLE="o")
    assert f"name={name}" in (tmp_path / "output").read_text().splitlines()
    jobs = YAML(typ="safe").load(ROOT / ".github/workflows/deploy.yml")["jobs"]
    assert jobs["where"]["outputs"]["name"] == "${{ steps.read.outputs.name }}"
    assert jobs["images"]["with"]["name"] == "${{ needs.where.outputs.name }}"


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
