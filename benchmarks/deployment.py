"""Real servers and this process's services over them, for benchmarks of the parts around the model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.services import Services, build_services
from jobs.settings import load_settings
from jobs.store.schema import upgrade
from tests.servers import Postgres, Redis, run_postgres, run_redis, run_s3

OWNER = "bench"


@dataclass
class Deployment:
    """Services over Redis, PostgreSQL and an S3 server that run for this benchmark alone."""

    services: Services
    postgres: Postgres
    redis: Redis

    def postgres_seconds(self) -> float:
        """CPU seconds of all of the database's processes so far, those of ended connections included."""
        return _cpu_seconds(self.postgres.process.pid)

    def redis_seconds(self) -> float:
        """CPU seconds of Redis so far."""
        return _cpu_seconds(self.redis.process.pid)

    def broker(self, model: str) -> tuple[int, int]:
        """Messages and bytes that Redis holds for a model's queue."""
        import redis

        client = redis.Redis.from_url(self.redis.url)
        held = sum(client.memory_usage(key) or 0 for key in client.scan_iter())
        return client.llen(f"captionfleet.{model}"), held


def _cpu_seconds(pid: int) -> float:
    try:
        own = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        # It has just ended: its parent counts it from now on.
        return 0.0
    # utime, stime, and what waited-for children used.
    ticks = sum(int(value) for value in own[11:15])
    return ticks / os.sysconf("SC_CLK_TCK") + sum(_cpu_seconds(int(child)) for child in children)


def resident_mb(pid: int | str = "self") -> float:
    """Memory of a process now, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextlib.contextmanager
def deployment(**settings: str) -> Iterator[Deployment]:
    """Start the servers and build services over them; capital names are environment variables."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(run_redis())
        postgres = stack.enter_context(run_postgres())
        s3 = stack.enter_context(run_s3())
        url = stack.enter_context(postgres.database()).replace("+psycopg", "")
        environment = {"REDIS_URL": redis.url, "DATABASE_URL": url, "CAPTIONFLEET_BUCKET": s3.bucket}
        before = dict(os.environ)
        stack.callback(os.environ.update, before)
        stack.callback(os.environ.clear)
        os.environ.update(s3.environment | environment | settings)
        services = build_services(load_settings())
        stack.callback(services.close)
        upgrade(services.store.database)
        yield Deployment(services, postgres, redis)
