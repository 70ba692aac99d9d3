"""Making, reading and downloading a very large job: ``python -m benchmarks.store`` takes a million items.

The API runs in this process over real servers; a manifest is made while it is read, so that memory shows.
"""

from __future__ import annotations

import argparse
import gc
import io
import itertools
import statistics
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask
from sqlalchemy import text
from werkzeug.test import create_environ
from werkzeug.wrappers import Request

from api.app import create_app
from benchmarks.deployment import OWNER, Deployment, deployment, resident_mb
from benchmarks.figures import Figure, Setting, line
from benchmarks.machine import describe_machine

MODEL = "small"
ITEMS = 1_000_000
SMALL = 1000
READS = 200
_DONE = """
    update items set status = 'succeeded', caption = 'a brown dog runs across a field of green grass',
        score = -0.51, alternatives = '[]', model = 'small-1', width = 500, height = 375, attempts = 1,
        sha256 = md5(name) || md5(name), finished_at = now() where job_id = :job
"""


class _Lines(io.RawIOBase):
    """A body of ``count`` manifest lines, made while it is read."""

    def __init__(self, count: int) -> None:
        self._lines = (
            b'{"s3_uri":"s3://photos/2024/%08d.jpg","custom_id":"photo-%d"}\n' % (n, n) for n in range(count)
        )
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (more := b"".join(itertools.islice(self._lines, 4096))):
            self._rest += more
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


class _Peak:
    """The most memory this process has in use inside the context, over the beginning, in MB."""

    def __init__(self) -> None:
        self.growth = 0.0
        self._end = threading.Event()

    def __enter__(self) -> _Peak:
        self._base = resident_mb()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.05):
            self.growth = max(self.growth, resident_mb() - self._base)


class _Client:
    """Calls the application as its owner, without a network."""

    def __init__(self, app: Flask, key: str) -> None:
        self._http = app.test_client()
        self._headers = {"Authorization": f"Bearer {key}"}

    def post(self, path: str, body: Any, content_type: str) -> Any:
        environ = create_environ(path, method="POST", content_type=content_type, headers=self._headers)
        environ |= {"wsgi.input": body, "HTTP_TRANSFER_ENCODING": "chunked"}
        environ.pop("CONTENT_LENGTH", None)
        answer = self._http.open(Request(environ))
        assert answer.status_code == 202, answer.text
        return answer.json

    def get(self, path: str) -> Any:
        return self._http.get(path, headers=self._headers)


@contextmanager
def api(running: Deployment) -> Iterator[_Client]:
    """Serve the API of a deployment to one owner who may read s3://photos."""
    _, key = running.services.store.keys.create(OWNER)
    running.services.store.keys.grant(OWNER, "s3://photos/")
    running.services.expander.start()
    client = _Client(create_app(running.services), key)
    # As the server does.
    gc.collect()
    gc.freeze()
    yield client


def creation(running: Deployment, client: _Client, items: int) -> Generator[Figure, None, str]:
    """Make a job from a manifest; return its id."""
    database, own, start = running.postgres_seconds(), time.process_time(), time.perf_counter()
    with _Peak() as peak:
        job = client.post("/v1/jobs", _Lines(items), "application/x-ndjson")
        accepted = time.perf_counter() - start
        store = running.services.store.jobs
        while store.get(OWNER, job["id"])[0].status == "preparing":
            time.sleep(0.25)
        seconds = time.perf_counter() - start
    cpu = (time.process_time() - own) / items * 1e6
    database = (running.postgres_seconds() - database) / items * 1e6
    note = f"CPU per item: API {cpu:.1f} µs, PostgreSQL {database:.1f} µs"
    name = "job creation from NDJSON into PostgreSQL"
    yield Figure(name, items / seconds, "items/s", ">= 60000", note)
    yield Figure("job creation: lines read before 202", items / accepted, "items/s")
    yield Figure("job creation: memory growth", peak.growth, "MB", "<= 60")
    messages, held = running.broker(MODEL)
    note = f"{messages} messages for a job of {items:,} images"
    yield Figure("broker: bytes held", held / 1e6, "MB", "<= 1", note)
    return str(job["id"])


def status(client: _Client, large: str, small: str) -> Iterator[Figure]:
    """Read the status of a large and of a small job in turn, and what asks neither database nor broker."""
    paths = {"large": f"/v1/jobs/{large}", "small": f"/v1/jobs/{small}", "none": "/healthz"}
    took: dict[str, list[tuple[float, ...]]] = {name: [] for name in paths}
    for _, (name, path) in itertools.product(range(READS), paths.items()):
        start = time.perf_counter(), time.process_time()
        assert client.get(path).status_code == 200
        end = time.perf_counter(), time.process_time()
        took[name].append(tuple((then - now) * 1000 for now, then in zip(start, end, strict=True)))
    wall, own = ({name: statistics.median(t[i] for t in took[name]) for name in paths} for i in (0, 1))
    note = f"{own['large']:.2f} ms of the API's processor time; /healthz {wall['none']:.2f} ms"
    yield Figure("status of the job, server time, median", wall["large"], "ms", "<= 5", note)
    name = f"status of the job ÷ of a job of {SMALL:,} images"
    note = f"by processor time {own['large'] / own['small']:.2f}"
    yield Figure(name, wall["large"] / wall["small"], goal="<= 1.2", note=note)


def download(running: Deployment, client: _Client, job_id: str, items: int) -> Iterator[Figure]:
    """Download all results as they are streamed."""
    for kind in ("jsonl", "csv", "parquet", "txt.zip"):
        database, own, start = running.postgres_seconds(), time.process_time(), time.perf_counter()
        size = 0
        with _Peak() as peak:
            for block in client.get(f"/v1/jobs/{job_id}/results?format={kind}").response:
                size += len(block)
        seconds = time.perf_counter() - start
        cpu = (time.process_time() - own) / items * 1e6
        database = (running.postgres_seconds() - database) / items * 1e6
        note = f"{size / 1e6:.0f} MB; CPU per item: API {cpu:.1f} µs, PostgreSQL {database:.1f} µs"
        yield Figure(f"results download, {kind}", items / seconds, "items/s", ">= 50000", note)
        yield Figure(f"results download, {kind}: memory growth", peak.growth, "MB", "<= 60")


def listing(client: _Client, job_id: str) -> Iterator[Figure]:
    """Read first pages of items: searched with and without a hit, and by score."""
    for query in ("limit=50", "q=grass", "q=elephant", "sort=score", "sort=score&q=elephant"):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            assert client.get(f"/v1/jobs/{job_id}/items?{query}").status_code == 200
            times.append((time.perf_counter() - start) * 1000)
        yield Figure(f"a page of items, {query}, median", statistics.median(times), "ms")


def finish(running: Deployment, job_id: str) -> None:
    """Write captions into all items as a fleet would have, without its time."""
    with running.services.store.database.write() as connection:
        connection.execute(text(_DONE), {"job": job_id})
        connection.execute(
            text(
                "update jobs set status = 'completed', succeeded = total, finished_at = now() where id = :job"
            ),
            {"job": job_id},
        )
    # A fleet takes hours, in which PostgreSQL clears away behind it; here a million dead rows come at once.
    with running.services.store.database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("vacuum analyze items"))


def measure(items: int) -> Iterator[Figure]:
    """Yield all figures for a job of ``items`` items."""
    with deployment(CAPTIONFLEET_MAX_IMAGES="2000000") as running, api(running) as client:
        small = client.post("/v1/jobs", _Lines(SMALL), "application/x-ndjson")["id"]
        job_id = yield from creation(running, client, items)
        yield from status(client, job_id, small)
        finish(running, job_id)
        yield from listing(client, job_id)
        yield from download(running, client, job_id, items)


def figures(_: Setting) -> Iterator[Figure]:
    """Yield the figures for a million items."""
    return measure(ITEMS)


def main() -> None:
    """Read the command line and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__)
    parser.add_argument("--items", type=int, default=ITEMS)
    arguments = parser.parse_args()
    print(describe_machine())
    for figure in measure(arguments.items):
        print(line(figure), flush=True)


if __name__ == "__main__":
    main()
