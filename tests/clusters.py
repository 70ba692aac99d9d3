"""A whole distributed deployment for tests: real Redis, PostgreSQL and S3, and worker processes on them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from jobs.ids import new_id
from jobs.objects import image_key
from jobs.records import CaptionOptions, Item, Job, JobSpec
from jobs.services import Services, build_services
from jobs.settings import load_settings
from jobs.store.schema import upgrade
from jobs.store.submit import NewItem, NewJob
from jobs.store.workers import Worker
from jobs.tables import ChunkRow
from tests.captioners import colour_png
from tests.processes import PATIENCE_S, Process, wait_until
from tests.servers import S3, Postgres, Redis

ROOT = Path(__file__).parents[1]
OWNER = "ann"
# Every worker has its work, however often these tests use the same pictures.
ALL_CAPTIONED = CaptionOptions(use_cache=False)


@dataclass
class Cluster:
    """Services as an API process has them, and the workers that were started."""

    redis: Redis
    postgres: Postgres
    s3: S3
    environment: dict[str, str]
    services: Services
    workers: list[Process] = field(default_factory=list)

    def worker(self, *, wait: bool = True, kind: str = "parent", **changed: Any) -> Process:
        """Start a worker; capital names are environment variables, others the captioner's fields."""
        variables = {name: str(value) for name, value in changed.items() if name.isupper()}
        captioner = {name: value for name, value in changed.items() if not name.isupper()}
        environment = self.environment | variables | {"CAPTIONER": json.dumps(captioner)}
        process = Process(
            [sys.executable, "-m", "tests.worker_process", kind], environment=environment, folder=ROOT
        )
        self.workers.append(process)
        before = self.alive() if wait else set()
        process.start()
        if wait:
            wait_until(lambda: self.alive() - before, 90, "the worker's row")
        return process

    def wait_workers(self, count: int) -> None:
        """Wait until so many workers serve, started side by side."""
        wait_until(lambda: len(self.alive()) == count, 90, f"{count} workers")

    def alive(self) -> set[str]:
        """Ids of the workers seen lately."""
        return {worker.id for worker in self.services.store.workers.alive()} - {"ruler"}

    def submit(self, images: Sequence[bytes], chunk: int = 16) -> str:
        """Make a job of uploads, cut into chunks of ``chunk`` images."""
        job = NewJob(new_id("job"), OWNER, "small", "upload", JobSpec(options=ALL_CAPTIONED))
        keys = [image_key(job.id, position) for position in range(len(images))]
        with self.services.objects.batch() as batch:
            for key, data in zip(keys, images, strict=True):
                writer = batch.open(key, "image/png")
                writer.write(data)
                writer.close()
            batch.flush()
        # The next job is cut as for workers of this speed.
        self.services.store.workers.see(Worker("ruler", "small", "1", "", "cpu", chunk / 4))
        items = [NewItem(f"{n}.png", f"{n}.png", "upload", object_key=key) for n, key in enumerate(keys)]
        self.services.intake.submit(job, items)
        self.services.store.workers.leave("ruler")
        return job.id

    def pictures(self, count: int, chunk: int = 16) -> str:
        """Make a job of ``count`` good pictures."""
        return self.submit([colour_png(number) for number in range(count)], chunk)

    def job(self, job_id: str) -> Job:
        return self.services.store.jobs.get(OWNER, job_id)[0]

    def done(self, job_id: str) -> int:
        return self.job(job_id).counts.succeeded

    def items(self, job_id: str) -> list[Item]:
        return [item for page in self.services.store.jobs.results(OWNER, job_id) for item in page]

    def chunks(self, job_id: str) -> list[Any]:
        with self.services.store.database.read() as connection:
            return list(connection.execute(select(ChunkRow).where(ChunkRow.job_id == job_id)))

    def wait_done(self, job_id: str, at_least: int, timeout: float = PATIENCE_S) -> None:
        """Wait until so many images have captions, and not all."""
        wait_until(lambda: self.done(job_id) >= at_least, timeout, f"{at_least} captions")

    def finish(self, job_id: str, timeout: float = 90) -> float:
        """Wait for the job's end, check that counters and rows agree, and return how long it took."""
        started = time.monotonic()
        wait_until(lambda: self.job(job_id).status == "completed", timeout, "the job's end")
        counts = self.job(job_id).counts
        statuses = Counter(str(item.status) for item in self.items(job_id))
        assert (statuses["succeeded"], statuses["failed"]) == (counts.succeeded, counts.failed)
        assert sum(statuses.values()) == counts.total
        return time.monotonic() - started

    def assert_all_captioned(self, job_id: str) -> None:
        """Every picture of a job of good pictures has exactly its caption."""
        wrong = [item for n, item in enumerate(self.items(job_id)) if item.caption != f"picture {n}"]
        assert not wrong, wrong[:3]


@contextmanager
def run_cluster(
    redis: Redis, postgres: Postgres, database_url: str, s3: S3, settings: dict[str, str]
) -> Iterator[Cluster]:
    """Build services over the servers; workers that still run are killed at the end."""
    environment = {
        "REDIS_URL": redis.url,
        "DATABASE_URL": database_url.replace("+psycopg", ""),
        "CAPTIONFLEET_BUCKET": s3.bucket,
        "CAPTIONFLEET_LEASE": "4",
        "CAPTIONFLEET_DECODE_PROCESSES": "1",
        "CAPTIONFLEET_CONCURRENCY": "2",
        **s3.environment,
        **settings,
    }
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        services = build_services(load_settings())
        upgrade(services.store.database)
        services.start()
        cluster = Cluster(redis, postgres, s3, before | environment, services)
        try:
            yield cluster
        finally:
            for worker in cluster.workers:
                worker.kill()
            services.close()
    finally:
        os.environ.clear()
        os.environ.update(before)


def child_of(parent: Process) -> int:
    """Return the process id of a worker's child."""
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")

    def find() -> int:
        found = children.read_text().split()
        return int(found[0]) if found else 0

    return wait_until(find, what="the worker's child")


def crash(pid: int) -> None:
    """End a process as the kernel or a spot interruption does."""
    os.kill(pid, signal.SIGKILL)
