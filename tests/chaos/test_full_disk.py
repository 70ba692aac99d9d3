"""A disk that fills up in the middle of an embedded job: room is all it takes to go on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.cli.commands import Server
from tests.pictures import jpeg_bytes
from tests.processes import wait_until
from tests.servers import unavailable

IMAGES = 200
DISK = "160m"


class SmallDisk(Server):
    """`captionfleet serve` whose data folder is a file system of its own, small, in memory."""

    def __init__(self) -> None:
        super().__init__()
        if sys.platform != "linux" or not shutil.which("unshare"):
            unavailable("no unshare(1) to mount a small disk with")
        as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        if subprocess.run(["unshare", *as_root, "--mount", "true"], check=False).returncode != 0:
            unavailable("this user may not mount a small disk")
        self.data.mkdir()
        mount = f'mount -t tmpfs -o size={DISK} tmpfs "$0" && exec "$@"'
        inside = ["sh", "-c", mount, str(self.data), *self.process.command]
        self.process.command = ["unshare", *as_root, "--mount", *inside]

    @property
    def ballast(self) -> Path:
        """A file on the small disk."""
        return Path(f"/proc/{self.process.pid}/root{self.data}/ballast")

    def fill(self) -> None:
        """Leave no room."""
        with self.ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(65536)):
                pass
        with self.ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0"):
                pass


@pytest.fixture
def server() -> Iterator[SmallDisk]:
    running = SmallDisk()
    try:
        running.start()
        yield running
    finally:
        running.process.kill()


def test_a_disk_that_fills_up(server: SmallDisk) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        files = [("images", (f"{seed}.jpg", jpeg_bytes(seed), "image/jpeg")) for seed in range(IMAGES)]
        job = client.post("/v1/jobs", files=files).raise_for_status().json()
        server.fill()
        wait_until(lambda: "disk is full" in server.process.output, 60, "a write that found no room")
        refused = client.post("/v1/jobs", files=files[:3])
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True), refused.text
        assert refused.json()["code"] in ("storage_unavailable", "database_unavailable")
        half = client.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
        assert half["status"] in ("queued", "running")
        server.ballast.unlink()
        wait_until(lambda: _completed(client, job["id"]), 180, "the job's end")
        lines = client.get(f"/v1/jobs/{job['id']}/results").raise_for_status().text.splitlines()
        assert [json.loads(line)["status"] for line in lines] == ["succeeded"] * IMAGES
        jobs = client.get("/v1/jobs").raise_for_status().json()["data"]
        assert [found["id"] for found in jobs] == [job["id"]], "the refused job left something behind"


def _completed(client: httpx.Client, job_id: str) -> bool:
    return bool(client.get(f"/v1/jobs/{job_id}").raise_for_status().json()["status"] == "completed")
