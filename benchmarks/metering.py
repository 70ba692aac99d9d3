"""What counting for Prometheus, naming ids and tracing cost an image: ``python -m benchmarks.metering``.

Traces are made without a collector that answers: what is measured is their making, not their sending.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable

from benchmarks.machine import describe_machine
from jobs.logs import working_on
from jobs.meters import Exposition
from jobs.metrics import (
    BATCH_IMAGES,
    BATCH_PLACES,
    CACHE_LOOKUPS,
    CHUNKS_IN_HAND,
    IMAGES,
    STAGE_SECONDS,
    WORKER,
)
from jobs.settings import Settings
from jobs.tracing import Traced, begin, here, start_tracing
from worker.images import IMAGES_TRACED

BATCH, CHUNK = 32, 64
CHUNKS, REPEATS = 200, 9
GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def one_chunk() -> None:
    """Count what a worker counts for one chunk."""
    with working_on(job="job_0", chunk=1):
        CHUNKS_IN_HAND.add(1)
        for _ in range(CHUNK):
            with working_on(job="job_0", chunk=1):
                began = time.monotonic()
                STAGE_SECONDS.add(time.monotonic() - began, "fetch")
                began = time.monotonic()
                STAGE_SECONDS.add(time.monotonic() - began, "decode")
                CACHE_LOOKUPS.add(1, "miss")
        for _ in range(CHUNK // BATCH):
            began = time.monotonic()
            BATCH_IMAGES.observe(BATCH)
            BATCH_PLACES.add(BATCH)
            STAGE_SECONDS.add(time.monotonic() - began, "wait")
            STAGE_SECONDS.add(time.monotonic() - began, "caption")
        IMAGES.add(CHUNK, "succeeded")
        IMAGES.add(0, "failed")
        STAGE_SECONDS.add(0.0, "record")
        CHUNKS_IN_HAND.add(-1)


def one_trace() -> None:
    """Do what tracing asks of a worker for one chunk."""
    began = time.monotonic()
    span = begin("chunk", "consumer", after=GIVEN, began=began, job="job_0", chunk=1, attempt=1, images=CHUNK)
    _part(span, "claim", began)
    with here(span):
        for number in range(CHUNK):
            with here(span):
                own = span if number < IMAGES_TRACED else None
                for name in ("fetch", "decode", "batch", "caption"):
                    _part(own, name, began)
    _part(span, "record", began)
    if span is not None:
        span.end()


def _part(span: Traced | None, name: str, began: float) -> None:
    if span is not None:
        span.add(name, began, began, position=1)


def _cost(work: Callable[[], None]) -> float:
    """Median of a piece of work's processor time, in µs an image."""
    costs = []
    for _ in range(REPEATS):
        began = time.process_time()
        for _ in range(CHUNKS):
            work()
        costs.append((time.process_time() - began) / (CHUNKS * CHUNK))
    return statistics.median(costs) * 1e6


def main() -> None:
    """Measure and print medians of processor time."""
    print(describe_machine())
    logging.disable()
    print(f"counting: {_cost(one_chunk):.2f} µs of processor time an image")
    print(f"tracing, off: {_cost(one_trace):.2f} µs of processor time an image")
    start_tracing(Settings(otlp_endpoint="http://127.0.0.1:1"), "metering")
    print(f"tracing, on: {_cost(one_trace):.2f} µs of processor time an image, in chunks of {CHUNK}")
    scrapes = []
    for _ in range(REPEATS):
        began = time.process_time()
        Exposition([WORKER], process=True).render()
        scrapes.append(time.process_time() - began)
    print(f"a scrape of a worker: {statistics.median(scrapes) * 1e3:.1f} ms of processor time")


if __name__ == "__main__":
    main()
