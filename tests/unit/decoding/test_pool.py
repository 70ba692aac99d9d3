"""The decode pool with real children: real crashes, real limits, nothing left behind."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.errors import ItemCode, ItemError
from model.captioner import Preprocessing
from model.images import DecodedImage, read_image
from tests.pictures import encode, jpeg_bytes, picture
from tests.processes import wait_until
from worker.decoding import DecodePool, DecoderUnavailable

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


def children(parent: int | None = None) -> set[int]:
    """Process ids of the decoding children of a process."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            above = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            ours = b"worker.decode_child" in (folder / "cmdline").read_bytes()
            if ours and int(above) == (parent or os.getpid()):
                found.add(int(folder.name))
    return found


def exactly(count: int, parent: int | None = None) -> set[int]:
    """The decoding children once there are ``count`` of them."""
    return wait_until(lambda: len(found := children(parent)) == count and found, what=f"{count} children")


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


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    with DecodePool(1, PREPROCESSING) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    shared_memory, descriptors = Path("/dev/shm"), Path("/proc/self/fd")
    if not descriptors.exists():
        yield
        return
    before = {path.name for path in shared_memory.iterdir()}, len(list(descriptors.iterdir()))
    yield
    assert not children()
    assert {path.name for path in shared_memory.iterdir()} <= before[0]
    assert len(list(descriptors.iterdir())) <= before[1]


def test_pixels_and_size_arrive_as_decoded_here(pool: DecodePool) -> None:
    for data in (jpeg_bytes(3, (640, 401)), encode(picture(4), "PNG"), memoryview(jpeg_bytes(5))):
        there, here = pool.decode(data).result(30), read_image(data, PREPROCESSING)
        assert np.array_equal(there.pixels, here.pixels)
        assert (there.width, there.height) == (here.width, here.height)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", ItemCode.UNSUPPORTED_FORMAT),
        (b"%PDF-1.7", ItemCode.UNSUPPORTED_FORMAT),
        (jpeg_bytes(1)[:-200], ItemCode.IMAGE_CORRUPT),
        (
            b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 50_000, 50_000, 8, 2, 0, 0, 0, 0),
            None,
        ),
        (jpeg_bytes(1, (400, 300)), ItemCode.IMAGE_TOO_LARGE),
    ],
)
def test_bad_images_get_their_code_and_the_next_is_decoded(data: bytes, code: ItemCode | None) -> None:
    with DecodePool(1, PREPROCESSING, max_pixels=100_000) as pool:
        error = pool.decode(data).exception(30)
        assert isinstance(error, ItemError)
        assert error.code == (code or ItemCode.IMAGE_CORRUPT)
        assert error.message
        assert "Traceback" not in error.message
        assert_right(pool.decode(jpeg_bytes(1)))


def test_many_threads_get_their_own_images_back_among_bad_ones() -> None:
    files = [jpeg_bytes(seed) for seed in range(40)]
    expected = [read_image(data, PREPROCESSING).pixels for data in files]

    def check(number: int) -> bool:
        if number % 7 == 0:
            return code_of(pool.decode(files[number % 40][:300])) == ItemCode.IMAGE_CORRUPT
        return np.array_equal(pool.decode(files[number % 40]).result(60).pixels, expected[number % 40])

    with DecodePool(3, PREPROCESSING) as pool, ThreadPoolExecutor(16) as threads:
        assert all(threads.map(check, range(400)))


@linux
@pytest.mark.parametrize("crash", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_costs_the_one_image_that_was_being_decoded(crash: signal.Signals) -> None:
    with DecodePool(2, PREPROCESSING) as pool:
        before = [pool.decode(jpeg_bytes(1)) for _ in range(6)]
        wait(before, 60)
        clocks = {pid: cpu_seconds(pid) for pid in exactly(2)}
        doomed = pool.decode(slow_image())
        along = [pool.decode(jpeg_bytes(1)) for _ in range(6)]
        wait(along, 60)
        busy = wait_until(lambda: [pid for pid, start in clocks.items() if cpu_seconds(pid) - start > 0.3])
        os.kill(busy[0], crash)
        assert code_of(doomed) == ItemCode.IMAGE_CORRUPT
        assert crash.name in str(doomed.exception())
        for future in (*before, *along, *(pool.decode(jpeg_bytes(1)) for _ in range(6))):
            assert_right(future)
        exactly(2)


@linux
def test_an_image_is_tried_again_once_after_a_kill_from_outside(pool: DecodePool) -> None:
    pid = only_child(pool)
    future = start_slow(pool, pid, side=4_000)
    os.kill(pid, signal.SIGKILL)
    (second,) = wait_until(lambda: children() - {pid})
    assert future.result(60).width == 4_000
    future = start_slow(pool, second)
    os.kill(second, signal.SIGKILL)
    (third,) = wait_until(lambda: children() - {second})
    # A child's complaints go nowhere from the moment it is ready.
    wait_until(lambda: str(Path(f"/proc/{third}/fd/2").readlink()) == os.devnull)
    started = cpu_seconds(third)
    wait_until(lambda: cpu_seconds(third) - started > 0.1, what="decoding again")
    os.kill(third, signal.SIGKILL)
    assert code_of(future) == ItemCode.IMAGE_TOO_LARGE
    assert_right(pool.decode(jpeg_bytes(1)))


@linux
def test_a_child_that_dies_idle_costs_no_image(pool: DecodePool) -> None:
    for death in (signal.SIGKILL, signal.SIGSEGV):
        pid = only_child(pool)
        os.kill(pid, death)
        wait_until(lambda pid=pid: pid not in children())
        assert_right(pool.decode(jpeg_bytes(1)))


@linux
def test_children_are_replaced_before_leaks_of_their_libraries_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.decoding._IMAGES_PER_CHILD", 3)
    with DecodePool(1, PREPROCESSING) as pool:
        first = only_child(pool)
        for future in [pool.decode(jpeg_bytes(1)) for _ in range(7)]:
            assert_right(future)
        assert only_child(pool) != first


@linux
def test_signals_for_the_parent_do_not_end_children(pool: DecodePool) -> None:
    pid = only_child(pool)
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    assert os.getsid(pid) != os.getsid(0)
    assert only_child(pool) == pid


@linux
def test_an_image_over_the_time_limit_is_ended_and_named() -> None:
    with DecodePool(1, PREPROCESSING, time_limit_s=0.5) as pool:
        pid = only_child(pool)
        future = pool.decode(slow_image())
        assert code_of(future) == ItemCode.TIMEOUT
        assert "0.5 s" in str(future.exception())
        assert pid not in children()
        assert_right(pool.decode(jpeg_bytes(1)))


@linux
def test_a_frozen_child_is_ended_like_a_slow_one() -> None:
    with DecodePool(1, PREPROCESSING, time_limit_s=1) as pool:
        os.kill(only_child(pool), signal.SIGSTOP)
        assert code_of(pool.decode(jpeg_bytes(1))) == ItemCode.TIMEOUT
        assert_right(pool.decode(jpeg_bytes(1)))


@linux
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
def test_an_image_over_the_memory_limit_is_too_large(kind: str) -> None:
    large = encode(
        Image.new("RGB", (3_000, 3_000)), kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {})
    )
    with DecodePool(1, PREPROCESSING, memory_limit_bytes=24 << 20) as pool:
        pid = only_child(pool)
        assert code_of(pool.decode(large)) == ItemCode.IMAGE_TOO_LARGE
        assert only_child(pool) == pid
    with DecodePool(1, PREPROCESSING, memory_limit_bytes=1 << 30) as pool:
        assert pool.decode(large).result(60).width == 3_000


@linux
def test_children_know_no_credentials_and_hold_no_foreign_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "swordfish")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:swordfish@db/x")
    secret = tmp_path / "secret"
    secret.write_text("swordfish")
    with secret.open() as file, DecodePool(1, PREPROCESSING) as pool:
        os.set_inheritable(file.fileno(), True)
        only_child(pool)
        os.kill(only_child(pool), signal.SIGKILL)
        folder = Path(f"/proc/{only_child(pool)}")
        names = {
            line.split(b"=")[0].decode() for line in (folder / "environ").read_bytes().split(b"\0") if line
        }
        assert names <= {"PYTHONPATH", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX", "LC_CTYPE"}
        assert b"swordfish" not in (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
        held = {str(descriptor.readlink()) for descriptor in (folder / "fd").iterdir()}
        assert all(name.startswith(("/dev/null", "socket:", "/memfd:captionfleet")) for name in held), held


@linux
def test_children_are_limited_by_the_kernel(pool: DecodePool) -> None:
    folder = Path(f"/proc/{only_child(pool)}")
    lines = {
        line[:26].strip(): line[26:].split()[:2] for line in (folder / "limits").read_text().splitlines()
    }
    assert lines["Max core file size"] == ["0", "0"]
    assert lines["Max file size"] == [str(PIXELS.nbytes)] * 2
    assert int(lines["Max address space"][1]) < 3 << 30
    assert "NoNewPrivs:\t1" in (folder / "status").read_text()


PARENT = """
import sys
from model.captioner import Preprocessing
from worker.decoding import DecodePool
pool = DecodePool(2, Preprocessing(40, 30))
for number in range(8):
    pool.decode(sys.stdin.buffer.read(int(sys.argv[1]))).result()
print("ready", flush=True)
pool.decode(sys.stdin.buffer.read()).result()
"""


@linux
@pytest.mark.parametrize("busy", [True, False])
def test_children_die_with_a_killed_parent(busy: bool) -> None:
    small = jpeg_bytes(1)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(len(small))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(small * 8)
        parent.stdin.flush()
        assert parent.stdout.readline() == b"ready\n"
        orphans = exactly(2, parent.pid)
        clocks = {pid: cpu_seconds(pid) for pid in orphans}
        if busy:
            parent.stdin.write(slow_image())
            parent.stdin.close()
            wait_until(lambda: any(cpu_seconds(pid) - start > 0.3 for pid, start in clocks.items()))
        parent.kill()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans), timeout=3)


@linux
def test_closing_ends_work_in_progress_and_frees_whoever_waits(pool: DecodePool) -> None:
    running = start_slow(pool, only_child(pool))
    waiting = [pool.decode(jpeg_bytes(1)) for _ in range(2)]
    blocked: list[BaseException | None] = []

    def submit() -> None:
        with pytest.raises(DecoderUnavailable) as caught:
            pool.decode(jpeg_bytes(1))
        blocked.append(caught.value)

    thread = threading.Thread(target=submit)
    thread.start()
    pool.close()
    thread.join(10)
    assert blocked
    for future in (running, *waiting):
        assert isinstance(future.exception(10), DecoderUnavailable)


@linux
def test_submission_blocks_while_enough_images_wait(pool: DecodePool) -> None:
    with ThreadPoolExecutor(1) as threads:
        with frozen(pool) as running:
            waiting = [pool.decode(jpeg_bytes(1)) for _ in range(2)]
            submission = threads.submit(pool.decode, jpeg_bytes(1))
            with pytest.raises(TimeoutError):
                submission.result(0.3)
        for future in (running, *waiting, submission.result(30)):
            assert_right(future)


@linux
def test_a_canceled_image_is_skipped(pool: DecodePool) -> None:
    with frozen(pool) as running:
        canceled, kept = pool.decode(jpeg_bytes(2)), pool.decode(jpeg_bytes(1))
        assert canceled.cancel()
    assert_right(running)
    assert_right(kept)


def interpreter(folder: Path) -> tuple[Path, Path]:
    """A Python that fails to start while a flag file exists."""
    flag, script = folder / "broken", folder / "python"
    script.write_text(
        f'#!/bin/sh\n[ -e {flag} ] && echo "no libjpeg here" >&2 && exit 3\nexec {sys.executable} "$@"\n'
    )
    script.chmod(0o755)
    return flag, script


def test_children_that_cannot_start_blame_no_image_and_come_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flag, script = interpreter(tmp_path)
    flag.touch()
    monkeypatch.setattr(sys, "executable", str(script))
    with caplog.at_level(logging.ERROR), DecodePool(2, PREPROCESSING) as pool:
        for _ in range(10):
            error = pool.decode(jpeg_bytes(1)).exception(30)
            assert isinstance(error, DecoderUnavailable)
            assert "exit status 3: no libjpeg here" in str(error)
        assert "no libjpeg here" in caplog.text
        assert len(caplog.records) <= 8, "it must not try without a pause"
        flag.unlink()
        wait_until(lambda: not pool.decode(jpeg_bytes(1)).exception(30), what="the pool's recovery")
        assert_right(pool.decode(jpeg_bytes(1)))


def test_an_interpreter_that_is_gone_blames_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with DecodePool(1, PREPROCESSING) as pool:
        assert isinstance(pool.decode(jpeg_bytes(1)).exception(30), DecoderUnavailable)


def test_an_unusable_preprocessing_is_a_broken_decoder_not_a_broken_image() -> None:
    with DecodePool(1, Preprocessing(8, 8, "sharpest")) as pool:
        error = pool.decode(jpeg_bytes(1)).exception(30)
        assert isinstance(error, DecoderUnavailable)
        assert "SHARPEST" in str(error)


def test_large_files_pass_and_do_not_stay_in_memory(pool: DecodePool) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (2_000, 2_500, 3), np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, "BMP")
    assert len(buffer.getvalue()) > 14 << 20
    assert pool.decode(buffer.getvalue()).result(60).width == 2_500
    assert_right(pool.decode(jpeg_bytes(1)))
