"""Finding decoding children, and an image that keeps one busy."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import Future
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import ItemError
from model.captioner import Preprocessing
from model.images import DecodedImage, read_image
from tests.pictures import jpeg_bytes
from tests.processes import children, wait_until
from worker.decoding import DecodePool

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

PREPROCESSING = Preprocessing(width=40, height=30)
PIXELS = read_image(jpeg_bytes(1), PREPROCESSING).pixels


@cache
def slow_image(side: int = 9_500) -> bytes:
    """A small file that keeps a decoder busy for seconds: a 16-bit RGBA PNG of up to 90 million pixels."""
    rows = 100
    block = bytes(rows * (1 + 8 * side))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 1
    for _ in range(side // rows):
        checksum = zlib.adler32(block, checksum)
    # After a full flush the same compressed block may follow again.
    body = b"\x78\x9c" + packed * (side // rows) + b"\x03\x00" + struct.pack(">I", checksum)
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def gone(pid: int) -> None:
    """Wait until a child of this process has ended for its parent, too, and leave it for that to notice."""
    end = os.WEXITED | os.WNOHANG | os.WNOWAIT
    wait_until(lambda: os.waitid(os.P_PID, pid, end) is not None, what=f"the end of {pid}")


def exactly(count: int, parent: int | None = None) -> set[int]:
    """The decoding children once there are ``count`` of them."""

    def found() -> set[int]:
        pids = children(parent)
        return pids if len(pids) == count else set()

    return wait_until(found, what=f"{count} children")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def only_child(pool: DecodePool) -> int:
    """The one child of a pool of one, once it can decode."""
    pool.decode(jpeg_bytes(1)).result(30)
    (pid,) = exactly(1)
    return pid


def start_slow(pool: DecodePool, pid: int, side: int = 9_500) -> Future[DecodedImage]:
    """Hand over the slow image and wait until the child is deep in it."""
    before = cpu_seconds(pid)
    future = pool.decode(slow_image(side))
    wait_until(lambda: cpu_seconds(pid) - before > 0.1, what="decoding")
    return future


@contextlib.contextmanager
def frozen(pool: DecodePool) -> Iterator[Future[DecodedImage]]:
    """Hold the child of a pool of one, with an image in its hands, until the end of the block."""
    pid = only_child(pool)
    os.kill(pid, signal.SIGSTOP)
    try:
        future = pool.decode(jpeg_bytes(1))
        wait_until(future.running)
        yield future
    finally:
        os.kill(pid, signal.SIGCONT)


def code_of(future: Future[DecodedImage]) -> str:
    error = future.exception(60)
    assert isinstance(error, ItemError), error
    return error.code


def assert_right(future: Future[DecodedImage]) -> None:
    assert np.array_equal(future.result(60).pixels, PIXELS)
