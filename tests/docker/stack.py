"""Docker commands, and the compose stack on ports of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.pictures import jpeg_bytes
from tests.processes import reserve_port, wait_until

ROOT = Path(__file__).parents[2]
DOCKER = shutil.which("docker") or "docker"
API_IMAGE, WORKER_IMAGE, EMBEDDED_IMAGE = "captionfleet-api", "captionfleet-worker", "captionfleet"


def run(*command: str, timeout: float = 600, **environment: str) -> str:
    """Run a command in the repository and return its output; fails with what it printed."""
    return _ended(command, timeout, environment).stdout


def _ended(
    command: Sequence[str], timeout: float, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert ended.returncode == 0, f"{' '.join(command)}\n{ended.stdout}\n{ended.stderr}"
    return ended


def docker(*arguments: str, timeout: float = 600, **environment: str) -> str:
    """Run a docker command in the repository."""
    return run(DOCKER, *arguments, timeout=timeout, **environment)


def log_of(container: str) -> str:
    """Everything a container wrote."""
    ended = _ended([DOCKER, "logs", container], 60, {})
    return ended.stdout + ended.stderr


def health(container: str) -> str:
    """What Docker says of a container's health: starting, healthy or unhealthy."""
    return docker("inspect", "--format", "{{.State.Health.Status}}", container).strip()


class Service:
    """The API at an address, asked with a key."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url
        self.key = key

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Call the API with the key."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.request(method, self.url + path, headers=headers, timeout=60, **more)

    def submit(self, seeds: Sequence[int]) -> str:
        """Submit a photo for each seed as one job."""
        files = [
            ("images", (f"{place}.jpg", jpeg_bytes(seed), "image/jpeg")) for place, seed in enumerate(seeds)
        ]
        return str(self.ask("POST", "/v1/jobs", files=files).raise_for_status().json()["id"])

    def job(self, job: str) -> dict[str, Any]:
        """A job as it stands; empty while the API is away."""
        try:
            found: dict[str, Any] = self.ask("GET", f"/v1/jobs/{job}").json()
        except httpx.TransportError:
            return {}
        return found

    def jobs(self) -> list[dict[str, Any]]:
        """The newest hundred jobs."""
        found: list[dict[str, Any]] = self.ask("GET", "/v1/jobs?limit=100").raise_for_status().json()["data"]
        return found

    def items(self, job: str) -> list[dict[str, Any]]:
        """Wait for a job's end and return its items."""
        wait_until(lambda: self.job(job).get("status") == "completed", 600, f"the end of {job}")
        text = self.ask("GET", f"/v1/jobs/{job}/results").raise_for_status().text
        return [json.loads(line) for line in text.splitlines()]


class Stack(Service):
    """The compose stack, perhaps with other compose files over it."""

    def __init__(self, project: str, *overlays: str) -> None:
        super().__init__(f"http://127.0.0.1:{reserve_port()}")
        self.s3_port, self.flower_port = reserve_port(), reserve_port()
        self.files = [part for file in ("docker-compose.yml", *overlays) for part in ("-f", file)]
        self.environment = {
            "COMPOSE_PROJECT_NAME": project,
            "CAPTIONFLEET_PORT": self.url.rsplit(":", 1)[1],
            "CAPTIONFLEET_ORIGIN": self.url,
            "S3_PORT": str(self.s3_port),
            "S3_PUBLIC_URL": f"http://127.0.0.1:{self.s3_port}",
            "FLOWER_PORT": str(self.flower_port),
            "CAPTIONFLEET_CELERY_EVENTS": "1",
        }

    def compose(self, *arguments: str) -> str:
        """Run a compose command."""
        return docker("compose", *self.files, *arguments, **self.environment)

    def up(self, *more: str) -> None:
        """Start what is not running and wait until it is healthy."""
        self.compose("up", "--wait", "--wait-timeout", "240", *more)

    def command(self, *arguments: str) -> str:
        """Run a captionfleet command in the API's container."""
        return self.compose("exec", "-T", "api", "captionfleet", *arguments)

    def make_key(self) -> None:
        """Make the key that this stack is asked with."""
        self.key = self.command("keys", "create", "--owner", "me").strip().splitlines()[-1]

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's running containers."""
        return self.compose("ps", "--quiet", service).split()

    def down(self) -> None:
        """Remove all of it, volumes too."""
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "5")


def once_it_has_begun(service: Service, job: str) -> Callable[[], bool]:
    """A condition: some images of the job are captioned, and many are not."""

    def begun() -> bool:
        counts = service.job(job).get("counts", {})
        return bool(0 < counts.get("succeeded", 0) < counts.get("total", 0) / 2)

    return begun
