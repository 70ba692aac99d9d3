"""``python -m benchmarks.limits``: what keys and the counting of requests add to reading a job's status."""

from __future__ import annotations

import statistics
import time

import redis
from flask import Flask

from api.app import create_app
from benchmarks.deployment import OWNER, Deployment, deployment
from benchmarks.machine import describe_machine
from jobs.ids import new_id
from jobs.records import JobSpec
from jobs.store.submit import NewItem, NewJob

READS = 1000
LIMITED, FREE = "1000000/day", None


class _Reader:
    """Reads a job's status with a key of these limits."""

    def __init__(self, running: Deployment, app: Flask, job_id: str, requests: str | None) -> None:
        _, key = running.services.store.keys.create(OWNER, limits={"requests": requests})
        self._http = app.test_client()
        self._headers = {"Authorization": f"Bearer {key}"}
        self._path = f"/v1/jobs/{job_id}"
        self.wall: list[float] = []
        self.own: list[float] = []

    def read(self) -> None:
        """Read once, timed."""
        own, wall = time.thread_time(), time.perf_counter()
        assert self._http.get(self._path, headers=self._headers).status_code == 200
        self.wall.append(time.perf_counter() - wall)
        self.own.append(time.thread_time() - own)


def _job(running: Deployment) -> str:
    job = NewJob(new_id("job"), OWNER, "small", "upload", JobSpec())
    running.services.intake.submit(job, [NewItem("a.jpg", "a.jpg", "upload", "k/0")])
    return job.id


def main() -> None:
    """Read in turn with a limited key and a free one; print medians."""
    print(describe_machine())
    with deployment() as running:
        app, job_id = create_app(running.services), _job(running)
        broker = redis.Redis.from_url(running.services.settings.redis_url or "")
        free, limited = (_Reader(running, app, job_id, requests) for requests in (FREE, LIMITED))
        for reader in (free, limited):
            reader.read()
            reader.wall.clear()
            reader.own.clear()
        before = broker.info("commandstats")["cmdstat_evalsha"]["calls"]
        for _ in range(READS):
            free.read()
            limited.read()
        asked = broker.info("commandstats")["cmdstat_evalsha"]["calls"] - before
        broker.close()
    for name, reader in (("not counted", free), ("counted", limited)):
        wall, own = (statistics.median(times) * 1e3 for times in (reader.wall, reader.own))
        print(f"a job's status, requests {name}: {wall:.2f} ms, {own:.2f} ms of processor time")
    print(f"questions to Redis a counted request: {asked / READS:.2f}")


if __name__ == "__main__":
    main()
