"""Small files that ask for much memory or time are answered within limits of both, by a child that lives."""

from __future__ import annotations

from pathlib import Path

from jobs.errors import ItemCode, ItemError
from tests.pictures import jpeg_bytes
from tests.unit.decoding.children import PREPROCESSING, assert_right, linux, only_child
from tests.unit.images.bombs import bombs
from worker.decoding import DecodePool

LIMIT_MB, LIMIT_S = 512, 15
# What is refused, and why; everything else is a picture that can be read.
REFUSED = {
    "PNG text": "too large",
    "PNG international text": "too large",
    "PNG profile": "too large",
    "TIFF that follows itself": "truncated",
    "TIFF strip of 4 GB": "truncated",
    "TIFF of 4 billion strips": "damaged",
}


def peak_mb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) >> 10


@linux
def test_bombs_are_answered_within_the_limits() -> None:
    with DecodePool(1, PREPROCESSING, memory_limit_bytes=LIMIT_MB << 20, time_limit_s=LIMIT_S) as pool:
        pid = only_child(pool)
        for name, data in bombs().items():
            assert len(data) < 5_000_000
            error = pool.decode(data).exception(60)
            assert (error is not None) == (name in REFUSED), (name, error)
            if isinstance(error, ItemError):
                assert error.code == ItemCode.IMAGE_CORRUPT, name
                assert REFUSED[name] in error.message, (name, error)
        assert only_child(pool) == pid, "one of them ended the child"
        assert peak_mb(pid) < LIMIT_MB
        assert_right(pool.decode(jpeg_bytes(1)))
