"""A deployment that is observed: the real commands, each with a metrics port, traces and JSON logs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.collectors import Collector
from tests.e2e.cli.commands import command, environment
from tests.processes import Process, reserve_port, wait_until
from tests.servers import S3, Redis


@dataclass
class Observed:
    """A running API and worker, and what looks at them."""

    client: httpx.Client
    api: Process
    worker: Process
    redis: Redis
    collector: Collector
    targets: list[str]

    def submit(self, *images: bytes, **headers: str) -> str:
        """Send images as a job and wait for its end."""
        parts = [("images", (f"{n}.jpg", data, "image/jpeg")) for n, data in enumerate(images)]
        answer = self.client.post("/v1/jobs", files=parts, headers=headers)
        assert answer.status_code == 202, answer.text
        job_id = str(answer.json()["id"])
        wait_until(lambda: self._status(job_id) == "completed", 60, "the job's end")
        return job_id

    def log_lines(self, process: Process) -> list[dict[str, Any]]:
        """Return what a process logged as JSON."""
        return [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]

    def _status(self, job_id: str) -> str:
        return str(self.client.get(f"/v1/jobs/{job_id}", params={"wait": 5}).json()["status"])


@contextmanager
def run_observed(
    redis: Redis, database_url: str, s3: S3, collector: Collector, folder: Path
) -> Iterator[Observed]:
    """Start API and worker over the servers; stop them at the end."""
    port, *metrics = (reserve_port() for _ in range(3))
    variables = s3.environment | {
        "DATABASE_URL": database_url.replace("+psycopg", ""),
        "REDIS_URL": redis.url,
        "CAPTIONFLEET_BUCKET": s3.bucket,
        "CAPTIONFLEET_LOG_LEVEL": "debug",
        "CAPTIONFLEET_DECODE_PROCESSES": "1",
        "CAPTIONFLEET_CELERY_EVENTS": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }

    def process(number: int, *words: str) -> Process:
        own = {"CAPTIONFLEET_METRICS_PORT": str(metrics[number])}
        return Process(
            [command(), *words], environment=environment(folder, **variables, **own), folder=folder
        )

    def run(*words: str) -> str:
        own = environment(folder, **variables)
        return subprocess.run(
            [command(), *words], env=own, cwd=folder, check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()

    run("migrate")
    key = run("keys", "create", "--owner", "ada")
    api, worker = process(0, "api", "--port", str(port)), process(1, "worker")
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=30
    )
    try:
        worker.start()
        api.start(lambda: _answers(client), timeout=90)
        targets = [f"127.0.0.1:{port}" for port in metrics]
        yield Observed(client, api, worker, redis, collector, targets)
    finally:
        client.close()
        worker.kill()
        api.kill()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False
