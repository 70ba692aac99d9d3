"""What decoding costs: by size of the photo, scaled or in full, confined, and with its filter or not."""

from __future__ import annotations

import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from benchmarks.bare import BATCH, bare
from benchmarks.figures import Figure, Setting
from benchmarks.photos import SAMPLES
from benchmarks.worker import processor_seconds
from model.captioner import Pixels, Preprocessing
from model.images import read_image
from worker.decoding import DecodePool

PREPROCESSING = Preprocessing(224, 224)
SIZES = ((1024, 768), (2016, 1512), (4032, 3024))
PHOTOS = 8
ROUNDS = 5
RESTRICTION_ROUNDS = 15


def photos(size: tuple[int, int]) -> list[bytes]:
    """Sample photos enlarged, with a camera's noise, as JPEG."""
    noise = np.random.default_rng(0)
    found = []
    for path in sorted(SAMPLES.glob("*.jpg"))[:PHOTOS]:
        picture = Image.open(path).convert("RGB").resize(size, Image.Resampling.LANCZOS)
        pixels = np.asarray(picture) + noise.normal(0, 6, (size[1], size[0], 3))
        file = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def in_full(data: bytes) -> Pixels:
    """Decode every pixel, then shrink: what the quick way is held against."""
    size = (PREPROCESSING.width, PREPROCESSING.height)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize(size, Image.Resampling.BICUBIC))


def _psnr(first: Pixels, second: Pixels) -> float:
    error = float(np.mean((first.astype(np.float64) - second) ** 2))
    return 10 * float(np.log10(255**2 / error))


def _ms(clock: Callable[[], float], work: Callable[[bytes], object], files: list[bytes]) -> float:
    began = clock()
    for data in files:
        work(data)
    return (clock() - began) / len(files) * 1000


def _sizes() -> Iterator[Figure]:
    for width, height in SIZES:
        files = photos((width, height))
        quick = statistics.median(
            _ms(time.process_time, lambda data: read_image(data, PREPROCESSING), files) for _ in range(3)
        )
        full = _ms(time.process_time, in_full, files)
        loss = [_psnr(read_image(data, PREPROCESSING).pixels, in_full(data)) for data in files]
        name = f"JPEG decoding, {width} x {height}"
        note = f"in full {full:.1f}; PSNR {statistics.median(loss):.0f} dB"
        yield Figure(name, quick, "ms/image", note=note)


def _isolation(setting: Setting) -> Iterator[Figure]:
    """Compare processor time, both processes' together, turn by turn: other work hits both alike."""
    files = [path.read_bytes() for path in setting.files(32)]
    spent: list[tuple[float, float]] = []
    with DecodePool(1, PREPROCESSING) as pool:
        pool.decode(files[0]).result()
        for _ in range(ROUNDS):
            here = _ms(_everything, lambda data: read_image(data, PREPROCESSING), files * 2)
            there = _ms(_everything, lambda data: pool.decode(data).result(), files * 2)
            spent.append((there - here, there / here))
    extra, ratio = (statistics.median(column) for column in zip(*spent, strict=True))
    share = extra / bare(setting, images=BATCH).cpu_ms
    yield Figure(
        "decoding in a confined process, extra", extra, "ms/image", note=f"{ratio:.2f} x decoding here"
    )
    yield Figure("isolation, share of the bare loop", share, goal="<= 0.10")


_UNRESTRICTED = """\
import sys
from worker import decode_child
decode_child.restrict_system_calls = lambda: False
decode_child.main(sys.argv[sys.argv.index("worker.decode_child") + 1:])
"""


@contextmanager
def _unrestricted(folder: Path) -> Iterator[None]:
    """Start decoding children without the kernel's filter of system calls."""
    python, script, starter = sys.executable, folder / "child.py", folder / "python"
    script.write_text(_UNRESTRICTED)
    starter.write_text(f'#!/bin/sh\nexec {python} {script} "$@"\n')
    starter.chmod(0o755)
    sys.executable = str(starter)
    try:
        yield
    finally:
        sys.executable = python


def _restriction(setting: Setting) -> Iterator[Figure]:
    """Compare children with and without the filter, turn by turn: by processor time and by the clock."""
    files = [path.read_bytes() for path in setting.files(32)]
    ratios: dict[str, list[float]] = {"processor time": [], "speed": []}
    with TemporaryDirectory() as folder, DecodePool(1, PREPROCESSING) as filtered, ExitStack() as held:
        with _unrestricted(Path(folder)):
            free = held.enter_context(DecodePool(1, PREPROCESSING))
            free.decode(files[0]).result()
        filtered.decode(files[0]).result()
        for _ in range(RESTRICTION_ROUNDS):
            for name, clock in (("processor time", _everything), ("speed", time.perf_counter)):
                within, without = (_ms(clock, partial(_through, pool), files) for pool in (filtered, free))
                ratios[name].append(within / without if clock is _everything else without / within)
    for name, goal in (("processor time", "<= 1.10"), ("speed", ">= 0.90")):
        label = f"system calls restricted / not, {name}"
        yield Figure(label, statistics.median(ratios[name]), goal=goal)


def _through(pool: DecodePool, data: bytes) -> object:
    return pool.decode(data).result()


def _everything() -> float:
    return processor_seconds(os.getpid())


def figures(setting: Setting) -> Iterator[Figure]:
    """Measure sizes, loss and isolation."""
    yield from _sizes()
    yield from _isolation(setting)
    if sys.platform == "linux":
        yield from _restriction(setting)
