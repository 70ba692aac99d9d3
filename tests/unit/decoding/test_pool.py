"""The decode pool with real children: what it returns, real crashes, children that cannot start."""

from __future__ import annotations

import gc
import io
import logging
import os
import resource
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.errors import ItemCode, ItemError
from model.captioner import Preprocessing
from model.images import read_image
from tests.pictures import encode, jpeg_bytes, picture
from tests.processes import children, wait_until
from tests.unit.decoding.children import (
    PREPROCESSING,
    assert_right,
    code_of,
    cpu_seconds,
    exactly,
    frozen,
    gone,
    linux,
    only_child,
    slow_image,
    start_slow,
)
from worker.decoding import DecodePool, DecoderUnavailable


def test_pixels_and_size_arrive_as_decoded_here(pool: DecodePool) -> None:
    for data in (jpeg_bytes(3, (640, 401)), encode(picture(4), "PNG"), memoryview(jpeg_bytes(5))):
        there, here = pool.decode(data).result(30), read_image(data, PREPROCESSING)
        assert np.array_equal(there.pixels, here.pixels)
        assert (there.width, there.height) == (here.width, here.height)


def test_a_child_crops_where_the_network_wants_that() -> None:
    cropping = Preprocessing(20, 40, "bilinear", "crop")
    with DecodePool(1, cropping) as pool:
        there = pool.decode(jpeg_bytes(3, (640, 401))).result(30)
    assert np.array_equal(there.pixels, read_image(jpeg_bytes(3, (640, 401)), cropping).pixels)
    squashed = read_image(jpeg_bytes(3, (640, 401)), Preprocessing(20, 40, "bilinear"))
    assert not np.array_equal(there.pixels, squashed.pixels)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", ItemCode.UNSUPPORTED_FORMAT),
        (b"%PDF-1.7", ItemCode.UNSUPPORTED_FORMAT),
        (jpeg_bytes(1)[:-200], ItemCode.IMAGE_CORRUPT),
        (slow_image(), ItemCode.IMAGE_TOO_LARGE),
        (jpeg_bytes(1, (400, 300)), ItemCode.IMAGE_TOO_LARGE),
    ],
)
def test_bad_images_get_their_code_and_the_next_is_decoded(data: bytes, code: ItemCode) -> None:
    with DecodePool(1, PREPROCESSING, max_pixels=100_000) as pool:
        error = pool.decode(data).exception(30)
        assert isinstance(error, ItemError)
        assert error.code == code
        assert error.message
        assert "Traceback" not in error.message
        assert_right(pool.decode(jpeg_bytes(1)))


def test_many_threads_get_their_own_images_back_among_bad_ones() -> None:
    files = [jpeg_bytes(seed) for seed in range(40)]
    expected = [read_image(data, PREPROCESSING).pixels for data in files]

    def check(number: int) -> bool:
        if number % 7 == 0:
            return code_of(decoder.decode(files[number % 40][:300])) == ItemCode.IMAGE_CORRUPT
        return np.array_equal(decoder.decode(files[number % 40]).result(60).pixels, expected[number % 40])

    with DecodePool(3, PREPROCESSING) as decoder, ThreadPoolExecutor(16) as threads:
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
        gone(pid)
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


@linux
def test_a_lack_of_file_descriptors_blames_no_image_and_passes() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with DecodePool(1, PREPROCESSING) as pool:
        pid = only_child(pool)
        # The limit bounds the numbers of descriptors, so none may be free below it.
        gc.collect()
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            os.kill(pid, signal.SIGKILL)
            assert isinstance(pool.decode(jpeg_bytes(1)).exception(30), DecoderUnavailable)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        wait_until(lambda: not pool.decode(jpeg_bytes(1)).exception(30), what="the pool's recovery")


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
