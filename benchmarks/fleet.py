"""Simulated GPU workers on real Redis and PostgreSQL: what the fleet costs the two servers that it shares.

``python -m benchmarks.fleet`` runs workers whose captioner is a timer of a GPU's speed; messages, claims,
recordings, look-ups in the caption cache and what it remembers are the product's; no lease needs renewing.
Wall-clock rates hold for this machine; CPU per 1,000 images carries over to others.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

from benchmarks.deployment import OWNER, Deployment, deployment
from benchmarks.figures import Figure, Setting, line
from benchmarks.machine import describe_machine
from jobs.ids import new_id
from jobs.records import JobSpec
from jobs.services import Services, build_services
from jobs.settings import load_settings
from jobs.store.chunks import ChunkResult, Claim, ItemResult
from jobs.store.submit import NewItem, NewJob
from jobs.store.workers import Worker
from tests.processes import Process, wait_until
from worker.celery_app import CeleryConsumer
from worker.recorder import Recorder

MODEL = "small"
IMAGES = 100_000
WORKERS = 2
RATE = 4000.0
CAPTION = "a brown dog runs across a field of green grass"


class Simulated:
    """A worker whose model is a timer: one chunk after the other, at ``rate`` images per second."""

    def __init__(self, services: Services, rate: float) -> None:
        self._store = services.store
        self._rate = rate
        self._gpu = threading.Lock()
        self._hands = threading.Lock()
        self._in_hand = 0
        self._name = new_id("worker")
        self._recorder = Recorder(services.store.chunks, services.queue, lambda: self._in_hand)
        self._store.workers.see(Worker(self._name, MODEL, "simulated-1", "", "gpu", rate))

    def run_chunk(self, job_id: str, number: int) -> bool:
        """Claim, wait as long as a GPU would work, record."""
        claim = self._store.chunks.claim(job_id, number, self._name, 30, 2)
        if claim is None:
            return True
        self._hold(1)
        try:
            captions = _captions(claim)
            # A worker looks before it captions; here nothing is ever found.
            self._store.cache.find([item.cache_key for item in captions if item.cache_key])
            with self._gpu:
                time.sleep(len(claim.items) / self._rate)
            done: Future[bool] = self._recorder.record(ChunkResult(claim, captions))
            done.result()
        finally:
            self._hold(-1)
        return True

    def _hold(self, change: int) -> None:
        with self._hands:
            self._in_hand += change


def _captions(claim: Claim) -> list[ItemResult]:
    results = []
    for item in claim.items:
        digest = hashlib.sha256(f"{claim.job_id}/{item.position}".encode()).hexdigest()
        results.append(
            ItemResult(item.position, ((CAPTION, -0.5),), None, "simulated-1", 500, 375, digest, digest)
        )
    return results


def simulate(rate: float) -> int:
    """Work until a signal, as a worker process does."""
    settings = load_settings()
    services = build_services(settings)
    consumer = CeleryConsumer(settings, MODEL, services.queue, Simulated(services, rate).run_chunk)
    signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
    return consumer.run()


def _worker(rate: float) -> Process:
    process = Process(
        [sys.executable, "-m", "benchmarks.fleet", "--simulate", str(rate)], environment=dict(os.environ)
    )
    process.start()
    return process


def _submit(running: Deployment, images: int) -> str:
    store = running.services.store
    # The job is cut as for GPUs.
    store.workers.see(Worker("ruler", MODEL, "simulated-1", "", "gpu", RATE))
    job = NewJob(new_id("job"), OWNER, MODEL, "manifest", JobSpec())
    running.services.intake.submit(
        job, (NewItem(f"{n}.jpg", f"photo-{n}", f"s3://photos/2024/{n:08d}.jpg") for n in range(images))
    )
    running.services.expander.start()
    wait_until(lambda: store.jobs.get(OWNER, job.id)[0].status != "preparing", 600, "the job's items")
    return job.id


def measure(workers: int, rate: float, images: int) -> Iterator[Figure]:
    """Yield the figures of one job run by simulated workers."""
    with deployment(CAPTIONFLEET_MAX_IMAGES=str(images)) as running:
        job_id = _submit(running, images)
        messages, held = running.broker(MODEL)
        yield Figure(f"broker: messages for a job of {images:,} images", messages)
        yield Figure("broker: bytes held", held / 1e6, "MB", "<= 1")
        store = running.services.store
        fleet = [_worker(rate) for _ in range(workers)]
        try:
            wait_until(lambda: store.jobs.get(OWNER, job_id)[0].counts.succeeded, 120, "the first captions")
            before = store.jobs.get(OWNER, job_id)[0].counts.succeeded
            start = time.perf_counter()
            database, broker = running.postgres_seconds(), running.redis_seconds()
            # Seldom: asking costs the database too.
            while store.jobs.get(OWNER, job_id)[0].status != "completed":
                time.sleep(1)
            seconds = time.perf_counter() - start
        finally:
            for process in fleet:
                process.kill()
        done = images - before
        database = (running.postgres_seconds() - database) / done * 1e6
        broker = (running.redis_seconds() - broker) / done * 1e6
    yield Figure(f"{workers} workers of {rate:,.0f} images/s together", done / seconds, "images/s")
    yield Figure("PostgreSQL CPU per 1,000 images", database, "ms", note=_cores(database))
    yield Figure("Redis CPU per 1,000 images", broker, "ms", note=_cores(broker))


def _cores(milliseconds: float) -> str:
    return f"one core carries {1e6 / milliseconds:,.0f} images/s" if milliseconds else ""


def figures(_: Setting) -> Iterator[Figure]:
    """Yield the figures of a small fleet."""
    return measure(WORKERS, RATE, IMAGES)


def main() -> int:
    """Read the command line and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--rate", type=float, default=RATE, help="images per second of one GPU")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--simulate", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.simulate:
        return simulate(arguments.simulate)
    print(describe_machine())
    for figure in measure(arguments.workers, arguments.rate, arguments.images):
        print(line(figure), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
