"""`captionfleet serve` under a stream of jobs for minutes: killed and stopped at random, then left in peace.

SOAK_MINUTES sets how long each of the two tests runs (default 5).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.cli.commands import Server
from tests.pictures import jpeg_bytes
from tests.processes import wait_until

pytestmark = pytest.mark.soak

SECONDS = 60 * float(os.environ.get("SOAK_MINUTES", "5"))
PICTURES = 500
BACKLOG = 400
"""Images in unfinished jobs above which no new job is sent."""


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    running.start()
    try:
        yield running
    finally:
        running.process.kill()


class Client:
    """Sends jobs of random pictures, again with the same key after a broken call, and remembers them."""

    def __init__(self, url: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.http = httpx.Client(base_url=url, timeout=60)
        self.jobs: dict[str, list[int]] = {}
        self._unsent: tuple[str, list[int]] | None = None

    def send(self) -> None:
        """Send one job; ``httpx.HTTPError`` when the server is gone, then the next call repeats it."""
        if self._unsent is None:
            count = self.random.choice([1, 3, 20, 80])
            self._unsent = (uuid.uuid4().hex, [self.random.randrange(PICTURES) for _ in range(count)])
        key, seeds = self._unsent
        files = [("images", (f"{seed}.jpg", jpeg_bytes(seed), "image/jpeg")) for seed in seeds]
        answer = self.http.post("/v1/jobs", files=files, headers={"Idempotency-Key": key}).raise_for_status()
        self.jobs[answer.json()["id"]] = seeds
        self._unsent = None

    def backlog(self) -> int:
        """Images of all jobs that have no final state yet."""
        return sum(self._open(job_id) for job_id in self.jobs)

    def _open(self, job_id: str) -> int:
        counts = self.http.get(f"/v1/jobs/{job_id}").raise_for_status().json()["counts"]
        return int(counts["queued"] + counts["running"])

    def items(self, job_id: str) -> list[dict[str, Any]]:
        """All items of a job, in the order of their positions."""
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            params = {"limit": 100} | ({"cursor": cursor} if cursor else {})
            page = self.http.get(f"/v1/jobs/{job_id}/items", params=params).raise_for_status().json()
            found += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    def has_room(self) -> bool:
        """Whether the backlog allows another job."""
        return self.backlog() < BACKLOG


@contextlib.contextmanager
def _client(server: Server, seed: int) -> Iterator[Client]:
    client = Client(server.url, seed)
    with client.http:
        yield client


def _check_every_item(client: Client) -> None:
    """Every picture of every job has exactly one caption, the same wherever the picture appears."""
    captions: dict[int, set[str]] = {}
    for job_id, seeds in client.jobs.items():
        items = client.items(job_id)
        assert [item["position"] for item in items] == list(range(len(seeds)))
        assert [item["name"] for item in items] == [f"{seed}.jpg" for seed in seeds]
        assert {item["status"] for item in items} == {"succeeded"}, job_id
        for seed, item in zip(seeds, items, strict=True):
            captions.setdefault(seed, set()).add(item["caption"])
    assert all(len(found) == 1 and all(found) for found in captions.values())


def _memory_mb(server: Server) -> float:
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _end_and_start(server: Server, kill: bool) -> None:
    if kill:
        server.process.kill()
    else:
        assert server.process.stop(signal.SIGTERM, timeout=60) == 0
    server.start()


def _trouble(server: Server, client: Client) -> int:
    """Send jobs while the server dies every few seconds; return how often it died."""
    deaths = 0
    deadline = time.monotonic() + SECONDS
    next_death = time.monotonic() + 5
    while time.monotonic() < deadline:
        if time.monotonic() > next_death:
            _end_and_start(server, kill=client.random.random() < 0.8)
            deaths += 1
            next_death = time.monotonic() + client.random.uniform(0.5, 15)
        elif client.has_room():
            client.send()
        else:
            time.sleep(0.2)
    return deaths


def test_nothing_is_lost_however_often_the_server_dies(server: Server) -> None:
    with _client(server, seed=1) as client:
        assert _trouble(server, client) > SECONDS / 60
        wait_until(lambda: client.backlog() == 0, 600, "the end of all jobs")
        _check_every_item(client)


def _send_for(client: Client, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        wait_until(client.has_room, 300, "room for a job")
        client.send()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory from /proc")
def test_memory_stays_where_it_is(server: Server) -> None:
    with _client(server, seed=2) as client:
        _send_for(client, SECONDS / 4)
        warm = _memory_mb(server)
        _send_for(client, SECONDS * 3 / 4)
        wait_until(lambda: client.backlog() == 0, 600, "the end of all jobs")
        assert _memory_mb(server) < warm + 64
        _check_every_item(client)
