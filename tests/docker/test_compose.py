"""The compose stack for real: built, started, photos captioned, containers killed, workers scaled.

`make test-docker` runs it; where no Docker engine answers it is skipped, with the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.pictures import jpeg_bytes
from tests.processes import reserve_port, wait_until
from tests.servers import unavailable

ROOT = Path(__file__).parents[2]
PROJECT = "captionfleet-test"
PHOTOS = 120
WORKER_IMAGE = "captionfleet-worker"

pytestmark = pytest.mark.docker


def docker(*arguments: str, timeout: float = 600, **environment: str) -> str:
    """Run a docker command in the repository; fails with what it printed."""
    command = [shutil.which("docker") or "docker", *arguments]
    run = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert run.returncode == 0, f"{' '.join(command)}\n{run.stdout}\n{run.stderr}"
    return run.stdout


class Stack:
    """The compose stack on ports of its own."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{reserve_port()}"
        s3 = reserve_port()
        self.environment = {
            "COMPOSE_PROJECT_NAME": PROJECT,
            "CAPTIONFLEET_PORT": self.url.rsplit(":", 1)[1],
            "CAPTIONFLEET_ORIGIN": self.url,
            "S3_PORT": str(s3),
            "S3_PUBLIC_URL": f"http://127.0.0.1:{s3}",
        }
        self.key = ""

    def compose(self, *arguments: str) -> str:
        """Run a compose command."""
        return docker("compose", *arguments, **self.environment)

    def up(self, *more: str) -> None:
        """Start what is not running and wait until it is healthy."""
        self.compose("up", "--wait", "--wait-timeout", "240", *more)

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's running containers."""
        return self.compose("ps", "--quiet", service).split()

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Call the API with the key."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.request(method, self.url + path, headers=headers, timeout=60, **more)

    def submit(self, first: int) -> str:
        """Submit photos as one job."""
        files = [
            ("images", (f"{number}.jpg", jpeg_bytes(first + number), "image/jpeg"))
            for number in range(PHOTOS)
        ]
        return str(self.ask("POST", "/v1/jobs", files=files).raise_for_status().json()["id"])

    def captions(self, job: str) -> list[dict[str, Any]]:
        """Wait for a job's end and return its items."""
        wait_until(lambda: self._status(job) == "completed", 240, f"the end of {job}")
        text = self.ask("GET", f"/v1/jobs/{job}/results").raise_for_status().text
        return [json.loads(line) for line in text.splitlines()]

    def _status(self, job: str) -> str:
        try:
            return str(self.ask("GET", f"/v1/jobs/{job}").json().get("status"))
        except httpx.TransportError:
            return "away"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    try:
        docker("version", timeout=20)
        docker("compose", "version", timeout=20)
    except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
        unavailable(f"no Docker engine with compose answers: {str(error).strip().splitlines()[-1]}")
    # Built anew, never what an earlier run left; compose would need a newer builder than some engines have.
    docker("build", "-f", "Dockerfile.api", "-t", "captionfleet-api", ".", timeout=1200)
    docker("build", "-f", "Dockerfile.worker", "--target", "cpu", "-t", WORKER_IMAGE, ".", timeout=1200)
    stack = Stack()
    try:
        stack.up()
        made = stack.compose("exec", "-T", "api", "captionfleet", "keys", "create", "--owner", "me")
        stack.key = made.strip().splitlines()[-1]
        yield stack
    finally:
        stack.compose("--profile", "*", "down", "--volumes", "--timeout", "5")


def _all_captioned(items: list[dict[str, Any]]) -> None:
    assert sorted(item["position"] for item in items) == list(range(PHOTOS))
    assert {item["status"] for item in items} == {"succeeded"}


@pytest.mark.timeout(3000)
def test_photos_are_captioned(stack: Stack) -> None:
    job = stack.submit(0)
    _all_captioned(stack.captions(job))
    # The image is served by the S3 server itself, at the address that clients reach.
    image = stack.ask("GET", f"/v1/jobs/{job}/items/0/image", follow_redirects=True)
    assert image.content == jpeg_bytes(0)


@pytest.mark.timeout(900)
def test_killed_containers_cost_nothing(stack: Stack) -> None:
    stack.up("--scale", "worker=3", "--no-recreate")
    assert len(stack.containers("worker")) == 3
    job = stack.submit(1000)
    docker("kill", stack.containers("worker")[0])
    docker("kill", *stack.containers("redis"))
    docker("kill", *stack.containers("api"))
    stack.up("--scale", "worker=3", "--no-recreate")
    _all_captioned(stack.captions(job))


@pytest.mark.timeout(300)
def test_containers_run_with_little(stack: Stack) -> None:
    for service in ("api", "worker"):
        (found,) = json.loads(docker("inspect", stack.containers(service)[0]))
        assert found["Config"]["User"] == "10001"
        assert found["HostConfig"]["ReadonlyRootfs"] is True
        assert found["HostConfig"]["CapDrop"] == ["ALL"]
        assert found["State"]["Health"]["Status"] == "healthy"
