"""A deployment for faults: hosts behind links, jobs whose every caption is known, and the final account."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import bindparam, func, select, text, update

from jobs.errors import ItemCode, TransientError
from jobs.ids import new_id
from jobs.records import CaptionOptions, JobSpec
from jobs.services import build_services
from jobs.store.states import ACTIVE
from jobs.store.submit import NewItem, NewJob
from jobs.store.window import CHUNKS_PER_WORKER, SMALLEST_WINDOW
from jobs.store.workers import Worker
from jobs.tables import ChunkRow, ItemRow, JobRow, UploadRow
from tests.captioners import Behaviour, colour_png
from tests.chaos.hosts import ApiHost, Host, Links
from tests.chaos.links import Missed
from tests.clusters import OWNER, Cluster, run_cluster
from tests.processes import wait_until
from tests.servers import run_postgres, run_redis, run_s3

T = TypeVar("T")

JOB_IMAGES = 1000
# A job beside the large ones, for an image that is special: not so small that it has a queue of its own.
SIDE_JOB_IMAGES = 50
CHUNK = 16
CLOCKS_WRONG_BY = 600
# Every change of an item's row, noted by the database itself: a second one would be a second caption.
WITNESS = """
CREATE TABLE finals (job_id text, position int);
CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN INSERT INTO finals VALUES (NEW.job_id, NEW.position); RETURN NULL; END';
CREATE TRIGGER witness AFTER UPDATE ON items FOR EACH ROW EXECUTE FUNCTION witness();
"""
ERRORS = {
    Behaviour.FAIL: ItemCode.CAPTION_FAILED,
    Behaviour.EMPTY: ItemCode.CAPTION_FAILED,
    Behaviour.LOOP: ItemCode.CAPTION_FAILED,
    Behaviour.NOT_A_NUMBER: ItemCode.CAPTION_FAILED,
    Behaviour.OUT_OF_MEMORY: ItemCode.MODEL_OUT_OF_MEMORY,
    Behaviour.SEGFAULT: ItemCode.WORKER_CRASHED,
}


@dataclass
class Account:
    """What became of the images of some jobs."""

    items: int = 0
    lost: int = 0
    double: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass
class FaultyCluster(Cluster):
    """A ``Cluster`` whose workers are lost and found again; reading it waits while the database is away."""

    hosts: list[Host] = field(default_factory=list)
    expected: dict[str, list[str]] = field(default_factory=dict)
    """By job: each item's caption, or the code of its error."""
    sacrificed: Counter[str] = field(default_factory=Counter)
    """Errors that faults caused on purpose in images that nobody could name before."""
    servers: dict[str, threading.Lock] = field(
        default_factory=lambda: {name: threading.Lock() for name in ("redis", "database", "s3")}
    )
    """Held by the fault that has this server."""
    widest: int = SMALLEST_WINDOW
    """Chunks: the widest window there has been."""

    def prepare(self, workers: int) -> None:
        """Store the pictures that all jobs refer to, and start the workers."""
        with self.services.store.database.write() as connection:
            connection.execute(text(WITNESS))
        self.pictures_bucket = self.s3.new_bucket()
        # Into the folder that the server serves: much quicker than a thousand calls.
        folder = Path(self.s3.process.command[-1]) / self.pictures_bucket
        for number in range(JOB_IMAGES):
            (folder / f"{number}-good.png").write_bytes(colour_png(number))
        for number in range(workers):
            # Hosts disagree about the time by twenty minutes: only the database's clock may count.
            wrong_by = CLOCKS_WRONG_BY * (-1) ** number
            self.hosts.append(Host(f"colours-{number}", self.environment, self._links(), wrong_by))
        for host in self.hosts:
            host.start()
        wait_until(self._all_up, 120, "every worker's row")

    def _all_up(self) -> bool:
        for host in self.hosts:
            assert host.process.alive, host.process.output
        return len(self.alive()) == len(self.hosts)

    def _links(self) -> Links:
        return Links(self.redis, self.postgres, self.s3)

    def api(self) -> ApiHost:
        """Make an API server; the caller starts and ends it."""
        return ApiHost(self.environment, self._links())

    def ask(self, question: Callable[[], T]) -> T:
        """Ask the services until they answer: a fault may have the database."""
        deadline = time.monotonic() + 120
        while True:
            try:
                return question()
            except TransientError:
                if time.monotonic() > deadline:
                    raise
            threading.Event().wait(0.3)

    # Jobs

    def submit_pictures(
        self, count: int = JOB_IMAGES, special: dict[int, Behaviour] | None = None, missing: str = ""
    ) -> str:
        """Make a job of references to pictures; ``special`` ones misbehave, one key may be missing."""
        special = special or {}
        client = self.s3.client()
        items, expected = [], []
        for number in range(count):
            key = f"{number}-good.png"
            caption = f"picture {number}"
            if (behaviour := special.get(number)) is not None:
                key, caption = f"{number}-{behaviour.name}.png", ERRORS[behaviour]
                client.put_object(Bucket=self.pictures_bucket, Key=key, Body=colour_png(number, behaviour))
            items.append(NewItem(key, key, f"s3://{self.pictures_bucket}/{key}"))
            expected.append(str(caption))
        if missing:
            code = ItemCode.ACCESS_DENIED if "denied" in missing else ItemCode.OBJECT_NOT_FOUND
            items[-1] = NewItem(missing, missing, f"s3://{self.pictures_bucket}/{missing}")
            expected[-1] = code
        spec = JobSpec(options=CaptionOptions(use_cache=False))
        job = NewJob(new_id("job"), OWNER, "small", "s3", spec)
        self.expected[job.id] = expected
        self.ask(lambda: self._insert(job, items))
        return job.id

    def _insert(self, job: NewJob, items: list[NewItem]) -> None:
        workers = self.services.store.workers
        workers.see(Worker("ruler", "small", "1", "", "cpu", CHUNK / 4))
        with self.services.store.database.read() as connection:
            if connection.execute(select(JobRow.id).where(JobRow.id == job.id)).first():
                return  # The answer to the first try got lost.
        self.services.intake.submit(job, items)
        workers.leave("ruler")

    def active(self) -> dict[str, int]:
        """Return the unfinished images of each running job."""
        query = select(JobRow.id, JobRow.total - JobRow.succeeded - JobRow.failed).where(
            JobRow.status.in_(ACTIVE), JobRow.id.in_(self.expected)
        )
        return dict(self.rows(query))

    def a_job(self) -> str:
        """Return a job in its middle; raise ``Missed`` where none gets there."""

        def find() -> str:
            return next((job for job, left in self.active().items() if 200 < left < JOB_IMAGES), "")

        try:
            return wait_until(find, 60)
        except AssertionError as error:
            raise Missed("no job is in its middle") from error

    def announced(self) -> set[tuple[str, int]]:
        """Return the chunks that are announced or in hand and not done."""
        query = select(ChunkRow.job_id, ChunkRow.number).join(JobRow, JobRow.id == ChunkRow.job_id)
        query = query.where(JobRow.status.in_(ACTIVE), JobRow.id.in_(self.expected))
        query = query.where(ChunkRow.state != "done", ChunkRow.number < JobRow.released)
        return {(job_id, number) for job_id, number in self.rows(query)}

    def too_wide(self) -> list[Any]:
        """Return jobs that have more chunks released than a window ever held.

        A worker that was killed counts as alive for a while beside its successor, the ruler of the chunks'
        size while a job is made, and what was released meanwhile stays.
        """
        width = JobRow.released - JobRow.closed
        jobs = self.rows(select(JobRow.id, width).where(JobRow.status.in_(ACTIVE)))
        alive = self.ask(self.services.store.workers.alive)
        self.widest = max(self.widest, CHUNKS_PER_WORKER * (len(alive) + 1))
        return [row for row in jobs if row[1] > self.widest]

    def chunks(self, *conditions: Any) -> list[Any]:
        """Return the chunks of which all this is true."""
        return self.rows(select(ChunkRow.__table__).where(*conditions))

    def in_hand_of(self, host: Host) -> set[tuple[str, int]]:
        """Return the chunks that a host has in hand."""
        owners = {worker.id for worker in self.workers_of(host)}
        leased = self.chunks(ChunkRow.state == "leased")
        return {(row.job_id, row.number) for row in leased if row.owner in owners}

    def workers_of(self, host: Host) -> list[Worker]:
        """Return the register's rows of a host."""
        return [w for w in self.ask(self.services.store.workers.alive) if w.version == host.name]

    def host_of(self, worker_id: str) -> Host | None:
        """Return the host a worker runs on."""
        names = {worker.id: worker.version for worker in self.ask(self.services.store.workers.alive)}
        return next((host for host in self.hosts if host.name == names.get(worker_id)), None)

    def rows(self, query: Any) -> list[Any]:
        """Return what a query finds."""

        def read() -> list[Any]:
            with self.services.store.database.read() as connection:
                return list(connection.execute(query))

        return self.ask(read)

    # What faults take for themselves

    @contextlib.contextmanager
    def host(self, rng: random.Random) -> Iterator[Host]:
        """Take a host that no other fault has, and that is at work."""
        order = rng.sample(self.hosts, len(self.hosts))
        deadline = time.monotonic() + 240
        while True:
            for host in order:
                if host.busy.acquire(blocking=False):
                    try:
                        yield host
                    finally:
                        host.busy.release()
                    return
            if time.monotonic() > deadline:
                raise Missed("no host is free")
            threading.Event().wait(0.05)

    @contextlib.contextmanager
    def all_hosts(self) -> Iterator[list[Host]]:
        """Take all hosts."""
        with contextlib.ExitStack() as taken:
            for host in self.hosts:
                taken.enter_context(host.busy)
            yield self.hosts

    def wait_at_work(self, host: Host) -> None:
        """Wait until a host has a chunk in hand; raise ``Missed`` where it gets none."""
        try:
            wait_until(lambda: self.in_hand_of(host), 90)
        except AssertionError as error:
            raise Missed(f"{host.name} has nothing in hand") from error

    # The end

    def finish_all(self, timeout: float) -> None:
        """Wait until every job is final."""
        wait_until(lambda: not self.active(), timeout, "the end of every job")

    def account(self, jobs: set[str]) -> Account:
        """Hold the items of some jobs against what is expected of each, and the counters against the rows."""
        found = Account()
        allowed = Counter(self.sacrificed)
        for job_id in jobs:
            self._account_job(job_id, found, allowed)
        return found

    def _account_job(self, job_id: str, found: Account, allowed: Counter[str]) -> None:
        expected = self.expected[job_id]
        items = self.items(job_id)
        found.items += len(expected)
        for item, due in zip(items, expected, strict=False):
            got = item.caption or (item.error.code if item.error else "nothing")
            if item.status not in ("succeeded", "failed"):
                found.lost += 1
            elif got != due and allowed[got]:
                allowed[got] -= 1
            elif got != due:
                found.wrong.append(f"{job_id} {item.position}: {got}, not {due}: {item.error}")
        found.lost += len(expected) - len(items)
        found.double += self._written_twice(job_id)
        found.wrong += self._crooked_counters(job_id)

    def _written_twice(self, job_id: str) -> int:
        twice = text("SELECT position FROM finals WHERE job_id = :job GROUP BY position HAVING count(*) > 1")
        return len(self.rows(twice.bindparams(bindparam("job", job_id))))

    def _crooked_counters(self, job_id: str) -> list[str]:
        [job] = self.rows(select(JobRow.__table__).where(JobRow.id == job_id))
        states = dict(
            self.rows(
                select(ItemRow.status, func.count()).where(ItemRow.job_id == job_id).group_by(ItemRow.status)
            )
        )
        chunks = dict(
            self.rows(
                select(ChunkRow.state, func.count()).where(ChunkRow.job_id == job_id).group_by(ChunkRow.state)
            )
        )
        counted = (job.succeeded, job.failed, {"done": job.closed}, job.chunk_count, job.released)
        rows = (states.get("succeeded", 0), states.get("failed", 0), chunks, *[sum(chunks.values())] * 2)
        return [] if counted == rows else [f"{job_id}: counters {counted}, rows {rows}"]

    def orphans(self) -> set[str]:
        """Return stored objects that no item names, after what dead uploads left has been removed."""
        with self.services.store.database.write() as connection:
            long_ago = func.now() - text("interval '1 day'")
            connection.execute(update(UploadRow).values(heartbeat_at=long_ago))
        # The turn goes to whoever had it for as long as he lives.
        for host in self.hosts:
            host.kill()
        self.services.tidying.stop()
        fresh = build_services(self.services.settings)
        try:
            wait_until(fresh.tidying.run_once, 60, "a turn of the tidying")
        finally:
            fresh.close()
        pages = self.s3.client().get_paginator("list_objects_v2").paginate(Bucket=self.s3.bucket)
        stored = {entry["Key"] for page in pages for entry in page.get("Contents", ())}
        named = {
            key for (key,) in self.rows(select(ItemRow.object_key).where(ItemRow.object_key.is_not(None)))
        }
        return stored ^ named


@contextlib.contextmanager
def faulty_cluster(workers: int = 2, lease_s: float = 3) -> Iterator[FaultyCluster]:
    """Run servers and workers for faults; everything ends with the context."""
    with run_redis() as redis, run_postgres() as postgres, run_s3() as s3, postgres.database() as url:
        s3.bucket = s3.new_bucket()
        settings = {"CAPTIONFLEET_LEASE": f"{lease_s:g}", "CAPTIONFLEET_BATCH_SIZE": "8"}
        with run_cluster(redis, postgres, url, s3, settings) as cluster:
            faulty = FaultyCluster(**vars(cluster))
            try:
                faulty.prepare(workers)
                yield faulty
            finally:
                for host in faulty.hosts:
                    host.process.kill()
