"""Uploads into a data folder: against a bare application that writes the same files, and memory.

``python -m benchmarks.uploads``. The API runs in this process, without a network; bodies are made while
they are read, so that only what the server keeps counts as memory.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask
from werkzeug.test import create_environ
from werkzeug.wrappers import Request

from api.app import create_app
from benchmarks.deployment import resident_mb
from benchmarks.figures import Figure, Setting, line
from benchmarks.machine import describe_machine
from jobs.services import build_services
from jobs.settings import Settings
from jobs.store.schema import upgrade

FILES = 2000
FILE_BYTES = 60_000
PARALLEL = 8
# Camera photos: 2.1 GB a request.
PARALLEL_FILES, PARALLEL_BYTES = 420, 5_000_000
REPEATS = 3
_BOUNDARY = "b0undary"
_TYPE = f"multipart/form-data; boundary={_BOUNDARY}"
_PHOTO = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 300


class _Stream(io.RawIOBase):
    """A request's body, made block by block."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        # A short answer would be taken for the end.
        while len(self._rest) < size and (block := next(self._blocks, b"")):
            self._rest += block
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def _photo(number: int, size: int) -> Iterator[bytes]:
    """Yield a file block by block: whole ones would count as the server's memory."""
    yield _PHOTO[:32] + number.to_bytes(8, "big")
    left = size - 40
    while left:
        block = _PHOTO[:left]
        left -= len(block)
        yield block


def _multipart(files: int, size: int) -> Iterator[bytes]:
    for number in range(files):
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{number}.jpg"\r\n'
        yield f"{head}Content-Type: image/jpeg\r\n\r\n".encode()
        yield from _photo(number, size)
        yield b"\r\n"
    yield f"--{_BOUNDARY}--\r\n".encode()


@contextmanager
def _api() -> Iterator[Flask]:
    """Serve an embedded system over a new data folder."""
    with tempfile.TemporaryDirectory() as folder:
        services = build_services(Settings(data_dir=Path(folder), max_images=100_000))
        upgrade(services.store.database)
        try:
            yield create_app(services)
        finally:
            services.close()


def _post(app: Flask, files: int, size: int) -> None:
    environ = create_environ("/v1/jobs", method="POST")
    environ |= {"wsgi.input": _Stream(_multipart(files, size)), "HTTP_TRANSFER_ENCODING": "chunked"}
    environ["CONTENT_TYPE"] = _TYPE
    environ.pop("CONTENT_LENGTH", None)
    answer = app.test_client().open(Request(environ))
    assert answer.status_code == 202, answer.text


def _bare(environ: dict[str, Any], folder: Path) -> None:
    """Write, hash and fsync each file of a body that is nothing but files of one size."""
    body = environ["wsgi.input"]
    for number in itertools.count():
        data = body.read(FILE_BYTES)
        if not data:
            return
        hashlib.sha256(data).hexdigest()
        with (folder / str(number)).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _post_bare() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = itertools.chain.from_iterable(_photo(number, FILE_BYTES) for number in range(FILES))
        _bare({"wsgi.input": _Stream(files)}, Path(folder))


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def speed() -> Iterator[Figure]:
    """Compare side by side, in turns: the disk's mood changes."""
    sent = FILES * FILE_BYTES / 1e6
    rates, ratios = [], []
    with _api() as app:
        for _ in range(REPEATS):
            bare, own = _seconds(_post_bare), _seconds(lambda: _post(app, FILES, FILE_BYTES))
            rates.append(sent / own)
            ratios.append(bare / own)
    note = f"{FILES} files of {FILE_BYTES // 1000} kB, each on disk before the answer"
    yield Figure("upload, multipart", statistics.median(rates), "MB/s", note=note)
    yield Figure("upload / bare application", statistics.median(ratios), goal=">= 0.7")


def memory() -> Iterator[Figure]:
    """Watch this process while several large requests are received at once."""
    with _api() as app:
        _post(app, 50, FILE_BYTES)
        base, most = resident_mb(), 0.0
        ended = threading.Event()
        with ThreadPoolExecutor(PARALLEL) as pool:
            posts = [pool.submit(_post, app, PARALLEL_FILES, PARALLEL_BYTES) for _ in range(PARALLEL)]
            while not all(post.done() for post in posts):
                most = max(most, resident_mb() - base)
                ended.wait(0.05)
            for post in posts:
                post.result()
    size = PARALLEL_FILES * PARALLEL_BYTES / 1e9
    note = f"of {size:.1f} GB each"
    yield Figure(f"memory growth, {PARALLEL} parallel uploads", most, "MB", "<= 40", note)


def figures(_: Setting) -> Iterator[Figure]:
    """Measure speed and memory."""
    yield from speed()
    yield from memory()


def main() -> None:
    """Read the command line and report."""
    argparse.ArgumentParser(prog="python -m benchmarks.uploads", description=__doc__).parse_args()
    print(describe_machine())
    for figure in itertools.chain(speed(), memory()):
        print(line(figure), flush=True)


if __name__ == "__main__":
    main()
