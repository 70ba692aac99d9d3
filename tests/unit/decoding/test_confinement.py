"""What confines a decoding child: time, memory, no credentials, and its parent's life."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.errors import ItemCode
from model.images import read_image
from tests.pictures import encode, jpeg_bytes
from tests.processes import children, ended, wait_until
from tests.unit.decoding import exploit
from tests.unit.decoding.children import (
    PIXELS,
    PREPROCESSING,
    assert_right,
    code_of,
    cpu_seconds,
    exactly,
    linux,
    only_child,
    slow_image,
)
from tests.unit.images.samples import many
from worker.decoding import DecodePool


@linux
def test_signals_for_the_parent_do_not_end_children(pool: DecodePool) -> None:
    pid = only_child(pool)
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    assert os.getsid(pid) != os.getsid(0)
    assert only_child(pool) == pid


@linux
def test_an_image_over_the_time_limit_is_ended_and_named() -> None:
    with DecodePool(1, PREPROCESSING, time_limit_s=1) as pool:
        pid = only_child(pool)
        future = pool.decode(slow_image())
        assert code_of(future) == ItemCode.TIMEOUT
        assert "1 s" in str(future.exception())
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
        wait_until(lambda: all(ended(pid) for pid in orphans), 10, "the children's end")


@pytest.fixture
def taken_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[DecodePool]:
    """A pool whose real, confined children run an attacker's code where a decoder should be."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(exploit.__file__)} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with DecodePool(1, PREPROCESSING) as pool:
        yield pool


@linux
def test_an_attacker_in_a_decoder_reaches_neither_files_nor_network_nor_processes(
    taken_over: DecodePool, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.write_text("untouched")
    error = taken_over.decode(f"attack {tmp_path}".encode()).exception(30)
    assert str(error) == f"of {len(exploit.attacks('')) + 1}: "
    assert there.read_text() == "untouched"
    assert_right(taken_over.decode(jpeg_bytes(1)))


def test_every_format_is_decoded_within_the_restrictions_as_without(pool: DecodePool) -> None:
    for name, data in many().items():
        there, here = pool.decode(data).result(30), read_image(data, PREPROCESSING)
        assert np.array_equal(there.pixels, here.pixels), name


@linux
def test_a_decoder_can_still_end_itself(taken_over: DecodePool) -> None:
    assert "SIGABRT" in str(taken_over.decode(b"abort").exception(30))


@linux
def test_a_decoder_that_says_what_cannot_be_costs_its_image_and_is_ended(taken_over: DecodePool) -> None:
    for lie in exploit.LIES:
        liar = exactly(1)
        assert code_of(taken_over.decode(lie)) == ItemCode.IMAGE_CORRUPT, lie
        assert not liar & children()
    assert_right(taken_over.decode(jpeg_bytes(1)))


@linux
def test_what_a_decoder_says_is_short_and_printable(taken_over: DecodePool) -> None:
    said = str(taken_over.decode(b"words").exception(30))
    assert said.startswith("a\N{REPLACEMENT CHARACTER}b")
    assert said.isprintable()
    assert len(said) < 256


@linux
def test_the_same_attacks_work_outside(tmp_path: Path) -> None:
    """Otherwise the refusals above would prove nothing."""
    (tmp_path / "there").write_text("x")
    named = ("tcp socket", "open for reading", "open for writing", "spawn", "memory file", "new code", "list")
    for name in named:
        if (opened := exploit.attacks(str(tmp_path))[name]()) and hasattr(opened, "close"):
            opened.close()
        elif isinstance(opened, int):
            os.close(opened)


@linux
def test_where_system_calls_cannot_be_restricted_children_work_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(exploit.__file__)} --unknown-machine "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with DecodePool(2, PREPROCESSING) as pool:
        for future in [pool.decode(jpeg_bytes(1)) for _ in range(6)]:
            assert_right(future)
    assert caplog.text.count("cannot restrict the system calls") == 1
