"""``python -m benchmarks.metering``: what counting for Prometheus and naming ids costs a worker an image."""

from __future__ import annotations

import statistics
import time

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

BATCH, CHUNK = 32, 64
CHUNKS, REPEATS = 200, 9


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


def main() -> None:
    """Measure and print medians of processor time."""
    print(describe_machine())
    costs = []
    for _ in range(REPEATS):
        began = time.process_time()
        for _ in range(CHUNKS):
            one_chunk()
        costs.append((time.process_time() - began) / (CHUNKS * CHUNK))
    print(f"counting: {statistics.median(costs) * 1e6:.2f} µs of processor time an image")
    scrapes = []
    for _ in range(REPEATS):
        began = time.process_time()
        Exposition([WORKER], process=True).render()
        scrapes.append(time.process_time() - began)
    print(f"a scrape of a worker: {statistics.median(scrapes) * 1e3:.1f} ms of processor time")


if __name__ == "__main__":
    main()
