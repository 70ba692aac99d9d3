"""A bulk job through real Redis, PostgreSQL and S3 with two workers, and what a fault in the middle costs.

``python -m benchmarks.faults FOLDER`` captions the folder three times, nothing of it from the caption cache:
undisturbed; with Redis flushed in the middle; with one worker killed by SIGKILL and then Redis flushed. Each
run ends with an account of every item, kept by a trigger in the database; it fails unless each was recorded
once.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.machine import describe_machine
from captionfleet_client import Client, Files
from tests.chaos.cluster import WITNESS
from tests.processes import Process, reserve_port, wait_until
from tests.servers import Postgres, run_postgres, run_redis, run_s3

CAPTIONFLEET = str(Path(sys.executable).with_name("captionfleet"))


@dataclass
class Fleet:
    """A running system: two API processes, two workers, and what they stand on."""

    url: str
    key: str
    environment: dict[str, str]
    workers: list[Process]
    redis_url: str
    postgres: Postgres
    api: list[Process] = field(default_factory=list)
    metrics_ports: list[int] = field(default_factory=list)
    """The workers', in their order."""

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        """Call the API as its owner."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.get(self.url + path, params=parameters, headers=headers, timeout=60).raise_for_status()

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job."""
        found: dict[str, Any] = self.get(f"/v1/jobs/{job_id}").json()
        return found

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement in the service's database."""
        return self.postgres.execute(statement, self.environment["DATABASE_URL"].rpartition("/")[2])

    def command(self, *arguments: str) -> str:
        """Run one captionfleet command and return what it printed."""
        environment = self.environment | {"CAPTIONFLEET_URL": self.url, "CAPTIONFLEET_API_KEY": self.key}
        return subprocess.run(
            [CAPTIONFLEET, *arguments], env=environment, check=True, capture_output=True, text=True
        ).stdout


@contextlib.contextmanager
def running_fleet(workers: int, core: int | None = None, **settings: str) -> Iterator[Fleet]:
    """Start servers, API and workers, those tied to ``core`` if given; stop them at the end."""
    with run_redis() as redis, run_postgres() as postgres, run_s3() as s3, postgres.database() as database:
        port = reserve_port()
        environment = os.environ | s3.environment
        environment |= {"REDIS_URL": redis.url, "DATABASE_URL": database.replace("+psycopg", "")}
        environment |= {"CAPTIONFLEET_BUCKET": s3.new_bucket(), "CAPTIONFLEET_PORT": str(port)} | settings
        fleet = Fleet(f"http://127.0.0.1:{port}", "", environment, [], redis.url, postgres)
        fleet.command("migrate")
        fleet.key = fleet.command("keys", "create", "--owner", "bench").split()[-1]
        processes = [Process([CAPTIONFLEET, "api"], environment=environment)]
        worker = [*([] if core is None else ["taskset", "-c", str(core)]), CAPTIONFLEET, "worker"]
        for _ in range(workers):
            fleet.metrics_ports.append(reserve_port())
            own = {"CAPTIONFLEET_METRICS_PORT": str(fleet.metrics_ports[-1])}
            processes.append(Process(worker, environment=environment | own))
        fleet.api, fleet.workers = processes[:1], processes[1:]
        try:
            for process in processes:
                process.start()
            wait_until(lambda: _ready(fleet, workers), 90, "API and workers being ready")
            yield fleet
        finally:
            for process in processes:
                process.stop()


def _ready(fleet: Fleet, workers: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return bool(fleet.get("/v1/models").json()["data"][0]["workers"] == workers)
    return False


def kill_a_worker(fleet: Fleet) -> None:
    """Kill one worker, parent and child, as a lost machine would."""
    fleet.workers[0].kill()


def flush_redis(fleet: Fleet) -> None:
    """Make the broker forget everything."""
    import redis

    with redis.Redis.from_url(fleet.redis_url) as client:
        client.flushall()


RUNS: dict[str, tuple[Callable[[Fleet], None], ...]] = {
    "none": (),
    "Redis flushed": (flush_redis,),
    "killed, then flushed": (kill_a_worker, flush_redis),
}


@dataclass(frozen=True)
class Account:
    """What became of a job's images."""

    once: int
    """Recorded exactly once."""
    again: int
    """Of chunks that a worker began after another had."""
    missing: int
    """Without a caption or an error at the end."""


@dataclass
class Run:
    """What one job took."""

    fault: str
    seconds: float
    images_per_second: float
    longest_gap: float
    counts: dict[str, int]
    account: Account


def run(fleet: Fleet, folder: Path, name: str) -> Run:
    """Submit a folder as one job, inject its faults evenly spread, wait for the end and check every item."""
    faults = RUNS[name]
    job_id = submit(fleet, folder)
    total = fleet.job(job_id)["counts"]["total"]
    wait_until(lambda: _done(fleet, job_id) > 0, 60, "the first caption")
    started = changed = time.monotonic()
    first = last = _done(fleet, job_id)
    injected, gap = 0, 0.0
    while last < total:
        time.sleep(0.1)
        now, done = time.monotonic(), _done(fleet, job_id)
        if done != last:
            gap, changed, last = max(gap, now - changed), now, done
        if injected < len(faults) and done >= total * (injected + 1) / (len(faults) + 1):
            faults[injected](fleet)
            injected += 1
    seconds = time.monotonic() - started
    wait_until(lambda: fleet.job(job_id)["status"] == "completed", 30)
    counts = fleet.job(job_id)["counts"]
    return Run(name, seconds, (total - first) / seconds, gap, counts, check(fleet, job_id, total))


def submit(fleet: Fleet, folder: Path) -> str:
    """Submit a folder as a job whose every image goes through the model, as often as it is sent."""
    with Client(fleet.url, fleet.key) as client:
        return client.submit(Files(sorted(folder.iterdir())), options={"use_cache": False}).id


def _done(fleet: Fleet, job_id: str) -> int:
    counts = fleet.job(job_id)["counts"]
    return int(counts["succeeded"] + counts["failed"])


def check(fleet: Fleet, job_id: str, total: int) -> Account:
    """Hold a job's results against what the database noted when they were recorded."""
    lines = fleet.get(f"/v1/jobs/{job_id}/results", format="jsonl").text.splitlines()
    noted = fleet.query("SELECT job_id, position FROM finals")
    recorded = Counter(position for job, position in noted if job == job_id)
    return account([json.loads(line) for line in lines], recorded, total)


def account(items: list[dict[str, Any]], recorded: Counter[int], total: int) -> Account:
    """Count the items of a job of ``total``; ``recorded`` is how often each position was."""
    final = [item for item in items if item["status"] in ("succeeded", "failed")]
    answered = [item for item in final if bool(item["caption"]) != bool(item["error"])]
    return Account(
        once=sum(times == 1 for times in recorded.values()),
        again=sum(item["attempts"] > 1 for item in items),
        missing=total - len({item["position"] for item in answered}),
    )


def main() -> int:
    """Run all three and print a table; 1 where an image was not recorded exactly once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="photos to caption")
    parser.add_argument("--images", type=int, default=2000, help="how many of them")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    print(describe_machine())
    print(
        f"{'fault':<22}{'seconds':>9}{'images/s':>10}{'longest gap s':>15}{'once':>8}{'again':>8}{'lost':>6}"
        "  counts"
    )
    whole = True
    with _selection(arguments.folder, arguments.images) as folder, running_fleet(arguments.workers) as fleet:
        fleet.query(WITNESS)
        for name in RUNS:
            done = run(fleet, folder, name)
            found = done.account
            whole &= found.once == done.counts["total"] and not found.missing
            print(
                f"{done.fault:<22}{done.seconds:>9.1f}{done.images_per_second:>10.1f}{done.longest_gap:>15.1f}"
                f"{found.once:>8}{found.again:>8}{found.missing:>6}  {done.counts}",
                flush=True,
            )
    return 0 if whole else 1


@contextlib.contextmanager
def _selection(folder: Path, images: int) -> Iterator[Path]:
    """Link the first images of a folder into one of their own."""
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        for path in itertools.islice(sorted(folder.iterdir()), images):
            (Path(temporary) / path.name).symlink_to(path.resolve())
        yield Path(temporary)


if __name__ == "__main__":
    sys.exit(main())
